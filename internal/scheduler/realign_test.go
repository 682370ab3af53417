package scheduler

import (
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/codex-api/codex-jobs/internal/redistest"
	"github.com/codex-api/codex-jobs/pkg/tasks"
)

// What is registered anew has the options of what was registered before: that may be about to enqueue its task, whose ID is
// put into them.
func TestRegisteringAnewKeepsTheOptions(t *testing.T) {
	t.Parallel()
	rdb := redistest.Client(t, redistest.Options(t))
	s := asynq.NewSchedulerFromRedisClient(rdb, &asynq.SchedulerOpts{Logger: nil, LogLevel: asynq.FatalLevel})
	def, _ := tasks.Default().Lookup("user-sync")
	def.Schedule = tasks.Schedule{Every: 2 * time.Second}
	e := &entry{def: def, payload: []byte("{}")}
	if err := e.register(s); err != nil {
		t.Fatal(err)
	}
	first := &e.options[0]
	if err := s.Unregister(e.id); err != nil {
		t.Fatal(err)
	}
	if err := e.register(s); err != nil {
		t.Fatal(err)
	}
	if &e.options[0] != first {
		t.Error("the options are others")
	}
}
