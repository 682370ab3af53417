// How the programs are watched: the admin port with metrics and probes, and traces.

package config

import (
	"crypto/x509"
	"fmt"
	"strings"
	"time"
)

// Admin is the admin port, which has a program's metrics and probes.
type Admin struct {
	Host string
	// Port is 0 for the program's default, and AdminOff for none.
	Port int
}

// The default admin ports. They differ so that one program of each can share a host.
const (
	AdminPortAPI       = 4001
	AdminPortScheduler = 4002
	AdminPortWorker    = 4003
)

// AdminOff is the Port of a program without an admin port.
const AdminOff = -1

// Tracing says where traces are sent.
type Tracing struct {
	// Endpoint is the base URL of a collector that takes OTLP over HTTP; "" for no traces.
	Endpoint string
	// Headers are sent with every request to the collector.
	Headers map[string]string
	// CA are the certificate authorities to trust with an https endpoint; nil for the system's.
	CA *x509.CertPool
	// Timeout bounds one request.
	Timeout time.Duration
	// Ratio is the share of the traces that begin in this system that is kept, 0 to 1.
	Ratio float64
}

func readAdmin(r *reader) Admin {
	g := r.group("Metrics and probes", api, scheduler, worker)
	return Admin{
		Host: read(g, "ADMIN_HOST", "127.0.0.1", host, "the address of the admin port, which has the metrics and the probes"),
		Port: read(g, "ADMIN_PORT", "", adminPort, fmt.Sprintf("the admin port; by default %d for the API, %d for a scheduler, %d for a worker, or a free one if another process has that",
			AdminPortAPI, AdminPortScheduler, AdminPortWorker)),
	}
}

// readTracing reads the settings of traces. Their names and formats are OpenTelemetry's.
func readTracing(r *reader) Tracing {
	g := r.group("Traces", api, scheduler, worker)
	c := Tracing{
		Endpoint: read(g, "OTEL_EXPORTER_OTLP_ENDPOINT", "", baseURL, "the collector that traces are sent to, with OTLP over HTTP; without it there are no traces"),
		Headers:  read(g, "OTEL_EXPORTER_OTLP_HEADERS", "", headers, "the headers that are sent with the traces"),
		CA: readAuthorities(g, "OTEL_EXPORTER_OTLP_CERTIFICATE",
			"the certificate authorities to trust with an https endpoint, in PEM; by default the system's"),
		Timeout: time.Duration(read(g, "OTEL_EXPORTER_OTLP_TIMEOUT", "10000", wholeNumber(1, 600_000),
			"how long a request to the collector may take, in milliseconds")) * time.Millisecond,
		Ratio: read(g, "OTEL_TRACES_SAMPLER_ARG", "1", number(0, 1), "the share of the traces that is kept"),
	}
	if c.CA != nil && strings.HasPrefix(c.Endpoint, "http:") {
		g.refuse("OTEL_EXPORTER_OTLP_CERTIFICATE is set and OTEL_EXPORTER_OTLP_ENDPOINT is not https; set it to an https URL")
	}
	return c
}
