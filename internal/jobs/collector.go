// The state of all queues, schedules and processes as metrics. They come from Redis at the time of a scrape, so every
// process that is asked gives the same answer.

package jobs

import (
	"context"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/telemetry"
)

// collectTimeout bounds the questions to Redis for one scrape.
const collectTimeout = 3 * time.Second

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(telemetry.Namespace, "", name), help, labels, nil)
}

var (
	redisUpDesc  = describe("redis_up", "Whether Redis told what the following are; without it they are absent.")
	writableDesc = describe("redis_writable", "Whether Redis accepts writes.")
	tasksDesc    = describe("queue_tasks", "Runs, and ranges of large runs, in each state.", telemetry.LabelJobType, "unit", "state")
	oldestDesc   = describe("queue_oldest_waiting_seconds", "For how long the oldest that waits has waited; 0 when none does.",
		telemetry.LabelJobType, "unit")
	pausedDesc    = describe("queue_paused", "Whether the job type is paused.", telemetry.LabelJobType)
	processesDesc = describe("processes", "Processes that live.", "role")
	lastTickDesc  = describe("schedule_last_tick_timestamp_seconds", "The latest tick that was handled; 0 when there was none ever, or when it is later than the next one to come.",
		telemetry.LabelJobType)
	dueTickDesc  = describe("schedule_due_tick_timestamp_seconds", "The latest tick that was due by the clock.", telemetry.LabelJobType)
	historyDesc  = describe("history_waiting", "Entries of the history that wait in Redis until a worker moves them to MongoDB.", telemetry.LabelJobType)
	droppedDesc  = describe("history_dropped_total", "Entries of the history that were lost, because too many waited.", telemetry.LabelJobType)
	intervalDesc = describe("schedule_interval_seconds", "The shortest time between two ticks.", telemetry.LabelJobType)
)

// Collector returns the metrics of the queues, processes and schedules.
func (j *Jobs) Collector() prometheus.Collector { return collector{j} }

type collector struct{ jobs *Jobs }

// Describe implements prometheus.Collector.
func (collector) Describe(descs chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{
		redisUpDesc, writableDesc, tasksDesc, oldestDesc, pausedDesc, processesDesc, lastTickDesc, dueTickDesc, intervalDesc, historyDesc,
		droppedDesc,
	} {
		descs <- desc
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(metrics chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), collectTimeout)
	defer cancel()
	state, err := c.state(ctx)
	up := 1.0
	if err != nil {
		up = 0
		c.jobs.log.Debug("Could not read the queues for their metrics", "error", err)
	}
	metrics <- gauge(redisUpDesc, up)
	for _, metric := range state {
		metrics <- metric
	}
}

// state returns all metrics but redis_up, or an error.
func (c collector) state(ctx context.Context) (all []prometheus.Metric, err error) {
	for _, role := range []Role{RoleWorker, RoleScheduler} {
		n, err := c.jobs.Live(ctx, role)
		if err != nil {
			return nil, err
		}
		all = append(all, gauge(processesDesc, float64(n), string(role)))
	}
	writable := 1.0
	if err := c.jobs.CheckWrites(ctx); err != nil {
		writable = 0
		c.jobs.log.Debug("Redis does not accept writes", "error", err)
	}
	all = append(all, gauge(writableDesc, writable))
	var queues []string // of each job type, first for its runs and then for its ranges
	for _, def := range c.jobs.registry.All() {
		queues = append(queues, def.Queue(), def.RangeQueue())
	}
	states, err := c.jobs.readQueues(ctx, queues...)
	if err != nil {
		return nil, err
	}
	since, err := c.jobs.pendingSince(ctx, queues, states)
	if err != nil {
		return nil, err
	}
	waiting, dropped, err := c.jobs.countEntries(ctx)
	if err != nil {
		return nil, err
	}
	for i, def := range c.jobs.registry.All() {
		all = append(all, gauge(historyDesc, float64(waiting[i]), def.Name),
			prometheus.MustNewConstMetric(droppedDesc, prometheus.CounterValue, float64(dropped[i]), def.Name))
		for n, unit := range []string{"run", "range"} {
			queue := 2*i + n
			counts := states[queue].counts()
			for state, n := range map[string]int{
				"waiting": counts.Waiting, "active": counts.Active, "delayed": counts.Delayed,
				"completed": counts.Completed, "failed": counts.Failed,
			} {
				all = append(all, gauge(tasksDesc, float64(n), def.Name, unit, state))
			}
			all = append(all, gauge(oldestDesc, waited(states[queue], since[queue]).Seconds(), def.Name, unit))
		}
		paused := 0.0
		if states[2*i].paused {
			paused = 1
		}
		all = append(all, gauge(pausedDesc, paused, def.Name))
		schedule, err := c.schedule(ctx, def)
		if err != nil {
			return nil, err
		}
		all = append(all, schedule...)
	}
	return all, nil
}

// waited returns how long the oldest pending task has waited. If asynq does not know since when, it is the time since the tick
// or trigger of its run.
func waited(s queueState, since time.Time) time.Duration {
	if s.oldest == "" {
		return 0
	}
	if since.IsZero() {
		run, _, _ := strings.Cut(s.oldest, "/") // the ID of a range begins with its run's
		id, err := tasks.ParseRunID(run)
		if err != nil {
			return 0 // no run of ours: its worker will refuse it
		}
		since = id.Reference
	}
	return max(0, time.Since(since))
}

// schedule returns the metrics of the job type's schedule, if it has one.
func (c collector) schedule(ctx context.Context, def tasks.Definition) ([]prometheus.Metric, error) {
	if !def.Schedule.Enabled() {
		return nil, nil
	}
	last, err := c.jobs.LastTick(ctx, def)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	if next := def.Schedule.Next(now); !next.IsZero() && last.After(next) {
		last = time.Time{} // a broken clock's: so the alert for missed ticks sees the tick that is due
	}
	return []prometheus.Metric{
		gauge(lastTickDesc, seconds(last), def.Name),
		gauge(dueTickDesc, seconds(def.Schedule.Prev(now)), def.Name),
		gauge(intervalDesc, def.Schedule.Interval(now).Seconds(), def.Name),
	}, nil
}

func gauge(desc *prometheus.Desc, value float64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
}

// seconds returns a time as Prometheus writes it, and 0 for the zero time.
func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}
