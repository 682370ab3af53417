package mongodb

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/codex-api/codex-jobs/internal/mongodb/faultproxy"
	"github.com/codex-api/codex-jobs/internal/procs"
	"github.com/codex-api/codex-jobs/internal/syncrun"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

// Levels of lines of the log.
var (
	warned   = procs.Match{Attrs: procs.Attrs{"level": "WARN"}}
	informed = procs.Match{Attrs: procs.Attrs{"level": "INFO"}}
)

func TestConnectHasDefaults(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	var got *options.ClientOptions
	keep := func(o *options.ClientOptions) { got = o }

	client, err := Connect("mongodb://localhost:1/codex", log, keep)
	if err != nil {
		t.Fatal(err)
	}
	if *got.AppName != "codex-jobs" || *got.ServerSelectionTimeout != 5*time.Second || *got.ConnectTimeout != 5*time.Second || got.WriteConcern.W != "majority" {
		t.Errorf("the defaults are %q, %s, %s, %v", *got.AppName, *got.ServerSelectionTimeout, *got.ConnectTimeout, got.WriteConcern)
	}
	if idle := *got.MaxConnIdleTime; idle <= 0 || idle > 45*time.Second {
		t.Errorf("a connection can be idle for %s", idle)
	}
	if name := client.Database("other").Name(); name != "other" {
		t.Errorf("the database is %q", name)
	}
	if err := client.Close(); err != nil {
		t.Error(err)
	}

	client, err = Connect("mongodb://localhost:1/?appName=mine&serverSelectionTimeoutMS=70&connectTimeoutMS=80&w=1&retryWrites=true&maxIdleTimeMS=90", log, keep)
	if err != nil {
		t.Fatal(err)
	}
	if *got.RetryReads || *got.RetryWrites {
		t.Error("the driver is to try again by itself")
	}
	if *got.AppName != "mine" || *got.ServerSelectionTimeout != 70*time.Millisecond || *got.ConnectTimeout != 80*time.Millisecond || got.WriteConcern.W != 1 {
		t.Errorf("what the connection string said became %q, %s, %s, %v", *got.AppName, *got.ServerSelectionTimeout, *got.ConnectTimeout, got.WriteConcern)
	}
	if idle := *got.MaxConnIdleTime; idle != 90*time.Millisecond {
		t.Errorf("a connection can be idle for %s, where the connection string says 90 ms", idle)
	}
	if err := client.Close(); err != nil {
		t.Error(err)
	}
}

func TestConnectRefuses(t *testing.T) {
	t.Parallel()
	for _, uri := range []string{
		"", "localhost:27017", "postgres://u:s3cret@h/d", "mongodb://u:s3cret@", "mongodb://u:s3cret@h:99999999/",
		"mongodb://u:s3cret%zz@h/", "mongodb://u:s3/cret@h/", "mongodb://u:s3cret@h/?w=nobody&tls=perhaps",
		"mongodb://u:s3cret@h/?w=0",
	} {
		client, err := Connect(uri, slog.New(slog.DiscardHandler))
		if err == nil {
			t.Errorf("took %q", uri)
			_ = client.Close()
			continue
		}
		if strings.Contains(err.Error(), "cret") {
			t.Errorf("the error holds the password: %v", err)
		}
	}
}

func TestPing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if err := b.client.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.client.Ping(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestPingNobody(t *testing.T) {
	t.Parallel()
	log, logger := testbed.NewLog(t)
	client, err := Connect("mongodb://u:s3cret@127.0.0.1:"+testbed.FreePort(t), logger, quick)
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Ping(t.Context()); !errors.Is(err, syncrun.ErrUnavailable) || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("%v", err)
	}
	if err := client.Close(); err != nil {
		t.Error(err)
	}
	if text := log.String(); len(log.Find(warned)) != 1 || strings.Count(text, "unreachable") != 1 || strings.Contains(text, "s3cret") {
		t.Errorf("logged:\n%s", log.String())
	}
}

func TestWrongPassword(t *testing.T) {
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
	proxy.Inject(faultproxy.Fault{Command: "saslStart", Code: 18, Message: "Authentication failed.", Times: faultproxy.Always})
	client, err := Connect(strings.Replace(uri, "://", "://u:s3cret@", 1), slog.New(slog.DiscardHandler), quick)
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Ping(t.Context()); err == nil || errors.Is(err, syncrun.ErrUnavailable) || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("%v", err)
	}
	if proxy.Count("saslStart") == 0 {
		t.Error("the client did not try to authenticate")
	}
	if err := client.Close(); err != nil {
		t.Error(err)
	}
}

// TestLogsEachChangeOnce takes the server away twice, for several heartbeats each.
func TestLogsEachChangeOnce(t *testing.T) {
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
	log, logger := testbed.NewLog(t)
	client, err := Connect(uri, logger, quick)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	}()
	testbed.Eventually(t, "the server is reachable", func() bool { return client.Ping(t.Context()) == nil })
	for round, takeAway := range []func(){proxy.Refuse, proxy.Swallow} {
		takeAway()
		for range 3 {
			if err := client.Ping(t.Context()); !errors.Is(err, syncrun.ErrUnavailable) {
				t.Errorf("gone: %v", err)
			}
		}
		testbed.Await(t, log, round+1, warned)
		if err := proxy.Heal(); err != nil {
			t.Fatal(err)
		}
		testbed.Eventually(t, "the server is back", func() bool { return client.Ping(t.Context()) == nil })
		testbed.Await(t, log, round+2, informed)
		if warnings, messages := len(log.Find(warned)), len(log.Find(informed)); warnings != round+1 || messages != round+2 {
			t.Errorf("round %d: %d warnings, %d messages:\n%s", round, warnings, messages, log)
		}
	}
}
