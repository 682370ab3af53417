// What the settings of traces say about each other.

package config_test

import (
	"crypto/tls"
	"crypto/x509"
	"strings"
	"testing"

	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/internal/config"
)

func TestAuthoritiesOfTheCollector(t *testing.T) {
	certificate, key := pair(t)
	want, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	authorities := x509.NewCertPool()
	authorities.AddCert(want.Leaf)
	// Without an endpoint nothing is sent: then it is no mistake.
	for _, endpoint := range []string{"", "https://collector:4318"} {
		setup(t, "", "OTEL_EXPORTER_OTLP_ENDPOINT="+endpoint, "OTEL_EXPORTER_OTLP_CERTIFICATE="+certificate)
		if got := load(t).Tracing.CA; !got.Equal(authorities) {
			t.Errorf("%q: got %+v", endpoint, got)
		}
	}
	for name, test := range map[string]struct{ endpoint, certificate, want string }{
		"without TLS":    {"http://collector:4318", certificate, "OTEL_EXPORTER_OTLP_CERTIFICATE is set and OTEL_EXPORTER_OTLP_ENDPOINT is not https; "},
		"no certificate": {"https://collector:4318", key, "OTEL_EXPORTER_OTLP_CERTIFICATE: there is no certificate in PEM in " + key},
		"a missing file": {"https://collector:4318", "/not/there", "OTEL_EXPORTER_OTLP_CERTIFICATE: open /not/there: "},
	} {
		t.Run(name, func(t *testing.T) {
			setup(t, "", "OTEL_EXPORTER_OTLP_ENDPOINT="+test.endpoint, "OTEL_EXPORTER_OTLP_CERTIFICATE="+test.certificate)
			if _, err := config.Load(codex.Registry()); err == nil || !strings.HasPrefix(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}
