package worker

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/hibiken/asynq"
)

// A task that asynq takes out of the queue when the session has been stopped already is not begun, but pushed back.
func TestTaskTakenAfterTheStop(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	w := &Worker{options: Options{DrainTimeout: time.Second}, slots: newSlots(1), log: log}
	s := newSession(w, log, func(context.Context, *session, *asynq.Task) error {
		t.Error("the task was begun")
		return nil
	})
	s.stop(errShutdown)
	returned := make(chan error, 1)
	go func() { returned <- s.ProcessTask(t.Context(), asynq.NewTask("user-sync", nil)) }()
	for deadline := time.Now().Add(10 * time.Second); !s.busy.Load(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the handler did not wait for asynq to push the task back")
		}
	}
	s.release()
	if err := <-returned; !errors.Is(err, errGivenBack) {
		t.Errorf("the handler returned %v, want the task to be given back", err)
	}
}
