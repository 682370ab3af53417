package main

import (
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/codex-api/codex-jobs/internal/tasks"
)

var (
	full        = []byte(`{"syncType":"full"}`)
	incremental = []byte(`{"syncType":"incremental"}`)
)

// A scheduler that was killed may not have said which run served its tick; then one must have waited.
func TestSomeRunWaited(t *testing.T) {
	t.Parallel()
	const job = "user-sync"
	id := tasks.TickID(job, at(0))
	for _, tt := range []struct {
		name            string
		payload         []byte
		enqueued, begun float64
		want            bool
	}{
		{"it waited", incremental, 3, 20, true},
		{"it had begun", incremental, 3, 6, false},
		{"it came later", incremental, 12, 20, false},
		{"it is of another kind", full, 3, 20, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRecord()
			r.wasEnqueued(job, id.String(), at(tt.enqueued))
			r.logged("worker-1", logLine{Time: at(tt.begun), Msg: "Starting user sync job", JobID: id.String()})
			r.hasEnded(&asynq.TaskInfo{ID: id.String(), Payload: tt.payload, State: asynq.TaskStateCompleted}, at(30))
			if got := r.someRunWaited(job, at(10)); got != tt.want {
				t.Errorf("some run waited: %v, want %v", got, tt.want)
			}
			if r.someRunWaited("issue-sync", at(10)) {
				t.Error("a run of another job type waited")
			}
		})
	}
}

func TestARunThatEndsTwiceIsNoticed(t *testing.T) {
	t.Parallel()
	id := tasks.TriggerID("user-sync", at(0)).String()
	r := newRecord()
	end := func(state asynq.TaskState, when time.Time) int {
		r.hasEnded(&asynq.TaskInfo{ID: id, Payload: full, State: state, CompletedAt: when}, time.Now())
		return len(r.runs[id].ends)
	}
	if n := end(asynq.TaskStateCompleted, at(1)); n != 1 {
		t.Errorf("%d ends", n)
	}
	if n := end(asynq.TaskStateCompleted, at(1)); n != 1 {
		t.Errorf("seen again, it has %d ends", n)
	}
	if n := end(asynq.TaskStateCompleted, at(2)); n != 2 {
		t.Errorf("completed again, it has %d ends", n)
	}
}

func TestWhatIsEnqueuedAnewIsNoticed(t *testing.T) {
	t.Parallel()
	id := tasks.TickID("user-sync", at(5)).String()
	r := newRecord()
	r.isThere("user-sync", id, at(6)) // found after Redis was killed
	r.isThere("user-sync", id, at(7))
	if n := len(r.runs[id].enqueued); n != 1 {
		t.Errorf("found twice, it was enqueued %d times", n)
	}
	r.wasEnqueued("user-sync", id, at(8))
	if n := len(r.runs[id].enqueued); n != 2 {
		t.Errorf("enqueued anew, it was enqueued %d times", n)
	}
	if !r.handled[id].Equal(at(6)) {
		t.Errorf("the tick was handled at %v", r.handled[id])
	}
	r.wasEnqueued("user-sync:ranges", id+"/0", at(8))
	r.wasEnqueued("user-sync", "no run's", at(8))
	if len(r.runs) != 1 || r.ranges != 1 || len(r.breaches) != 1 {
		t.Errorf("%d runs and %d ranges; breaches: %v", len(r.runs), r.ranges, r.breaches)
	}
}

func TestWhatTheLogsSay(t *testing.T) {
	t.Parallel()
	r := newRecord()
	index := 2
	for _, line := range []logLine{
		{Msg: "Overdue tick served by a run that still waits", Job: "user-sync", Tick: "2026-11-24T04:00:05.000Z", Time: at(9)},
		{Msg: "Tick enqueued", Job: "user-sync", Tick: "2026-11-24T04:00:10.000Z", Time: at(10)},
		{Msg: "Tick was enqueued by another scheduler", Job: "user-sync", Tick: "2026-11-24T04:00:15.000Z"},
		{Msg: "A range failed, will be tried again", Level: "WARN", JobID: "1:user-sync", Range: &index, Error: "oh"},
		{Msg: "User sync job failed", Level: "ERROR", JobID: "1:user-sync"},
		{Msg: "Starting range", JobID: "1:user-sync", Range: &index, Attempt: 1},
		{Msg: "Starting range", JobID: "1:user-sync", Range: &index, Attempt: 2},
		{Msg: "Starting range", JobID: "1:user-sync", Range: &index, Attempt: 2}, // on another worker, after a crash
		{Msg: "Recovered range from a dead worker", Level: "WARN"},
	} {
		r.logged("worker-1", line)
	}
	if len(r.handled) != 2 || !r.handled[tasks.TickID("user-sync", at(5)).String()].Equal(at(9)) {
		t.Errorf("ticks: %v", r.handled)
	}
	if len(r.charged) != 1 || !r.charged["1:user-sync/2: attempt 2"] || len(r.announced) != 2 {
		t.Errorf("charged: %v, announced: %q", r.charged, r.announced)
	}
	if r.rescued != 1 || r.errors["User sync job failed"] != 1 {
		t.Errorf("rescued: %d, errors: %v", r.rescued, r.errors)
	}
}
