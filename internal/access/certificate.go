// Certificates are renewed every few weeks, by programs that replace the files. The server takes up new ones by itself:
// a restart would end requests, and would be forgotten.

package access

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// checkEvery is how often the files are looked at, at most. They are a few kilobytes.
const checkEvery = 2 * time.Second

// Certificate is the server's, from two files. It may be used by several goroutines at once.
type Certificate struct {
	certFile, keyFile string
	current           atomic.Pointer[tls.Certificate]

	checking  sync.Mutex
	checked   time.Time
	cert, key []byte // what the files had
	problem   string // what was wrong with them when they were looked at last
}

// LoadCertificate reads a certificate, with those that vouch for it after it, and its private key, both in PEM.
func LoadCertificate(certFile, keyFile string) (*Certificate, error) {
	c := &Certificate{certFile: certFile, keyFile: keyFile, checked: time.Now()}
	if _, err := c.load(); err != nil {
		return nil, err
	}
	return c, nil
}

// load takes up what the files have, and says whether that is new.
func (c *Certificate) load() (changed bool, err error) {
	cert, certErr := os.ReadFile(c.certFile)
	key, keyErr := os.ReadFile(c.keyFile)
	if err := errors.Join(certErr, keyErr); err != nil {
		return false, err // which names the file
	}
	if bytes.Equal(cert, c.cert) && bytes.Equal(key, c.key) {
		return false, nil
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return false, fmt.Errorf("%s and %s: %w", c.certFile, c.keyFile, err)
	}
	c.current.Store(&pair)
	c.cert, c.key = cert, key
	return true, nil
}

// Leaf returns the certificate as it is.
func (c *Certificate) Leaf() *x509.Certificate { return c.current.Load().Leaf }

// Get returns the certificate to be shown, and whether it has just been replaced. When the files have changed and cannot
// be used, which is so between the writing of the one and of the other, the former one is returned together with what is
// wrong, once.
func (c *Certificate) Get() (cert *tls.Certificate, changed bool, problem error) {
	if c.checking.TryLock() { // otherwise somebody else is at it
		defer c.checking.Unlock()
		if time.Since(c.checked) >= checkEvery {
			changed, problem = c.load()
			c.checked = time.Now()
			said := c.problem
			c.problem = fmt.Sprint(problem)
			if problem != nil && c.problem == said {
				problem = nil
			}
		}
	}
	return c.current.Load(), changed, problem
}
