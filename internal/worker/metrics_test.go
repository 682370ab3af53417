package worker_test

import (
	"context"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/codex-api/codex-jobs/internal/jobtype"
	"github.com/codex-api/codex-jobs/internal/syncrun"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/telemetry/telemetrytest"
	"github.com/codex-api/codex-jobs/internal/testbed"
	"github.com/codex-api/codex-jobs/internal/worker"
)

// counts are what telemetrytest.Counted returns.
type counts = map[string]float64

// wantCounted stops all workers, and checks what they have counted for the user sync together.
func (b *testBundle) wantCounted(t *testing.T, want counts) {
	t.Helper()
	for _, stop := range b.stops {
		stop()
	}
	if got := telemetrytest.Counted(t, "user-sync", b.metrics...); !maps.Equal(got, want) {
		t.Errorf("counted %v, want %v", got, want)
	}
}

// observed returns the sum of a histogram for the user sync, in seconds.
func (b *testBundle) observed(t *testing.T, name string) (sum float64) {
	t.Helper()
	for _, registry := range b.metrics {
		sum += telemetrytest.Gather(t, registry)[`codex_jobs_`+name+`_sum{job_type="user-sync"}`]
	}
	return sum
}

// A rate misses the first event of a counter that appears with it. So all counters exist from the start.
func TestCountersBeginAtZero(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	handlers := make(map[string]jobtype.Handler)
	for _, name := range b.Registry().Names() {
		handlers[name] = func(context.Context, *jobtype.Attempt) (any, error) { return nil, nil }
	}
	registry := prometheus.NewRegistry()
	if _, err := worker.New(b.Jobs, handlers, worker.Options{Metrics: registry}, b.logger); err != nil {
		t.Fatal(err)
	}
	metrics := telemetrytest.Gather(t, registry)
	for _, name := range b.Registry().Names() {
		for _, series := range []string{
			`runs_total{JOB,outcome="completed"}`, `runs_total{JOB,outcome="failed"}`, `runs_total{JOB,outcome="cancelled"}`,
			`ranges_total{JOB,outcome="completed"}`, `ranges_total{JOB,outcome="failed"}`,
			`retries_total{JOB,unit="run"}`, `retries_total{JOB,unit="range"}`,
			`recoveries_total{JOB,unit="run"}`, `recoveries_total{JOB,unit="range"}`,
			`records_processed_total{JOB}`, `records_updated_total{JOB}`, `records_failed_total{JOB}`,
			`run_duration_seconds_count{JOB}`, `run_start_delay_seconds_count{JOB}`, `batch_duration_seconds_count{JOB}`,
		} {
			series = "codex_jobs_" + strings.Replace(series, "JOB", `job_type="`+name+`"`, 1)
			if value, ok := metrics[series]; !ok || value != 0 {
				t.Errorf("%s is %v, there at all: %v", series, value, ok)
			}
		}
	}
}

// every is work that fails for each record whose number is a multiple of it.
type every int

func (e every) Do(_ context.Context, batch []syncrun.Record) ([]syncrun.Outcome, error) {
	outcomes := make([]syncrun.Outcome, len(batch))
	for i, record := range batch {
		if int(record.ID.(number))%int(e) == 0 {
			outcomes[i].Err = errors.New("refused")
		}
	}
	return outcomes, nil
}

// The metrics count the records of a run as its result does, whether the run was split or not.
func TestRecordsAreCounted(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		records, ranges, batches, failed float64
	}{
		"in one piece": {records: 95, batches: 10, failed: 13},
		"shared":       {records: 1000, ranges: 10, batches: 100, failed: 142},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, nil)
			handler, _ := syncOf(int(test.records), every(7))
			for range 2 {
				b.start(t, worker.Options{}, handler)
			}
			r := syncResult(t, b.await(t, b.trigger(t, "user-sync", tasks.SyncFull), asynq.TaskStateCompleted))
			if got := float64(r.Errors); got != test.failed {
				t.Errorf("the result says that %v records failed, want %v", got, test.failed)
			}
			want := counts{
				`runs_total{outcome="completed"}`: 1, "run_duration_seconds_count": 1, "run_start_delay_seconds_count": 1,
				"records_processed_total": test.records, "records_updated_total": test.records - test.failed, "records_failed_total": test.failed,
				"batch_duration_seconds_count": test.batches,
			}
			if test.ranges > 0 {
				want[`ranges_total{outcome="completed"}`] = test.ranges
			}
			b.wantCounted(t, want)
		})
	}
}

// The time of a batch includes the time that its work waits.
func TestDurations(t *testing.T) {
	t.Parallel()
	const batches, pause = 5, 30 * time.Millisecond
	b := setup(t, nil)
	// The tick of a run that waited for an hour.
	id := tasks.TickID("user-sync", time.Now().Add(-time.Hour))
	task := b.user.NewTask(id, []byte(`{"syncType":"full"}`), nil)
	if _, err := asynq.NewClientFromRedisClient(b.rdb).EnqueueContext(t.Context(), task); err != nil {
		t.Fatal(err)
	}
	handler, _ := syncOf(10*batches, wait(pause))
	b.start(t, worker.Options{}, handler)
	b.await(t, id.String(), asynq.TaskStateCompleted)
	b.wantCounted(t, counts{
		`runs_total{outcome="completed"}`: 1, "run_duration_seconds_count": 1, "run_start_delay_seconds_count": 1,
		"records_processed_total": 10 * batches, "records_updated_total": 10 * batches, "batch_duration_seconds_count": batches,
	})
	least := (batches * pause).Seconds()
	worked, ran := b.observed(t, "batch_duration_seconds"), b.observed(t, "run_duration_seconds")
	if worked < least || ran < least || ran > 30 { // a batch is written while the next one waits
		t.Errorf("the batches took %v s, the run %v s; want at least %v s", worked, ran, least)
	}
	if waited := b.observed(t, "run_start_delay_seconds"); waited < 3600 || waited > 3630 {
		t.Errorf("the run waited %v s, want an hour", waited)
	}
}

func TestCancelledRunIsCounted(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	started := make(chan *jobtype.Attempt, 1)
	b.start(t, worker.Options{}, func(ctx context.Context, run *jobtype.Attempt) (any, error) {
		started <- run
		<-ctx.Done()
		return nil, context.Cause(ctx)
	})
	id := b.trigger(t, "user-sync", tasks.SyncFull)
	testbed.Receive(t, "the run", started)
	b.cancel(t, id)
	b.await(t, id, asynq.TaskStateArchived)
	b.wantCounted(t, counts{`runs_total{outcome="cancelled"}`: 1, "run_duration_seconds_count": 1, "run_start_delay_seconds_count": 1})
}
