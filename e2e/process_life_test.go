package e2e_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/internal/config"
	"github.com/codex-api/codex-jobs/internal/procs"
	"github.com/codex-api/codex-jobs/internal/redisconn"
	"github.com/codex-api/codex-jobs/internal/redistest"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

var deployables = []string{"api", "scheduler", "worker"}

// TestStop asks each process to stop, in each state of its servers.
func TestStop(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		// take takes the servers away once the processes are ready.
		take func(redis, mongo *testbed.Proxy)
	}{
		{"idle", func(_, _ *testbed.Proxy) {}},
		{"servers gone", func(redis, mongo *testbed.Proxy) { redis.Down(); mongo.Down() }},
		{"servers hang", func(redis, mongo *testbed.Proxy) { redis.Freeze(); mongo.Freeze() }},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := setup(t)
			redis, mongo := testbed.NewProxy(t, s.redis.Addr), s.mongoProxy(t)
			s.env = append(append(s.env, redisEnv(redis.Addr)...), s.mongoEnv(t, mongo))
			var all []*process
			for _, name := range deployables {
				all = append(all, s.startReady(t, name))
			}
			testbed.Eventually(t, "all is well", func() bool {
				h, _ := s.health(t)
				return h.Jobs.Initialized
			})
			test.take(redis, mongo)
			for _, p := range all {
				p.terminate(t)
			}
			for _, p := range all {
				p.waitForExit(t)
			}
		})
	}
}

// A worker that cannot release its run stops all the same.
func TestStopInARunWithoutServers(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		take func(redis *testbed.Proxy)
	}{
		{"gone", (*testbed.Proxy).Down},
		{"hang", (*testbed.Proxy).Freeze},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := setup(t)
			s.insert(t, messyUsers(200))
			batchSize := 1
			s.enqueue(t, &tasks.SyncPayload{SyncType: tasks.SyncFull, BatchSize: &batchSize})
			redis, mongo := testbed.NewProxy(t, s.redis.Addr), s.mongoProxy(t)
			s.env = append(append(s.env, redisEnv(redis.Addr)...), s.mongoEnv(t, mongo), "LOG_LEVEL=debug")
			mongo.Delay(4 * batchDelay) // so that the run is far from its end when the test comes to freeze it
			w := s.startReady(t, "worker")
			w.waitForLog(t, batchBegun, attrs{"skip": 5.0})
			mongo.Freeze()
			test.take(redis)
			w.stop(t)
			w.mustNotLog(t, runCompleted)
		})
	}
}

// TestStopWhileWaiting asks processes to stop that have not reached their servers yet.
func TestStopWhileWaiting(t *testing.T) {
	t.Parallel()
	s := setup(t)
	redis, mongo := testbed.NewProxy(t, s.redis.Addr), s.mongoProxy(t)
	redis.Down()
	mongo.Down()
	s.env = append(append(s.env, redisEnv(redis.Addr)...), s.mongoEnv(t, mongo))
	var all []*process
	for _, name := range deployables {
		all = append(all, s.start(t, name))
	}
	for _, p := range all {
		p.waitForLogs(t, 2, "Waiting for Redis", nil)
		p.stop(t)
		p.waitForLog(t, "Stopped", nil)
	}
}

func TestEvictionWarning(t *testing.T) {
	t.Parallel()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		if os.Getenv("DEVSTACK_REDIS") == "miniredis" {
			t.Log("not tested: there is no redis-server that could be told to evict; continuous integration has one")
			return
		}
		t.Fatal("redis-server is not on the PATH")
	}
	s := setup(t)
	for policy, warned := range map[string]bool{"allkeys-lru": true, "volatile-ttl": true, "noeviction": false} {
		t.Run(policy, func(t *testing.T) {
			port := testbed.FreePort(t)
			cmd := exec.Command(path, "--port", port, "--bind", "127.0.0.1", "--save", "", "--maxmemory-policy", policy)
			cmd.Dir = t.TempDir()
			server, err := procs.Start(cmd, procs.Options{Log: new(procs.Log)})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(server.Kill)
			addr := net.JoinHostPort("127.0.0.1", port)
			rdb := redistest.Client(t, redisconn.Options{Addr: addr})
			testbed.Eventually(t, "Redis answers", func() bool { return rdb.Ping(t.Context()).Err() == nil })

			const warning = "Redis may evict jobs when its memory runs out; set maxmemory-policy to noeviction"
			env := append(redisEnv(addr), "REDIS_DB=0", "REDIS_PASSWORD=")
			if warned {
				for _, name := range deployables {
					p := s.start(t, name, env...)
					p.waitForLog(t, warning, attrs{"level": "WARN", "maxmemoryPolicy": policy})
				}
				return
			}
			for _, name := range []string{"scheduler", "worker"} { // these are ready only after they would have warned
				s.startReady(t, name, env...).mustNotLog(t, warning)
			}
		})
	}
}

// run runs a binary to its end.
func run(t *testing.T, cmd *exec.Cmd) (status int, stdout, stderr string) {
	t.Helper()
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Start()
	if err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(waitLimit, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	var failed *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &failed) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errOut.String()
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	for _, name := range deployables {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			status, out, errOut := run(t, command(t, name, nil, "--version"))
			if status != config.ExitOK || !strings.HasPrefix(out, name+" ") || len(strings.Fields(out)) != 2 || errOut != "" {
				t.Errorf("--version: %d %q %q", status, out, errOut)
			}
			status, out, errOut = run(t, command(t, name, nil, "--help"))
			if status != config.ExitOK || errOut != "" {
				t.Errorf("--help: %d %q %q", status, out, errOut)
			}
			for _, s := range config.Settings(codex.Registry()) {
				if used := slices.Contains(s.Programs, name); strings.Contains(out, "  "+s.Name+" ") != used {
					t.Errorf("--help names %s: %v, want %v", s.Name, !used, used)
				}
			}
			for _, arg := range []string{"--verbose", "start"} {
				status, out, errOut = run(t, command(t, name, nil, arg))
				if status != config.ExitUsage || out != "" || !strings.Contains(errOut, strings.TrimLeft(arg, "-")) {
					t.Errorf("%s: %d %q %q", arg, status, out, errOut)
				}
			}
		})
	}
}

// The health check of a container.
func TestHealthy(t *testing.T) {
	t.Parallel()
	s := setup(t)
	healthy := func(name string) bool {
		status, out, errOut := run(t, command(t, name, s.env, "--healthy"))
		if (status == config.ExitOK) != (errOut == "") || out != "" || status > 1 {
			t.Fatalf("%s --healthy: %d %q %q, want 0, or 1 and a reason", name, status, out, errOut)
		}
		return status == config.ExitOK
	}
	for _, name := range deployables {
		if healthy(name) {
			t.Errorf("%s is healthy although none runs", name)
		}
		p := s.startReady(t, name)
		testbed.Eventually(t, name+" is healthy", func() bool { return healthy(name) })
		p.stop(t)
		if healthy(name) {
			t.Errorf("%s is healthy although it was stopped", name)
		}
	}
}

// One error lists all wrong settings, from all sources, without secrets.
func TestWrongSettings(t *testing.T) {
	t.Parallel()
	wrong := map[string]string{
		"REDIS_PORT": "redis", "PORT": "70000", "LOG_LEVEL": "loud", "MONGODB_URI": "postgres://root:s3cret@db", "SYNC_BATCH_SIZE": "0",
		"JOB_ATTEMPTS": "many", "USER_SYNC_INTERVAL": "7m", "ISSUE_SYNC_CRON": "* *",
	}
	const inFile = "SYNC_BATCH_SIZE"
	for _, name := range deployables {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := []string{"REDIS_DB=3"}
			for setting, value := range wrong {
				if setting != inFile {
					env = append(env, setting+"="+value)
				}
			}
			cmd := command(t, name, env)
			// The environment wins: REDIS_DB is not wrong.
			file := inFile + "=" + wrong[inFile] + "\nREDIS_DB=none\n"
			if err := os.WriteFile(filepath.Join(cmd.Dir, ".env"), []byte(file), 0o600); err != nil {
				t.Fatal(err)
			}
			status, out, errOut := run(t, cmd)
			if status != config.ExitUsage || out != "" {
				t.Errorf("exit status %d and output %q, want %d and none", status, out, config.ExitUsage)
			}
			for setting := range wrong {
				if n := strings.Count(errOut, "\n  "+setting+" must be "); n != 1 {
					t.Errorf("%s is named %d times, want once", setting, n)
				}
			}
			for _, not := range []string{"s3cret", "REDIS_DB"} {
				if strings.Contains(errOut, not) {
					t.Errorf("%q is in the message", not)
				}
			}
			lines := slices.Collect(strings.Lines(errOut))
			if len(lines) != len(wrong)+1 {
				t.Errorf("the message has %d lines, want one for each of %d settings and a heading", len(lines), len(wrong))
			}
			if t.Failed() {
				t.Log(errOut)
			}
		})
	}
}

// The log is not worth a run: its reader ends, or reads nothing any more, and all programs go on.
func TestLogWithoutAReader(t *testing.T) {
	t.Parallel()
	for _, ends := range []bool{true, false} {
		t.Run(fmt.Sprintf("the reader ends: %v", ends), func(t *testing.T) {
			t.Parallel()
			s := setup(t)
			s.insert(t, messyUsers(20))
			var all []*procs.Process
			for _, name := range deployables {
				read, write, err := os.Pipe()
				if err != nil {
					t.Fatal(err)
				}
				if ends {
					_ = read.Close()
				} else {
					t.Cleanup(func() { _ = read.Close() })
					_ = write.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
					if _, err := write.Write(make([]byte, 1<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
						t.Fatalf("filling the pipe: %v", err)
					}
				}
				cmd := command(t, name, s.env)
				cmd.Stdout, cmd.Stderr = write, write
				p, err := procs.Start(cmd, procs.Options{})
				if err != nil {
					t.Fatal(err)
				}
				_ = write.Close() // the process has its own
				t.Cleanup(p.Kill)
				all = append(all, p)
			}
			testbed.Eventually(t, "all is well", func() bool {
				for _, p := range all {
					if p.Ended() {
						t.Fatalf("%s ended with %s", p, p.Status())
					}
				}
				response, err := http.Get(s.api + "/livez")
				if err != nil {
					return false
				}
				_ = response.Body.Close()
				h, _ := s.health(t)
				return h.Jobs.Initialized
			})
			s.result(t, s.trigger(t, `{"syncType": "full"}`))
			for _, p := range all {
				if killed := p.Stop(stopLimit); killed || p.ExitCode() != 0 {
					t.Errorf("%s ended with %s", p, p.Status())
				}
			}
		})
	}
}

// A port that is in use is a failure, not a wrong setting.
func TestPortTaken(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.startReady(t, "api")
	status, out, errOut := run(t, command(t, "api", s.env))
	if status != 1 || !strings.Contains(out, "address already in use") || errOut != "" {
		t.Errorf("an API whose port is taken: %d %q %q", status, out, errOut)
	}
}
