package redistest

import (
	"testing"

	"github.com/codex-api/codex-jobs/internal/testbed"
)

// Proxy is testbed's, under the name that it had.
type Proxy = testbed.Proxy

// NewProxy is testbed's, under the name that it had.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	return testbed.NewProxy(t, target)
}
