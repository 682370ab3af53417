// Certificates are renewed every few weeks, by programs that replace the files. The server loads the new ones by itself: a
// restart would end requests, and operators forget it.

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

// checkEvery is the least pause between two reads of the files.
const checkEvery = 2 * time.Second

// Certificate is the server's certificate, from two files. It is safe for concurrent use.
type Certificate struct {
	certFile, keyFile string
	current           atomic.Pointer[tls.Certificate]

	checking  sync.Mutex
	checked   time.Time
	cert, key []byte // what was last read from the files
	problem   string // what was wrong with the files at the last read
}

// LoadCertificate reads a certificate, followed by its intermediates, and its private key, both in PEM.
func LoadCertificate(certFile, keyFile string) (*Certificate, error) {
	c := &Certificate{certFile: certFile, keyFile: keyFile, checked: time.Now()}
	if _, err := c.load(); err != nil {
		return nil, err
	}
	return c, nil
}

// load reads the files, and reports whether they have changed.
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

// Leaf returns the parsed certificate, without its intermediates.
func (c *Certificate) Leaf() *x509.Certificate { return c.current.Load().Leaf }

// Get returns the certificate for a new connection, and whether it has just been replaced. While the files do not fit each
// other, as between the writing of one and of the other, Get returns the old certificate. It returns each reason as an error
// once.
func (c *Certificate) Get() (cert *tls.Certificate, changed bool, problem error) {
	if c.checking.TryLock() { // another goroutine checks the files otherwise
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
