package api_test

import (
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/telemetry"
	"github.com/codex-api/codex-jobs/internal/testbed"
	"github.com/codex-api/codex-jobs/pkg/client"
)

// Health asks for our own schedules that are not switched off.
func TestHealthAsksForOurSchedules(t *testing.T) {
	t.Parallel()
	off := func(d *tasks.Definition) { d.Schedule = tasks.Schedule{} }
	two := func(d *tasks.Definition) {
		if d.Name != "issue-sync" {
			d.Schedule = tasks.Schedule{Every: time.Hour}
		}
	}
	for name, test := range map[string]struct {
		change func(*tasks.Definition)
		shown  map[string]string // queues by job type, of the entries of a live scheduler
		want   []string
	}{
		"none":              {func(*tasks.Definition) {}, nil, []string{"a live schedule"}},
		"a foreign one":     {func(*tasks.Definition) {}, map[string]string{"email:send": "default"}, []string{"a live schedule"}},
		"ours":              {func(*tasks.Definition) {}, map[string]string{"user-sync": "user-sync"}, nil},
		"switched off":      {off, nil, nil},
		"one of two":        {two, map[string]string{"user-sync": "user-sync"}, []string{"a live schedule"}},
		"off, but shown":    {off, map[string]string{"user-sync": "user-sync"}, nil},
		"of another system": {func(*tasks.Definition) {}, map[string]string{"user-sync": "other"}, []string{"a live schedule"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setupRegistry(t, syncs().Resolve(test.change))
			if err := b.jobs.Heartbeat(t.Context(), jobs.RoleWorker, jobs.NewProcessID(), jobs.About{}); err != nil {
				t.Fatal(err)
			}
			if test.shown != nil {
				connect := asynq.RedisClientOpt{Addr: b.redis.Addr, Password: b.redis.Password, DB: b.redis.DB}
				shown := asynq.NewScheduler(connect, &asynq.SchedulerOpts{
					HeartbeatInterval: time.Second, Logger: telemetry.NewAsynqLogger(slog.New(slog.DiscardHandler)),
				})
				for job, queue := range test.shown {
					if _, err := shown.Register("@every 1h", asynq.NewTask(job, nil), asynq.Queue(queue)); err != nil {
						t.Fatal(err)
					}
				}
				if err := shown.Start(); err != nil {
					t.Fatal(err)
				}
				defer shown.Shutdown()
				testbed.Eventually(t, "its entries", func() bool {
					entries, err := b.inspector.SchedulerEntries()
					return err == nil && len(entries) > 0
				})
			}
			var h client.Health
			b.ok(t, b.get(t, "/health"), &h)
			if !slices.Equal(h.Jobs.Missing, test.want) || h.Jobs.Initialized != (test.want == nil) || h.Healthy() != (test.want == nil) {
				t.Errorf("%+v; want %q missing", h, test.want)
			}
		})
	}
}
