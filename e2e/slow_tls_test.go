//go:build slow

package e2e_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/internal/redisconn"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

// authority signs certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	file        string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{key: newKey(t)}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	encoded, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.certificate, err = x509.ParseCertificate(encoded); err != nil {
		t.Fatal(err)
	}
	a.file = writePEM(t, "CERTIFICATE", encoded)
	return a
}

// issue makes a certificate of this host for a server and a client, and returns the paths of it and of its key.
func (a *authority) issue(t *testing.T) (certificate, key string) {
	t.Helper()
	private := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	encoded, err := x509.CreateCertificate(rand.Reader, template, a.certificate, private.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	encodedKey, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return writePEM(t, "CERTIFICATE", encoded), writePEM(t, "PRIVATE KEY", encodedKey)
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func writePEM(t *testing.T, kind string, data []byte) string {
	t.Helper()
	return writeFile(t, string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data})))
}

func writeFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Redis speaks TLS only, asks its clients for a certificate, and has only the user of docs/deploying.md. With the right
// settings everything works. With a wrong one the processes wait, and say why.
func TestSlowTLS(t *testing.T) {
	t.Parallel()
	const n = 200
	trusted, other := newAuthority(t), newAuthority(t)
	certificate, key := trusted.issue(t)
	users := writeFile(t, aclFile(t)+"user tester on >"+redisPassword+" ~* &* +@all\n")
	server := startRedis(t, "redis-server", func(port string) []string {
		return append([]string{
			"--port", "0", "--tls-port", port, "--tls-auth-clients", "yes", "--aclfile", users,
			"--tls-ca-cert-file", trusted.file, "--tls-cert-file", certificate, "--tls-key-file", key,
		}, storing...)
	})
	clientCertificate, clientKey := trusted.issue(t)
	wrongCertificate, wrongKey := other.issue(t)
	env := append(redisEnv(server.addr), append([]string{"REDIS_DB=2", "REDIS_TLS=true", "REDIS_TLS_CA_FILE=" + trusted.file,
		"REDIS_TLS_CERT_FILE=" + clientCertificate, "REDIS_TLS_KEY_FILE=" + clientKey}, userEnv...)...)

	pair, err := tls.LoadX509KeyPair(clientCertificate, clientKey)
	if err != nil {
		t.Fatal(err)
	}
	authorities := x509.NewCertPool()
	authorities.AddCert(trusted.certificate)
	s := setupOn(t, redisconn.Options{
		Addr: server.addr, Username: "tester", Password: redisPassword, DB: 2,
		TLS: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: authorities, Certificates: []tls.Certificate{pair}},
	}, env...)
	s.insert(t, messyUsers(n))
	before := s.snapshot(t)
	s.env = append(s.env, "ISSUE_SYNC_INTERVAL=5s", "SYNC_RANGE_SIZE=50")

	t.Run("wrong", func(t *testing.T) {
		for name, test := range map[string]struct {
			env  []string
			said []string // one of these
		}{
			"authority":              {[]string{"REDIS_TLS_CA_FILE=" + other.file}, []string{"certificate signed by unknown authority"}},
			"name":                   {[]string{"REDIS_TLS_SERVER_NAME=redis.internal"}, []string{"redis.internal"}},
			"no client certificate":  {[]string{"REDIS_TLS_CERT_FILE=", "REDIS_TLS_KEY_FILE="}, []string{"certificate required", "reset by peer", "broken pipe"}},
			"client's authority":     {[]string{"REDIS_TLS_CERT_FILE=" + wrongCertificate, "REDIS_TLS_KEY_FILE=" + wrongKey}, []string{"unknown certificate authority", "reset by peer", "broken pipe"}},
			"without TLS":            {[]string{"REDIS_TLS=", "REDIS_TLS_CA_FILE=", "REDIS_TLS_CERT_FILE=", "REDIS_TLS_KEY_FILE="}, []string{"EOF", "reset by peer"}},
			"password":               {[]string{"REDIS_PASSWORD=s3cret"}, []string{"WRONGPASS"}},
			"without a user":         {[]string{"REDIS_USERNAME="}, []string{"WRONGPASS"}},
			"neither user, password": {[]string{"REDIS_USERNAME=", "REDIS_PASSWORD="}, []string{"NOAUTH"}},
		} {
			t.Run(name, func(t *testing.T) {
				var all []*process
				for _, program := range deployables {
					all = append(all, s.start(t, program, append(test.env, "PORT="+testbed.FreePort(t))...))
				}
				for _, p := range all {
					for _, line := range p.waitForLogs(t, 3, "Waiting for Redis", attrs{"level": "WARN"}) {
						text, _ := line["error"].(string)
						if !slices.ContainsFunc(test.said, func(s string) bool { return strings.Contains(text, s) }) {
							t.Errorf("%s waits because of %q, want one of %q", p, text, test.said)
						}
					}
					if strings.Contains(p.Log().String(), "s3cret") || strings.Contains(p.Log().String(), redisPassword) {
						t.Errorf("%s logged a password", p)
					}
					p.stop(t)
				}
			})
		}
	})

	if err := s.rdb.Do(t.Context(), "ACL", "LOG", "RESET").Err(); err != nil {
		t.Fatal(err)
	}
	all := []*process{s.startReady(t, "api"), s.startReady(t, "scheduler"), s.startReady(t, "worker", "LOG_LEVEL=debug")}
	s.wantHealthy(t)
	id := s.trigger(t, `{"syncType": "full"}`)
	wantComplete(t, s.result(t, id), n)
	s.wantStamped(t, before, id.Reference, id.Reference)
	all[1].waitForLog(t, "Tick enqueued", attrs{"job": "issue-sync"})
	s.wantDashboard(t)
	s.wantControls(t, userSync)
	s.wantControls(t, "project-sync")
	wantNothingDenied(t, s.rdb)

	// Redis has its data, and no connection that it has closed is used again.
	if status, body := s.request(t, http.MethodPost, "/jobs/pause", ""); status != http.StatusOK {
		t.Fatalf("/jobs/pause: %d %s", status, body)
	}
	waiting := s.trigger(t, `{"syncType": "full"}`)
	testbed.Eventually(t, "Redis to have written that", func() bool {
		return info(t, s.rdb, "persistence", "aof_pending_bio_fsync") == "0" && info(t, s.rdb, "persistence", "aof_buffer_length") == "0"
	})
	server.kill()
	if status, body := s.request(t, http.MethodGet, "/jobs/status", ""); status != http.StatusServiceUnavailable {
		t.Errorf("/jobs/status without Redis: %d %s", status, body)
	}
	server.restart(t)
	testbed.Eventually(t, "the API serves again", func() bool {
		status, _ := s.request(t, http.MethodGet, "/readyz", "")
		return status == http.StatusOK
	})
	if status, body := s.request(t, http.MethodPost, "/jobs/resume", ""); status != http.StatusOK {
		t.Errorf("/jobs/resume: %d %s", status, body)
	}
	wantComplete(t, s.result(t, waiting), n)
	wantComplete(t, s.result(t, s.trigger(t, `{"syncType": "full"}`)), n)
	for _, p := range all {
		p.stop(t)
	}
	wantNothingDenied(t, s.rdb)
}
