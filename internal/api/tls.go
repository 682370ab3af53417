// The API speaks TLS itself when it has a certificate, for systems without a proxy in front of it.

package api

import (
	"bytes"
	"crypto/tls"
	"errors"
	"net/http"
	"time"

	"github.com/codex-api/codex-jobs/internal/access"
)

// serverTLS returns the server's TLS configuration, which uses the current certificate for each connection.
func (s *Server) serverTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			cert, changed, problem := s.Certificate.Get()
			if changed {
				s.Log.Info("Certificate replaced", "notAfter", cert.Leaf.NotAfter.UTC().Format(time.RFC3339))
			}
			if problem != nil {
				s.Log.Warn("Certificate cannot be replaced, the former one stays", "error", problem)
			}
			return cert, nil
		},
	}
}

// pinned returns a client that accepts this very certificate and no other, whatever its name and authority are: the client
// connects to this machine, where the name need not lead. Without a certificate it does not use TLS.
func pinned(certificate *access.Certificate) *http.Client {
	transport := &http.Transport{DisableKeepAlives: true}
	if certificate != nil {
		transport.TLSClientConfig = &tls.Config{
			MinVersion:         tls.VersionTLS12,
			InsecureSkipVerify: true, // the usual verification; VerifyConnection is stricter
			VerifyConnection: func(state tls.ConnectionState) error {
				if len(state.PeerCertificates) == 0 || !bytes.Equal(state.PeerCertificates[0].Raw, certificate.Leaf().Raw) {
					return errors.New("the server has another certificate than the one in TLS_CERT_FILE")
				}
				return nil
			},
		}
	}
	return &http.Client{Transport: transport}
}
