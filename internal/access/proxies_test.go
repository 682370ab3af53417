package access_test

import (
	"testing"

	"github.com/codex-api/codex-jobs/internal/access"
)

func TestParseNetwork(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"10.0.0.0/8": "10.0.0.0/8", "10.1.2.3/8": "10.0.0.0/8", "192.168.1.7": "192.168.1.7/32", "::1": "::1/128", "fd00::/8": "fd00::/8",
		"::ffff:10.0.0.1": "10.0.0.1/32",
	} {
		if got, err := access.ParseNetwork(text); err != nil || got.String() != want {
			t.Errorf("%s: %v, %v, want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", "*", "proxy", "10.0.0.0/33", "10.0.0", "10.0.0.1:80", "10.0.0.0/8 "} {
		if got, err := access.ParseNetwork(text); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}
