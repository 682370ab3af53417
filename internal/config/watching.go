// How the programs are watched: the admin port with its metrics and probes, and where traces go.

package config

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// Admin is the port on which each program shows its metrics and whether it lives.
type Admin struct {
	Host string
	// Port is 0 for the program's own, and AdminOff for none.
	Port int
}

// The admin ports of the programs where nothing else is set, so that one of each can share a host.
const (
	AdminPortAPI       = 4001
	AdminPortScheduler = 4002
	AdminPortWorker    = 4003
)

// AdminOff is the Port of a program that is not watched.
const AdminOff = -1

// Tracing is where traces go.
type Tracing struct {
	// Endpoint is the base URL of what takes OTLP over HTTP; "" for no traces.
	Endpoint string
	// Headers are sent with every request to it.
	Headers map[string]string
	// Ratio is the share of traces that is kept, of those that begin here: 0 to 1.
	Ratio float64
}

// addWatching adds the settings. Those of traces have the names, and the form, that OpenTelemetry has given them.
func (l *loader) addWatching() {
	c := &l.config
	l.add("ADMIN_HOST", "127.0.0.1", "a host name or address", "the address of the admin port, which has the metrics and the probes",
		host(&c.Admin.Host))
	l.add("ADMIN_PORT", "", "off or "+portRange, fmt.Sprintf("the admin port, or off; by default %d for the API, %d for a scheduler, %d for a worker",
		AdminPortAPI, AdminPortScheduler, AdminPortWorker),
		adminPort(&c.Admin.Port))
	l.add("OTEL_EXPORTER_OTLP_ENDPOINT", "", "a URL, such as http://collector:4318",
		"where traces are sent with OTLP over HTTP; without it there are none", endpoint(&c.Tracing.Endpoint))
	l.addSecret("OTEL_EXPORTER_OTLP_HEADERS", "name=value, with commas between them, the values percent-encoded",
		"headers that are sent with the traces: name=value, with commas between them, the values percent-encoded", headers(&c.Tracing.Headers))
	l.add("OTEL_TRACES_SAMPLER_ARG", "1", "a number from 0 to 1", "the share of traces that is kept", ratio(&c.Tracing.Ratio))
}

func adminPort(target *int) func(string) bool {
	return func(value string) bool {
		if value == "off" {
			*target = AdminOff
			return true
		}
		return number(target, 1, 65535)(value)
	}
}

// endpoint takes a URL to which a path can be added.
func endpoint(target *string) func(string) bool {
	return func(value string) bool {
		*target = value
		u, err := url.Parse(value)
		return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" && u.RawQuery == "" && u.Fragment == ""
	}
}

// headers reads name=value pairs, whose values are percent-encoded.
func headers(target *map[string]string) func(string) bool {
	return func(value string) bool {
		*target = make(map[string]string)
		for pair := range strings.SplitSeq(value, ",") {
			name, encoded, ok := strings.Cut(pair, "=")
			decoded, err := url.PathUnescape(strings.TrimSpace(encoded))
			if name = strings.TrimSpace(name); !ok || err != nil || name == "" || strings.ContainsAny(name, " \t:") {
				return false
			}
			(*target)[name] = decoded
		}
		return true
	}
}

func ratio(target *float64) func(string) bool {
	return func(value string) bool {
		f, err := strconv.ParseFloat(value, 64)
		*target = f
		return err == nil && f >= 0 && f <= 1
	}
}
