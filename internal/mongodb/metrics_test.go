package mongodb

import (
	"log/slog"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/codex-api/codex-jobs/internal/mongodb/faultproxy"
	"github.com/codex-api/codex-jobs/internal/telemetry/telemetrytest"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

const (
	poolOpen     = "codex_jobs_mongodb_connections_open"
	poolInUse    = "codex_jobs_mongodb_connections_in_use"
	poolFailures = "codex_jobs_mongodb_checkout_failures_total"
	poolWaits    = "codex_jobs_mongodb_checkout_duration_seconds_count"
)

// The metrics follow the pool from its first connection to its end. Meanwhile the server hangs for a while.
func TestPoolMetrics(t *testing.T) {
	t.Parallel()
	proxy, err := faultproxy.New(serverURI(t))
	if err != nil {
		t.Fatal(err)
	}
	defer proxy.Close()
	uri, err := proxy.URI(serverURI(t))
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	client, err := Connect(uri, slog.New(slog.DiscardHandler), quick, PoolMetrics(registry),
		func(o *options.ClientOptions) { o.SetMaxPoolSize(1) })
	if err != nil {
		t.Fatal(err)
	}
	metrics := func() telemetrytest.Metrics { return telemetrytest.Gather(t, registry) }
	pingAll := func(n int) *sync.WaitGroup {
		var all sync.WaitGroup
		for range n {
			all.Go(func() { _ = client.Ping(t.Context()) }) // which may fail
		}
		return &all
	}

	if m := metrics(); m[poolOpen] != 0 || m[poolInUse] != 0 || m[poolWaits] != 0 || m[poolFailures] != 0 || len(m) < 4 {
		t.Errorf("before the first connection: %v", m)
	}
	pingAll(10).Wait()
	if m := metrics(); m[poolOpen] != 1 || m[poolInUse] != 0 || m[poolWaits] != 10 || m[poolFailures] != 0 {
		t.Errorf("after ten operations: %v", m)
	}

	// One operation has the connection and gets no answer, the others do not get it.
	proxy.Swallow()
	pings := pingAll(5)
	testbed.Eventually(t, "the connection to be in use", func() bool { return metrics()[poolInUse] == 1 })
	pings.Wait()
	if m := metrics(); m[poolInUse] != 0 || m[poolFailures] < 1 {
		t.Errorf("after a server that hung: %v", m)
	}
	inject(t, proxy.Heal)
	testbed.Eventually(t, "the server to be back", func() bool { return client.Ping(t.Context()) == nil })
	if m := metrics(); m[poolOpen] != 1 || m[poolInUse] != 0 {
		t.Errorf("when the server is back: %v", m)
	}

	if err := client.Close(); err != nil {
		t.Error(err)
	}
	if m := metrics(); m[poolOpen] != 0 || m[poolInUse] != 0 {
		t.Errorf("after the end: %v", m)
	}
}
