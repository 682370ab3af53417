package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/codex-api/codex-jobs/internal/procs"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

// pretend stands for a worker. It logs its environment. BENCH_BATCH_WAIT=dies makes it end by itself once it is ready.
func pretend() int {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	for _, variable := range os.Environ() {
		fmt.Printf("{\"msg\":%q}\n", "has "+variable)
	}
	fmt.Printf("{\"time\":%q,\"msg\":%q}\n", time.Now().Format(time.RFC3339Nano), procs.Ready(procs.Worker).Msg)
	if os.Getenv("BENCH_BATCH_WAIT") == "dies" {
		fmt.Fprint(os.Stderr, "panic: no more")
		return 9
	}
	select {
	case <-signals:
		return 0
	case <-time.After(time.Minute):
		return 8
	}
}

func newTestBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{bin: t.TempDir()}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(b.bin, workerProgram)); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestCrewIsThereForAWhile(t *testing.T) {
	t.Parallel()
	b := newTestBench(t)
	errDone := errors.New("done")
	var pids []int
	err := b.with(t.Context(), []spec{newWorker(nil), newWorker(nil)}, func(_ context.Context, crew []*procs.Process) error {
		for _, c := range crew {
			pids = append(pids, c.PID())
			if err := syscall.Kill(c.PID(), 0); err != nil {
				t.Errorf("process %d is not there: %v", c.PID(), err)
			}
		}
		return errDone
	})
	if !errors.Is(err, errDone) || len(pids) != 2 {
		t.Errorf("error %v with %d processes", err, len(pids))
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("process %d is still there: %v", pid, err)
		}
	}
}

func TestDeadChildEndsWhatIsBeingDone(t *testing.T) {
	t.Parallel()
	b := newTestBench(t)
	err := b.with(t.Context(), []spec{newWorker(settings{"BENCH_BATCH_WAIT": "dies"}), newWorker(nil)}, func(ctx context.Context, _ []*procs.Process) error {
		return pause(ctx, time.Minute)
	})
	if err == nil || !strings.Contains(err.Error(), "worker ended by itself: exit status 9") || !strings.Contains(err.Error(), "panic: no more") {
		t.Errorf("error %v, want it to say how the worker ended", err)
	}
}

func TestMissingProgramIsAnError(t *testing.T) {
	t.Parallel()
	b := newTestBench(t)
	err := b.with(t.Context(), []spec{newWorker(nil), {program: "nothing"}}, func(context.Context, []*procs.Process) error {
		t.Error("it went on")
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), "starting nothing") {
		t.Errorf("error %v, want it to say what could not be started", err)
	}
}

func TestChildrenGetOnlySettings(t *testing.T) {
	t.Setenv("SECRET_OF_OURS", "x")
	t.Setenv("SYNC_WRITERS", "3")
	t.Setenv("SYNC_PATIENCE", "9s")
	t.Setenv("MONGODB_URI_FILE", "/nowhere")
	b := newTestBench(t)
	b.cfg.MongoDB.URI, b.cfg.MongoDB.Database = "mongodb://here", "codex_bench_x"
	environ := b.environment(settings{"SYNC_WRITERS": "1"})
	for _, want := range []string{
		"PATH=" + os.Getenv("PATH"), "SYNC_WRITERS=1", "SYNC_PATIENCE=9s", "MONGODB_URI=mongodb://here", "MONGODB_DATABASE=codex_bench_x",
	} {
		if !slices.Contains(environ, want) {
			t.Errorf("no %s in %q", want, environ)
		}
	}
	for _, variable := range environ {
		if strings.HasPrefix(variable, "SECRET") || strings.HasPrefix(variable, "MONGODB_URI_FILE") {
			t.Errorf("a child gets %s", variable)
		}
	}
}

func TestClaimRedis(t *testing.T) {
	t.Parallel()
	mini := miniredis.RunT(t)
	rdb := redis.NewClient(&redis.Options{Addr: mini.Addr()})
	t.Cleanup(func() { _ = rdb.Close() })
	release, err := claimRedis(t.Context(), rdb, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := claimRedis(t.Context(), rdb, 0); err == nil || !strings.Contains(err.Error(), "flushdb") || !strings.Contains(err.Error(), "REDIS_DB=1") {
		t.Errorf("a second bench: error %v, want one that says what to do", err)
	}
	if err := rdb.Set(t.Context(), "asynq:queues", "x", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if err := release(t.Context()); err != nil {
		t.Error(err)
	}
	if keys := mini.Keys(); len(keys) > 0 {
		t.Errorf("keys %q are left", keys)
	}

	if err := rdb.Set(t.Context(), "precious", "x", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := claimRedis(t.Context(), rdb, 0); err == nil || strings.Contains(err.Error(), "flushdb") {
		t.Errorf("a database in use: error %v, want one that does not say to empty it", err)
	}
	if err := release(t.Context()); err == nil || !mini.Exists("precious") {
		t.Errorf("released a database that is another's, error %v", err)
	}
}

func TestPeakMemory(t *testing.T) {
	t.Parallel()
	peak, err := peakMemory(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if known := runtime.GOOS == "linux"; known != (peak > 1) || peak > 100_000 {
		t.Errorf("this process has had %v MiB", peak)
	}
}

func TestUsersAreOfTheUsualSize(t *testing.T) {
	t.Parallel()
	data, err := bson.Marshal(user(123_456))
	if err != nil {
		t.Fatal(err)
	}
	if len(data) < 180 || len(data) > 220 {
		t.Errorf("a user has %d bytes, want about 200", len(data))
	}
}

func TestProcessorTime(t *testing.T) {
	t.Parallel()
	if !known {
		t.Log("not known here")
		return
	}
	before, err := processorTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	sum := 0
	testbed.Eventually(t, "the time that it takes to count", func() bool {
		for i := range 10_000_000 {
			sum += i
		}
		after, err := processorTime(os.Getpid())
		return err == nil && after > before
	})
	own, err := ownTime()
	if after, failed := processorTime(os.Getpid()); err != nil || failed != nil || own < after-2*tick {
		t.Errorf("%s and %s, %v, %v: %d", own, after, err, failed, sum)
	}
	if _, err := processorTime(-1); err == nil {
		t.Error("there is no process -1")
	}
}
