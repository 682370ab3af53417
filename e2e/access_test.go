package e2e_test

import (
	"crypto/tls"
	"net/http"
	"strings"
	"testing"

	"github.com/codex-api/codex-jobs/internal/access/accesstest"
	"github.com/codex-api/codex-jobs/internal/config"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

// noKeys is what an API logs that serves all who reach it.
const noKeys = "The API has no keys: it serves all who reach it"

// An API that others could reach without keys does not start, and names both ways out.
func TestOpenAPIMustBeSaid(t *testing.T) {
	t.Parallel()
	for _, name := range deployables {
		status, out, errOut := run(t, command(t, name, []string{"HOST=0.0.0.0"}))
		if status != config.ExitUsage || out != "" || strings.Count(errOut, "\n") != 2 {
			t.Errorf("%s: exit status %d, %q, %q", name, status, out, errOut)
		}
		for _, part := range []string{"HOST must be ", `was "0.0.0.0"`, "set API_KEYS", "AUTH_DISABLED=true"} {
			if !strings.Contains(errOut, part) {
				t.Errorf("%s does not say %q: %s", name, part, errOut)
			}
		}
	}
	s := setup(t)
	open := s.startReady(t, "api", "HOST=0.0.0.0", "AUTH_DISABLED=unless-keys")
	open.waitForLog(t, noKeys, attrs{"level": "WARN", "host": "0.0.0.0", "set": "API_KEYS or API_KEYS_FILE"})
	if status, text := s.request(t, http.MethodGet, "/jobs/status", ""); status != http.StatusOK {
		t.Errorf("where it was said: %d %s", status, text)
	}
}

// Keys and TLS in the real process: the health check needs no key and trusts only the certificate of the settings, a renewed
// certificate is loaded, and no log shows the keys.
func TestKeysAndTLS(t *testing.T) {
	t.Parallel()
	const key = "S3CR3T-key-of-somebody"
	s := setup(t)
	files := accesstest.NewFiles(t, "jobs.example")
	s.env = append(s.env, "API_KEYS=viewer:read:0123456789abcdef,ops:write:"+key, "HOST=0.0.0.0", "AUTH_DISABLED=unless-keys",
		"TLS_CERT_FILE="+files.Cert, "TLS_KEY_FILE="+files.Key)
	p := s.startReady(t, "api")
	healthy := func() bool {
		status, _, errOut := run(t, command(t, "api", s.env, "--healthy"))
		if strings.Contains(errOut, "S3CR3T") {
			t.Errorf("the health check tells a key: %s", errOut)
		}
		return status == config.ExitOK
	}
	ask := func(method, path, credentials string) (int, error) {
		client := &http.Client{Transport: &http.Transport{
			DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: files.Pool(t), ServerName: "jobs.example"},
		}}
		request, err := http.NewRequestWithContext(t.Context(), method, strings.Replace(s.api, "http:", "https:", 1)+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if credentials != "" {
			request.Header.Set("Authorization", credentials)
		}
		response, err := client.Do(request)
		if err != nil {
			return 0, err
		}
		return response.StatusCode, response.Body.Close()
	}
	if !healthy() {
		t.Error("with keys and TLS it is not healthy")
	}
	for _, test := range []struct {
		method, path, credentials string
		status                    int
	}{
		{http.MethodGet, "/health", "", http.StatusOK},
		{http.MethodGet, "/jobs/status", "", http.StatusUnauthorized},
		{http.MethodGet, "/jobs/status", "Bearer " + key, http.StatusOK},
		{http.MethodPost, "/jobs/pause", "Bearer 0123456789abcdef", http.StatusForbidden},
		{http.MethodPost, "/jobs/pause", "Bearer " + key, http.StatusOK},
	} {
		if status, err := ask(test.method, test.path, test.credentials); err != nil || status != test.status {
			t.Errorf("%s %s: %d, %v, want %d", test.method, test.path, status, err, test.status)
		}
	}
	files.Renew(t, "jobs.example")
	testbed.Eventually(t, "the new certificate", func() bool {
		status, err := ask(http.MethodGet, "/livez", "")
		return err == nil && status == http.StatusOK
	})
	if !healthy() {
		t.Error("with a renewed certificate it is not healthy")
	}
	p.waitForLog(t, "User sync jobs paused", attrs{"key": "ops"})
	p.waitForLog(t, "Request refused", attrs{"key": "viewer", "status": 403.0})
	p.stop(t)
	p.mustNotLog(t, noKeys)
	if text := p.Log().String(); strings.Contains(text, "S3CR3T") || strings.Contains(text, "0123456789abcdef") || !strings.Contains(text, "ops (write)") {
		t.Errorf("what the log has of the keys: %s", text)
	}
}
