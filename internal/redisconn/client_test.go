package redisconn_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/internal/redisconn"
	"github.com/codex-api/codex-jobs/internal/redistest"
	"github.com/codex-api/codex-jobs/internal/telemetry"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

func newRedis(t *testing.T, o redisconn.Options, l redisconn.Limits, log *slog.Logger) redis.UniversalClient {
	t.Helper()
	rdb := redisconn.New(o, l, log)
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

func TestNew(t *testing.T) {
	t.Parallel()
	all := redisconn.Options{Addr: "h:1", Username: "u", Password: "p"}
	patient, prompt := redisconn.Limits{Timeout: time.Second, Retries: 3}, redisconn.Limits{Timeout: time.Second}
	for name, test := range map[string]struct {
		change func(*redisconn.Options)
		limits redisconn.Limits
		want   string // of go-redis' options
	}{
		"alone":                  {func(o *redisconn.Options) { o.DB = 2 }, patient, "client of h:1, database 2, 3 retries"},
		"alone, prompt":          {func(*redisconn.Options) {}, prompt, "client of h:1, database 0, 0 retries"},
		"sentinels":              {func(o *redisconn.Options) { o.Sentinels, o.Master, o.DB = []string{"s:1"}, "m", 2 }, patient, "client of FailoverClient, database 2, 3 retries"},
		"cluster":                {func(o *redisconn.Options) { o.Cluster = []string{"a:1", "b:2"} }, patient, "cluster of a:1 b:2, 3 redirects"},
		"cluster of one, prompt": {func(o *redisconn.Options) { o.Cluster = []string{"a:1"} }, prompt, "cluster of a:1, 2 redirects"},
	} {
		o := all
		test.change(&o)
		for _, rdb := range []any{newRedis(t, o, test.limits, slog.Default()), redisconn.ConnOpt{Options: o, Limits: test.limits, Log: slog.Default()}.MakeRedisClient()} {
			var got string
			var timeouts []time.Duration
			var username, password string
			var contextTimeout bool
			switch c := rdb.(type) {
			case *redis.Client:
				p := c.Options()
				got = fmt.Sprintf("client of %s, database %d, %d retries", p.Addr, p.DB, p.MaxRetries)
				timeouts = []time.Duration{p.ReadTimeout, p.WriteTimeout, p.PoolTimeout}
				username, password, contextTimeout = p.Username, p.Password, p.ContextTimeoutEnabled
			case *redis.ClusterClient:
				p := c.Options()
				got = fmt.Sprintf("cluster of %s, %d redirects", strings.Join(p.Addrs, " "), p.MaxRedirects)
				timeouts = []time.Duration{p.ReadTimeout, p.WriteTimeout, p.PoolTimeout}
				username, password, contextTimeout = p.Username, p.Password, p.ContextTimeoutEnabled
				if p.ReadOnly || p.RouteByLatency || p.RouteRandomly {
					t.Errorf("%s: it reads from replicas", name)
				}
			}
			if got != test.want {
				t.Errorf("%s: got a %s, want a %s", name, got, test.want)
			}
			if username != "u" || password != "p" || !contextTimeout || slices.ContainsFunc(timeouts, func(d time.Duration) bool { return d != time.Second }) {
				t.Errorf("%s: %q %q %v %v", name, username, password, contextTimeout, timeouts)
			}
		}
	}
}

// hanging starts servers that accept connections and never answer.
func hanging(t *testing.T, n int) (addrs []string) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		addrs = append(addrs, l.Addr().String())
	}
	return addrs
}

// ways are the ways to reach the servers at the addresses.
func ways(addrs []string) map[string]redisconn.Options {
	return map[string]redisconn.Options{
		"alone":     {Addr: addrs[0]},
		"sentinels": {Sentinels: addrs, Master: "m"},
		"cluster":   {Cluster: addrs},
	}
}

// The loss of the connection is logged once, however often the client tries. In a cluster it is logged once for each node.
func TestLossIsLoggedOnce(t *testing.T) {
	t.Parallel()
	// Nothing listens there, nor will while this runs: the system gives such ports to no program that asks for any port.
	addrs := []string{"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"}
	for name, o := range ways(addrs) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log := new(strings.Builder)
			rdb := newRedis(t, o, redisconn.Limits{Timeout: time.Second}, slog.New(slog.NewTextHandler(log, nil)))
			for range 30 {
				if err := rdb.Ping(t.Context()).Err(); err == nil {
					t.Fatal("it was answered, where nothing listens")
				}
			}
			if err := rdb.Close(); err != nil {
				t.Error(err)
			}
			want := map[string]string{addrs[0]: "addr=" + addrs[0]}
			switch name {
			case "sentinels":
				want = map[string]string{"m": `addr="m of the sentinels ` + strings.Join(addrs, ",") + `"`}
			case "cluster":
				for _, addr := range addrs {
					want[addr] = "addr=" + addr
				}
			}
			if got := strings.Count(log.String(), "Redis unreachable, reconnecting"); got != len(want) {
				t.Errorf("it was logged %d times, want %d: %s", got, len(want), log)
			}
			for _, line := range want {
				if !strings.Contains(log.String(), line) {
					t.Errorf("%s is not in the log: %s", line, log)
				}
			}
		})
	}
}

// attempts is a hook that has something done at each of the first connection attempts. Without an error the attempt goes on.
type attempts struct {
	done int
	do   []func() error
}

func (a *attempts) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		if a.done++; a.done <= len(a.do) {
			if err := a.do[a.done-1](); err != nil {
				return nil, err
			}
		}
		return next(ctx, network, addr)
	}
}

func (*attempts) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (*attempts) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// A connection attempt that fails after Redis has answered others, which began later, is no second loss.
func TestLateFailureIsNoLoss(t *testing.T) {
	t.Parallel()
	refused, good := func() error { return errors.New("refused") }, func() error { return nil }
	for name, before := range map[string][]func() error{
		"begun during the loss":     {refused},
		"begun after Redis' return": {refused, good},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log := new(strings.Builder)
			stalling, release := make(chan struct{}), make(chan struct{})
			hook := &attempts{do: append(before, func() error {
				close(stalling)
				<-release
				return errors.New("late")
			})}
			rdb := redisconn.New(redistest.Options(t), redisconn.Limits{Timeout: time.Minute}, slog.New(slog.NewTextHandler(log, nil)), hook)
			t.Cleanup(func() { _ = rdb.Close() })
			client, ok := rdb.(*redis.Client)
			if !ok {
				t.Fatalf("the client is a %T", rdb)
			}
			held := client.Conn() // so that the next command needs another connection
			defer held.Close()
			for i := range before {
				if err := held.Ping(t.Context()).Err(); (err != nil) != (i == 0) {
					t.Fatalf("attempt %d: %v", i+1, err)
				}
			}
			var stalled sync.WaitGroup
			stalled.Go(func() { _ = rdb.Ping(t.Context()).Err() })
			<-stalling
			if err := held.Ping(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
			close(release)
			stalled.Wait()
			for _, msg := range []string{"Redis unreachable, reconnecting", "Redis reachable again"} {
				if got := strings.Count(log.String(), msg); got != 1 {
					t.Errorf("%q was logged %d times, want once: %s", msg, got, log)
				}
			}
		})
	}
}

// A caller without a deadline, as asynq is, still gets an answer in time.
func TestCommandsEndInTime(t *testing.T) {
	t.Parallel()
	addrs := hanging(t, 3)
	for name, o := range ways(addrs) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rdb := newRedis(t, o, redisconn.Limits{Timeout: 500 * time.Millisecond}, slog.New(slog.DiscardHandler))
			inspector := asynq.NewInspectorFromRedisClient(rdb)
			var all sync.WaitGroup
			for range 10 {
				all.Go(func() {
					begun := time.Now()
					_, err := inspector.Queues()
					if took := time.Since(begun); err == nil || took > 1500*time.Millisecond {
						t.Errorf("%v after %s", err, took)
					}
				})
			}
			all.Wait()
		})
	}
}

// go-redis does not retry if the error of a connection attempt matches a context's error.
func TestSlowDialIsNotTheEndOfAContext(t *testing.T) {
	t.Parallel()
	addrs := hanging(t, 1)
	for name, config := range map[string]*tls.Config{"plain": nil, "TLS": {MinVersion: tls.VersionTLS12}} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := newRedis(t, redisconn.Options{Addr: addrs[0], TLS: config}, redisconn.Limits{Timeout: time.Nanosecond, Retries: 3}, slog.New(slog.DiscardHandler)).Ping(ctx).Err()
		var timeout interface{ Timeout() bool }
		if err == nil || errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A Server that was just started waits for three commands in a row, each for 2 s. One that runs waits for one.
func TestServerOnHangingRedisStopsInTime(t *testing.T) {
	t.Parallel()
	o := redistest.Options(t)
	proxy := testbed.NewProxy(t, o.Addr)
	o.Addr = proxy.Addr
	quiet := slog.New(slog.DiscardHandler)
	server := asynq.NewServer(redisconn.ConnOpt{Options: o, Limits: redisconn.Worker, Log: quiet}, asynq.Config{Logger: telemetry.NewAsynqLogger(quiet)})
	if err := server.Start(asynq.HandlerFunc(asynq.NotFound)); err != nil {
		t.Fatal(err)
	}
	proxy.Freeze()
	begun := time.Now()
	server.Shutdown()
	if took := time.Since(begun); took > 9*time.Second {
		t.Errorf("it took %s", took)
	}
}

// If a sentinel hangs, the client asks another one.
func TestHangingSentinel(t *testing.T) {
	t.Parallel()
	o := redistest.Options(t)
	master := testbed.NewProxy(t, o.Addr)
	sentinel := newSentinel(t, master.Addr)
	first, second := testbed.NewProxy(t, sentinel), testbed.NewProxy(t, sentinel)
	o.Sentinels, o.Master = []string{first.Addr, second.Addr}, "m"
	rdb := newRedis(t, o, redisconn.Limits{Timeout: 300 * time.Millisecond}, slog.New(slog.DiscardHandler))
	for _, step := range []struct{ answers, hangs *testbed.Proxy }{{first, second}, {second, first}} {
		step.answers.Thaw()
		step.hangs.Freeze()
		master.Down() // so that a sentinel is asked
		master.Up()
		var err error
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
			if err = rdb.Ping(t.Context()).Err(); err == nil {
				break
			}
		}
		if err != nil {
			t.Fatalf("no sentinel tells the master: %v", err)
		}
	}
}

// newSentinel starts a server that answers like a sentinel of the master. It returns the address.
func newSentinel(t *testing.T, master string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	t.Cleanup(func() {
		_ = listener.Close()
		all.Wait()
	})
	host, port, _ := net.SplitHostPort(master)
	all.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer client.Close()
				for words := bufio.NewScanner(client); words.Scan(); { // of which the first of a command are enough
					switch words.Text() {
					case "hello":
						fmt.Fprint(client, "-ERR unknown command\r\n")
					case "client":
						fmt.Fprint(client, "+OK\r\n")
					case "get-master-addr-by-name":
						fmt.Fprintf(client, "*2\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n", len(host), host, len(port), port)
					case "sentinels":
						fmt.Fprint(client, "*0\r\n")
					}
				}
			})
		}
	})
	return listener.Addr().String()
}

// Connections that the server has closed are not used again, not even with TLS: no command here needs a second try.
func TestClosedConnectionsAreNotUsed(t *testing.T) {
	t.Parallel()
	o := redistest.Options(t)
	plain, encrypted := o, o
	proxy := testbed.NewProxy(t, o.Addr)
	plain.Addr = proxy.Addr
	terminator := newTerminator(t, o.Addr)
	encrypted.Addr = terminator.listener.Addr().String()
	encrypted.TLS = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: terminator.authorities, ServerName: "example.com"}
	for name, test := range map[string]struct {
		options redisconn.Options
		cut     func()
	}{
		"plain": {plain, func() { proxy.Down(); proxy.Up() }},
		"TLS":   {encrypted, terminator.cut},
	} {
		rdb := newRedis(t, test.options, redisconn.Limits{Timeout: 3 * time.Second}, slog.New(slog.DiscardHandler))
		var all sync.WaitGroup
		for range 5 { // at the same time, on a connection each
			all.Go(func() {
				if err := rdb.BLPop(t.Context(), 100*time.Millisecond, "none").Err(); !errors.Is(err, redis.Nil) {
					t.Errorf("%s: %v", name, err)
				}
			})
		}
		all.Wait()
		if idle := rdb.PoolStats().IdleConns; idle != 5 {
			t.Errorf("%s: %d idle connections, want 5", name, idle)
		}
		test.cut()
		if err := rdb.Ping(t.Context()).Err(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// terminator accepts TLS connections for a server without TLS.
type terminator struct {
	listener    net.Listener
	authorities *x509.CertPool

	mu      sync.Mutex
	clients []net.Conn
}

func newTerminator(t *testing.T, target string) *terminator {
	t.Helper()
	server := httptest.NewTLSServer(nil) // for its certificate
	defer server.Close()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{MinVersion: tls.VersionTLS12, Certificates: server.TLS.Certificates})
	if err != nil {
		t.Fatal(err)
	}
	s := &terminator{listener: listener, authorities: x509.NewCertPool()}
	s.authorities.AddCert(server.Certificate())
	var all sync.WaitGroup
	t.Cleanup(func() {
		_ = listener.Close()
		s.cut()
		all.Wait()
	})
	all.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			behind, err := net.Dial("tcp", target)
			if err != nil {
				_ = client.Close()
				continue
			}
			s.mu.Lock()
			s.clients = append(s.clients, client)
			s.mu.Unlock()
			for _, way := range [][2]net.Conn{{client, behind}, {behind, client}} {
				all.Go(func() {
					_, _ = io.Copy(way[0], way[1])
					_, _ = client.Close(), behind.Close()
				})
			}
		}
	})
	return s
}

// cut closes every connection.
func (s *terminator) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.clients {
		_ = c.Close()
	}
	s.clients = nil
}
