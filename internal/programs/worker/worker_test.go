package worker

import (
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/internal/mongodb"
)

func TestOperationTimeout(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ budget, read, write time.Duration }{
		{0, leastTimeout, leastTimeout},
		{time.Second, leastTimeout, leastTimeout},
		{time.Minute, time.Minute, mongodb.DefaultWriteTimeout},
		{time.Hour, mongodb.DefaultReadTimeout, mongodb.DefaultWriteTimeout},
	} {
		if got := operationTimeout(test.budget, mongodb.DefaultReadTimeout); got != test.read {
			t.Errorf("with a budget of %s a read may take %s, want %s", test.budget, got, test.read)
		}
		if got := operationTimeout(test.budget, mongodb.DefaultWriteTimeout); got != test.write {
			t.Errorf("with a budget of %s a write may take %s, want %s", test.budget, got, test.write)
		}
	}
}
