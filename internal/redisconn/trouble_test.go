package redisconn_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/internal/redisconn"
	"github.com/codex-api/codex-jobs/internal/redistest"
	"github.com/codex-api/codex-jobs/internal/telemetry"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

// fakeRedis answers each command as answer says, and counts commands and connections.
type fakeRedis struct {
	addr                  string
	commands, connections atomic.Int64
}

func newFakeRedis(t *testing.T, answer func(connection int64, command string) string) *fakeRedis {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeRedis{addr: listener.Addr().String()}
	var all sync.WaitGroup
	t.Cleanup(func() {
		_ = listener.Close()
		all.Wait()
	})
	all.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			number := f.connections.Add(1)
			all.Go(func() {
				defer conn.Close()
				for in := bufio.NewReader(conn); ; {
					command, err := readCommand(in)
					if err != nil {
						return
					}
					f.commands.Add(1)
					if _, err := fmt.Fprint(conn, answer(number, command)); err != nil {
						return
					}
				}
			})
		}
	})
	return f
}

// readCommand returns the next command's name, in lower case.
func readCommand(in *bufio.Reader) (name string, err error) {
	number := func(prefix string) (int, error) {
		line, err := in.ReadString('\n')
		if err != nil {
			return 0, err
		}
		return strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(line, prefix)))
	}
	words, err := number("*")
	for i := 0; i < words && err == nil; i++ {
		var length int
		if length, err = number("$"); err != nil {
			break
		}
		word := make([]byte, length+2)
		if _, err = io.ReadFull(in, word); i == 0 {
			name = strings.ToLower(string(word[:length]))
		}
	}
	return name, err
}

// setUp answers the commands with which a connection begins. Anything else is "".
func setUp(command string) string {
	switch command {
	case "hello":
		return "-ERR unknown command\r\n"
	case "auth", "select", "client":
		return "+OK\r\n"
	}
	return ""
}

// A connection that leads to a server that has become a replica is given up, whatever stands before READONLY.
func TestReadOnlyConnectionsAreGivenUp(t *testing.T) {
	t.Parallel()
	for _, reply := range []string{
		"READONLY You can't write against a read only replica.", "ERR READONLY You can't write against a read only replica.",
		"ERR Error running script (call to f_0): @user_script:1: -READONLY You can't write against a read only replica.",
	} {
		t.Run(reply, func(t *testing.T) {
			t.Parallel()
			var failedOver atomic.Int64 // connections up to this one lead to the old master
			failedOver.Store(-1)
			f := newFakeRedis(t, func(connection int64, command string) string {
				switch answer := setUp(command); {
				case answer != "":
					return answer
				case command == "blpop":
					return "*-1\r\n"
				case connection <= failedOver.Load():
					return "-" + reply + "\r\n"
				}
				return "+OK\r\n"
			})
			rdb := newRedis(t, redisconn.Options{Addr: f.addr}, redisconn.Limits{Timeout: 5 * time.Second}, slog.New(slog.DiscardHandler))
			var all sync.WaitGroup
			for range 5 { // at the same time, on a connection each
				all.Go(func() { _ = rdb.BLPop(t.Context(), time.Second, "none").Err() })
			}
			all.Wait()
			failedOver.Store(f.connections.Load())
			if err := rdb.Set(t.Context(), "a", 1, 0).Err(); err == nil {
				t.Fatal("the first write was accepted")
			}
			for i := range 10 {
				if err := rdb.Set(t.Context(), "a", 1, 0).Err(); err != nil {
					t.Errorf("write %d after the first one: %v", i+2, err)
				}
			}
		})
	}
}

// Idle connections that a firewall has dropped without a word cost one timeout, and no error: the command is tried once more, on a new
// connection.
func TestDroppedConnections(t *testing.T) {
	t.Parallel()
	o := redistest.Options(t)
	proxy := testbed.NewProxy(t, o.Addr)
	o.Addr = proxy.Addr
	rdb := newRedis(t, o, redisconn.Prompt, slog.New(slog.DiscardHandler))
	var all sync.WaitGroup
	const connections = 20
	for range connections {
		all.Go(func() { _ = rdb.BLPop(t.Context(), 500*time.Millisecond, "none").Err() }) // at the same time, on a connection each
	}
	all.Wait()
	if idle := rdb.PoolStats().IdleConns; idle < connections/2 {
		t.Fatalf("only %d idle connections", idle)
	}
	proxy.Drop()
	for i := range 3 * connections {
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond) // as the API's requests
		begun := time.Now()
		if err := rdb.Get(ctx, "none").Err(); !errors.Is(err, redis.Nil) {
			t.Errorf("command %d: %v after %s", i+1, err, time.Since(begun))
		}
		cancel()
	}
}

// A connection is not used for long.
func TestAgeOfConnections(t *testing.T) {
	t.Parallel()
	for name, rdb := range map[string]redis.UniversalClient{
		"alone":   newRedis(t, redisconn.Options{Addr: "h:1"}, redisconn.Prompt, slog.Default()),
		"cluster": newRedis(t, redisconn.Options{Cluster: []string{"h:1"}}, redisconn.Prompt, slog.Default()),
	} {
		var idle, age time.Duration
		switch c := rdb.(type) {
		case *redis.Client:
			idle, age = c.Options().ConnMaxIdleTime, c.Options().ConnMaxLifetime+c.Options().ConnMaxLifetimeJitter
		case *redis.ClusterClient:
			idle, age = c.Options().ConnMaxIdleTime, c.Options().ConnMaxLifetime+c.Options().ConnMaxLifetimeJitter
		}
		if idle <= 0 || idle > 45*time.Second || age <= 0 || age > 90*time.Second {
			t.Errorf("%s: a connection can be idle for %s, and be used for %s", name, idle, age)
		}
	}
}

// A Redis that refuses is asked seldom, however many of asynq's Servers ask it without a pause. When it serves again, it is asked as
// before.
func TestRefusingRedisIsAskedSeldom(t *testing.T) {
	t.Parallel()
	for _, reply := range []string{
		"NOREPLICAS Not enough good replicas to write.", "OOM command not allowed when used memory > 'maxmemory'.",
		"NOAUTH Authentication required.", "READONLY You can't write against a read only replica.",
		"MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
	} {
		t.Run(strings.Fields(reply)[0], func(t *testing.T) {
			t.Parallel()
			var serves atomic.Bool
			f := newFakeRedis(t, func(_ int64, command string) string {
				switch answer := setUp(command); {
				case answer != "" && (serves.Load() || !strings.HasPrefix(reply, "NOAUTH")):
					return answer
				case serves.Load():
					return ":0\r\n"
				}
				return "-" + reply + "\r\n"
			})
			quiet := slog.New(slog.DiscardHandler)
			rdb := newRedis(t, redisconn.Options{Addr: f.addr, DB: 1}, redisconn.Worker, quiet)
			for range 4 {
				server := asynq.NewServerFromRedisClient(rdb, asynq.Config{
					TaskCheckInterval: 5 * time.Millisecond, DelayedTaskCheckInterval: 250 * time.Millisecond,
					Logger: telemetry.NewAsynqLogger(quiet), LogLevel: asynq.FatalLevel,
				})
				if err := server.Start(asynq.HandlerFunc(asynq.NotFound)); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(server.Shutdown)
			}
			time.Sleep(3 * time.Second) // the start
			before, seconds := f.commands.Load(), 5
			time.Sleep(time.Duration(seconds) * time.Second) // what is counted
			if n := f.commands.Load() - before; n > int64(20*seconds) {
				t.Errorf("%d commands in %d s", n, seconds)
			}
			serves.Store(true)
			before = f.commands.Load()
			testbed.Within(t, testbed.WaitLimit, "the Servers to ask as before", func() bool { return f.commands.Load() > before+200 })
		})
	}
}

func TestRefusal(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"NOREPLICAS Not enough good replicas to write.":                                     "NOREPLICAS Not enough good replicas to write.",
		"UNKNOWN: redis eval error: OOM command not allowed when used memory > 'maxmemory'": "OOM command not allowed when used memory > 'maxmemory'",
		"ERR Error running script: @user_script:1: -READONLY You can't write":               "READONLY You can't write",
		"READONLY " + strings.Repeat("x", 1000):                                             "READONLY " + strings.Repeat("x", 191) + "...",
		"dial tcp 127.0.0.1:6379: connect: connection refused":                              "",
		"ERR value is not an integer":                                                       "",
	} {
		if got, refused := redisconn.Refusal(errors.New(text)); got != want || refused != (want != "") {
			t.Errorf("%s: %q, %v; want %q", text, got, refused, want)
		}
	}
	if _, refused := redisconn.Refusal(nil); refused {
		t.Error("no error is a refusal")
	}
}
