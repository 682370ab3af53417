package jobs

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/codex-api/codex-jobs/internal/tasks"
)

// WatchClockEvery is WatchClock with another interval and another clock.
func (j *Jobs) WatchClockEvery(ctx context.Context, registerer prometheus.Registerer, interval time.Duration, now func() time.Time) {
	j.watchClock(ctx, registerer, interval, now)
}

// Restart is the first half of Retry, as of a process that dies in the middle of it.
func (j *Jobs) Restart(ctx context.Context, id tasks.RunID) (bool, error) {
	return j.restart(ctx, id, "")
}

// ID returns the ID of the run.
func (s *RunState) ID() tasks.RunID { return s.id }
