package config_test

import (
	"slices"
	"testing"
)

func TestUnknownSettings(t *testing.T) {
	unknown := []string{
		"API_KEY", "AUTH_DISABLE", "JOB_ATTEMPT", "LOG_LEVELS", "MONGODB_URL", "REDIS_URL", "SYNC_WRITER", "USER_SYNC_INTERVALL",
		"WORKER_CONCURENCY",
	}
	var environment []string
	for _, name := range unknown {
		environment = append(environment, name+"=1")
	}
	environment = append(
		environment, "REDIS_HOST=localhost", "USER_SYNC_INTERVAL=20m", // known
		"USER_ID=1", "PATH_TO_REDIS=/", "OTEL_SERVICE_NAME=x", "REDIS=x", "redis_url=x", "SYNCHRONISE=1", // of others
		"REDIS_SERVICE_HOST=10.0.0.1", "REDIS_SERVICE_PORT=6379", "REDIS_SERVICE_PORT_REDIS=6379", "API_PORT=tcp://10.0.0.1:80", // of Kubernetes
		"API_PORT_80_TCP=tcp://10.0.0.1:80", "API_PORT_80_TCP_ADDR=10.0.0.1", "WORKER_METRICS_PORT_1_TCP_PROTO=tcp",
		"WORKER_CPUS=1", "REDIS_IMAGE=redis:8", // of Compose
	)
	setup(t, "SYNC_BATCHES=1\nPORT=4000\nOTHER=1\n", environment...)
	want := slices.Sorted(slices.Values(append(unknown, "SYNC_BATCHES")))
	got := slices.DeleteFunc(load(t).Unknown, func(name string) bool { return !slices.Contains(append(want, environmentOf(environment)...), name) })
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// environmentOf returns the names in the environment. The machine's own may have others that look like settings.
func environmentOf(environment []string) []string {
	var names []string
	for _, variable := range environment {
		names = append(names, variable[:slices.Index([]byte(variable), '=')])
	}
	return names
}
