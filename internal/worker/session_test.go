package worker

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"golang.org/x/sync/semaphore"

	"github.com/codex-api/codex-jobs/pkg/tasks"
)

// A task that asynq takes out of the queue when the session has been stopped already is not begun, but pushed back.
func TestTaskTakenAfterTheStop(t *testing.T) {
	t.Parallel()
	w := &Worker{options: Options{DrainTimeout: time.Second}, slots: semaphore.NewWeighted(1), log: slog.New(slog.DiscardHandler)}
	s := newSession(newConsumer(w, tasks.UserSync, unitRun), nil, func() {})
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
	w := &Worker{slots: semaphore.NewWeighted(1), log: slog.New(slog.DiscardHandler)}
	s := newSession(newConsumer(w, tasks.UserSync, unitRun), nil, w.place())
	if !w.slots.TryAcquire(1) {
		t.Fatal("no place was free")
	}
	first, ok := s.begin("first") // which takes the place that is reserved for it
	if !ok {
		t.Fatal("the reserved place was not there")
	}
	if _, ok := s.begin("second"); ok {
		t.Error("a second handler has begun")
	}
	select {
	case <-s.over:
	default:
		t.Error("the session goes on")
	}
	first()
	first() // frees it once
	if !w.slots.TryAcquire(1) || w.slots.TryAcquire(1) {
		t.Error("there is not one place now")
	}
}
