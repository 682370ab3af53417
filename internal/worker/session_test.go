package worker

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/semaphore"

	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/redisconn"
	"github.com/codex-api/codex-jobs/internal/redistest"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

// A task that asynq dequeues after the session was asked to stop does not begin, and is pushed back.
func TestTaskDequeuedAfterTheStop(t *testing.T) {
	t.Parallel()
	w := &Worker{options: Options{DrainTimeout: time.Second}, places: semaphore.NewWeighted(1), log: slog.New(slog.DiscardHandler)}
	s := newSession(newConsumer(w, codex.UserSync, unitRun), nil, func() {})
	s.stop(errShutdown)
	returned := make(chan error, 1)
	go func() { returned <- s.ProcessTask(t.Context(), asynq.NewTask("user-sync", nil)) }()
	select {
	case err := <-returned:
		t.Fatalf("the handler did not wait for asynq to push the task back, but returned %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	s.release()
	if err := <-returned; !errors.Is(err, errReleased) {
		t.Errorf("the handler returned %v, want the task to be released", err)
	}
}

// A session without a free place leaves its task to other workers.
func TestNoPlace(t *testing.T) {
	t.Parallel()
	w := &Worker{places: semaphore.NewWeighted(1), log: slog.New(slog.DiscardHandler)}
	s := newSession(newConsumer(w, codex.UserSync, unitRun), nil, w.place())
	if !w.places.TryAcquire(1) {
		t.Fatal("no place was free")
	}
	first := s.place(t.Context()) // which is reserved for it
	if first == nil || !s.begin("first", first) {
		t.Fatal("the reserved place was not there")
	}
	if s.begin("second", s.place(t.Context())) {
		t.Error("a second handler has begun")
	}
	select {
	case <-s.over:
	default:
		t.Error("the session goes on")
	}
	first()
	first() // frees it once
	if !w.places.TryAcquire(1) || w.places.TryAcquire(1) {
		t.Error("there is not one place now")
	}
}

// Once a worker says that it hears announcements, it misses none. Its first look comes after that, so no task waits for the next one.
func TestHearing(t *testing.T) {
	t.Parallel()
	registry, err := tasks.NewRegistry(codex.UserSync)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	rdb := redisconn.New(redistest.Options(t), redisconn.Worker, log)
	defer func() { _ = rdb.Close() }()
	for range 20 {
		w := &Worker{jobs: jobs.New(rdb, registry, log), consumers: make(map[string]*consumer), log: log}
		c := newConsumer(w, codex.UserSync, unitRun)
		w.consumers[c.queue] = c
		ctx, cancel := context.WithCancel(t.Context())
		hearing := make(chan struct{})
		var all sync.WaitGroup
		all.Go(func() { w.hear(ctx, hearing) })
		<-hearing
		if err := rdb.Publish(ctx, w.jobs.Channel(), c.queue).Err(); err != nil {
			t.Error(err)
		}
		if !within(time.Minute, c.work) {
			t.Error("an announcement was missed")
		}
		cancel()
		all.Wait()
	}
}

// A Server whose subscription is cut can shut down, whatever Redis does, and the process goes on.
func TestCutSubscription(t *testing.T) {
	t.Parallel()
	for name, frozen := range map[string]bool{"while it subscribes": true, "while it is subscribed": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := redistest.Options(t)
			proxy := testbed.NewProxy(t, o.Addr)
			o.Addr = proxy.Addr
			log := slog.New(slog.DiscardHandler)
			connect := func(hooks ...redis.Hook) redis.UniversalClient {
				return redisconn.New(o, redisconn.Worker, log, hooks...)
			}
			rdb := connect()
			defer func() { _ = rdb.Close() }()
			client := newServerClient(rdb, connect, "announcements")
			connected := func() bool {
				client.mu.Lock()
				defer client.mu.Unlock()
				return len(client.conns) > 0
			}
			server := asynq.NewServerFromRedisClient(client, asynq.Config{Concurrency: 1, LogLevel: asynq.FatalLevel})
			if err := server.Start(asynq.HandlerFunc(func(context.Context, *asynq.Task) error { return nil })); err != nil {
				t.Fatal(err)
			}
			for deadline := time.Now().Add(time.Minute); !connected(); time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("it does not subscribe")
				}
			}
			if frozen {
				proxy.Freeze()
				defer proxy.Thaw()
			} else {
				time.Sleep(100 * time.Millisecond) // to be subscribed; without it this is the other case
			}
			ended := make(chan struct{})
			go func() {
				server.Shutdown()
				close(ended)
			}()
			client.cut()
			if !within(time.Minute, ended) {
				t.Error("the Server does not shut down")
			}
			_ = client.own.Close()
		})
	}
}
