package api_test

import (
	"crypto/tls"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/codex-api/codex-jobs/internal/access"
	"github.com/codex-api/codex-jobs/internal/access/accesstest"
	"github.com/codex-api/codex-jobs/internal/api"
	"github.com/codex-api/codex-jobs/internal/procs"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

// setupTLS starts an API that speaks TLS, asked by a client that knows its certificate.
func setupTLS(t *testing.T, files accesstest.Files) *testBundle {
	t.Helper()
	certificate, err := access.LoadCertificate(files.Cert, files.Key)
	if err != nil {
		t.Fatal(err)
	}
	b := setup(t, func(o *api.Options) { o.Certificate = certificate })
	b.url = strings.Replace(b.url, "http://", "https://", 1)
	b.client = tlsClient(t, files)
	return b
}

func tlsClient(t *testing.T, files accesstest.Files) *http.Client {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: files.Pool(t), ServerName: "jobs.example"},
	}}
	t.Cleanup(client.CloseIdleConnections)
	return client
}

func address(t *testing.T, b *testBundle) (host string, port int) {
	t.Helper()
	_, addr, _ := strings.Cut(b.url, "://")
	host, number, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	if port, err = strconv.Atoi(number); err != nil {
		t.Fatal(err)
	}
	return host, port
}

func TestTLS(t *testing.T) {
	t.Parallel()
	files := accesstest.NewFiles(t, "jobs.example")
	b := setupTLS(t, files)
	a := b.post(t, "/jobs/trigger/user-sync", "")
	if a.status != http.StatusOK || a.header.Get("Strict-Transport-Security") != "max-age=31536000" {
		t.Errorf("%d, %v", a.status, a.header)
	}
	_, addr, _ := strings.Cut(b.url, "://")
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13} {
		conn, err := (&tls.Dialer{Config: &tls.Config{
			RootCAs: files.Pool(t), ServerName: "jobs.example", MinVersion: version, MaxVersion: version,
		}}).DialContext(t.Context(), "tcp", addr)
		if (err == nil) != (version >= tls.VersionTLS12) {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
		if err == nil {
			_ = conn.Close()
		}
	}
	plain, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get("http://" + addr + "/livez")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = plain.Body.Close() }()
	if plain.StatusCode != http.StatusBadRequest {
		t.Errorf("without TLS: %d", plain.StatusCode)
	}
}

// A renewed certificate needs no restart.
func TestRenewedCertificate(t *testing.T) {
	t.Parallel()
	files := accesstest.NewFiles(t, "jobs.example")
	b := setupTLS(t, files)
	if a := b.get(t, "/livez"); a.status != http.StatusOK {
		t.Fatal(a)
	}
	old := b.client
	files.Renew(t, "jobs.example")
	b.client = tlsClient(t, files)
	testbed.Eventually(t, "the new certificate", func() bool {
		a, err := b.try(t.Context(), http.MethodGet, "/livez", "")
		return err == nil && a.status == http.StatusOK
	})
	if n := len(b.log.Find(procs.Match{Msg: "Certificate replaced", Attrs: procs.Attrs{"level": "INFO"}, Text: `"notAfter":"2`})); n != 1 {
		t.Errorf("the log says %d times that the certificate was replaced, want once", n)
	}
	b.client = old
	if _, err := b.try(t.Context(), http.MethodGet, "/livez", ""); err == nil {
		t.Error("the old certificate is still in use")
	}
}

// The health check talks to the server that has the configured certificate, to no other, and without a key.
func TestHealthy(t *testing.T) {
	t.Parallel()
	files, others := accesstest.NewFiles(t, "jobs.example"), accesstest.NewFiles(t, "jobs.example")
	certificate, err := access.LoadCertificate(files.Cert, files.Key)
	if err != nil {
		t.Fatal(err)
	}
	other, err := access.LoadCertificate(others.Cert, others.Key)
	if err != nil {
		t.Fatal(err)
	}
	secured, plain, locked := setupTLS(t, files), setup(t), setupLocked(t)
	for _, test := range []struct {
		name        string
		b           *testBundle
		certificate *access.Certificate
		says        string // "" when it is healthy
	}{
		{"with TLS", secured, certificate, ""},
		{"without TLS", plain, nil, ""},
		{"with keys", locked.testBundle, nil, ""},
		{"another certificate", secured, other, "the server has another certificate than the one in TLS_CERT_FILE"},
		{"no TLS where it should be", plain, certificate, "server gave HTTP response to HTTPS client"},
		{"TLS where none should be", secured, nil, "it answered 400 Bad Request"},
	} {
		host, port := address(t, test.b)
		err := api.Healthy(t.Context(), host, port, test.certificate)
		if (err == nil) != (test.says == "") || err != nil && !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}
