package access_test

import (
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/internal/access"
	"github.com/codex-api/codex-jobs/internal/access/accesstest"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

// until gets the certificate until the condition holds.
func until(t *testing.T, c *access.Certificate, condition func(name string, changed bool, problem error) bool) {
	t.Helper()
	testbed.Eventually(t, "the certificate to be as it should", func() bool {
		cert, changed, problem := c.Get()
		return condition(cert.Leaf.Subject.CommonName, changed, problem)
	})
}

// Renewed files are loaded. Files that cannot be used are reported once, and change nothing.
func TestCertificateIsReplaced(t *testing.T) {
	t.Parallel()
	files := accesstest.NewFiles(t, "first")
	c, err := access.LoadCertificate(files.Cert, files.Key)
	if err != nil {
		t.Fatal(err)
	}
	if cert, changed, problem := c.Get(); cert.Leaf.Subject.CommonName != "first" || changed || problem != nil {
		t.Errorf("at first: %s, %v, %v", cert.Leaf.Subject, changed, problem)
	}

	other := accesstest.NewFiles(t, "second")
	move(t, other.Cert, files.Cert) // the key is still the first one's
	until(t, c, func(name string, changed bool, problem error) bool {
		if name != "first" || changed {
			t.Fatalf("with a key that does not belong to it: %s, %v", name, changed)
		}
		return problem != nil && strings.Contains(problem.Error(), "private key does not match public key")
	})
	quiet := time.Now().Add(2500 * time.Millisecond) // the files are checked once more meanwhile
	until(t, c, func(_ string, _ bool, problem error) bool {
		if problem != nil {
			t.Errorf("said again: %v", problem)
		}
		return time.Now().After(quiet)
	})
	move(t, other.Key, files.Key)
	until(t, c, func(name string, changed bool, problem error) bool {
		if problem != nil || changed != (name == "second") {
			t.Fatalf("%s, %v, %v", name, changed, problem)
		}
		return changed
	})
	if err := os.Remove(files.Cert); err != nil {
		t.Fatal(err)
	}
	until(t, c, func(_ string, _ bool, problem error) bool {
		return problem != nil && strings.Contains(problem.Error(), "no such file")
	})
	if name := c.Leaf().Subject.CommonName; name != "second" {
		t.Errorf("without a file the certificate is %s", name)
	}
}

func move(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func TestCertificateIsUsedByMany(t *testing.T) {
	t.Parallel()
	files := accesstest.NewFiles(t, "first")
	c, err := access.LoadCertificate(files.Cert, files.Key)
	if err != nil {
		t.Fatal(err)
	}
	files.Renew(t, "second")
	var users sync.WaitGroup
	changes := make(chan bool, 1000)
	for range 8 {
		users.Go(func() {
			for deadline := time.Now().Add(testbed.WaitLimit); time.Now().Before(deadline) && c.Leaf().Subject.CommonName == "first"; time.Sleep(time.Millisecond) {
				if _, changed, _ := c.Get(); changed {
					changes <- true
				}
			}
		})
	}
	users.Wait()
	if len(changes) != 1 || c.Leaf().Subject.CommonName != "second" {
		t.Errorf("%d have replaced it, want 1", len(changes))
	}
}

func TestRefusedCertificates(t *testing.T) {
	t.Parallel()
	good, other := accesstest.NewFiles(t, "good"), accesstest.NewFiles(t, "other")
	for _, test := range []struct{ cert, key, want string }{
		{good.Cert + "x", good.Key, "cert.pemx: no such file"},
		{good.Cert, good.Key + "x", "key.pemx: no such file"},
		{good.Cert, other.Key, "private key does not match public key"},
		{good.Key, good.Cert, "PEM inputs may have been switched"},
		{good.Cert, good.Cert, "found a certificate rather than a key"},
		{os.DevNull, good.Key, "failed to find any PEM data in certificate input"},
		{t.TempDir(), good.Key, "is a directory"},
	} {
		if _, err := access.LoadCertificate(test.cert, test.key); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s, %s: %v, want %s", test.cert, test.key, err, test.want)
		}
	}
}
