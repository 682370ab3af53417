// The list of the settings: help texts and documents follow from it.

package config

import (
	"cmp"
	"fmt"
	"strconv"
	"time"

	"github.com/codex-api/codex-jobs/internal/tasks"
)

// Settings lists every setting for the job types of the registry.
func Settings(registry *tasks.Registry) []Setting {
	r := &reader{get: func(string) string { return "" }}
	readConfig(r, registry)
	return r.settings
}

func readConfig(r *reader, registry *tasks.Registry) Config {
	redis := readRedis(r)
	registry = registry.In(readNamespace(r))
	c := Config{
		Redis:   redis,
		MongoDB: readMongoDB(r),
		HTTP:    readHTTP(r),
		Admin:   readAdmin(r),
		Tracing: readTracing(r),
		Log:     readLog(r),
		Worker:  readWorker(r, registry),
		Sync:    readSync(r),
		History: readHistory(r),
	}
	change := readRetryAndRetention(r)
	c.Sync.Freshness = make(map[string]time.Duration)
	c.Registry = registry.Resolve(func(d *tasks.Definition) {
		change(d)
		readJobType(r, d, c.Sync.Freshness)
	})
	c.Notify = readNotify(r)
	c.Endpoints, c.Registry = readEndpoints(r, c.Registry)
	if proxy := readProxy(r, c.Notify.URL != "" || len(c.Endpoints) > 0); proxy != nil {
		c.Notify.Proxy = proxy
		for name, e := range c.Endpoints {
			e.Proxy = proxy
			c.Endpoints[name] = e
		}
	}
	return c
}

func readLog(r *reader) Log {
	g := r.group("Log", api, scheduler, worker)
	return Log{
		Level:  read(g, "LOG_LEVEL", "info", logLevel, "the lowest level that is logged"),
		Format: read(g, "LOG_FORMAT", "json", oneOf("json or text", "json", "text"), "the format of the log's lines"),
	}
}

func readWorker(r *reader, registry *tasks.Registry) Worker {
	all := 0
	for _, d := range registry.All() {
		all += d.PerWorker
	}
	return Worker{Concurrency: read(r.group("Worker", worker), "WORKER_CONCURRENCY", strconv.Itoa(all), wholeNumber(1, 10_000),
		"how many handlers run on one worker at the same time, those of ranges included; a run that only waits for its ranges does not count; "+
			"the default is the sum over all job types")}
}

func readSync(r *reader) Sync {
	g := r.group("Synchronisation", worker)
	return Sync{
		BatchSize: read(g, "SYNC_BATCH_SIZE", "100", wholeNumber(tasks.MinBatchSize, tasks.MaxBatchSize),
			"the number of records in a batch, when a trigger does not set it"),
		Writers: read(g, "SYNC_WRITERS", "4", wholeNumber(1, 256),
			"how many batches of a run, or of a range of a large run, one worker writes at the same time"),
		RangeSize: read(g, "SYNC_RANGE_SIZE", "20000", wholeNumber(1, 1_000_000_000),
			"the number of records in a range; a run of a larger collection is split into ranges, which all workers share"),
		Index: read(g, "SYNC_INDEX", "false", boolean,
			"whether workers make an index on the stamp of each collection that is synchronised, by which incremental runs find users that are due if they are few"),
		BulkSize: read(g, "SYNC_BULK_SIZE", "1000", wholeNumber(1, 100_000), "the highest number of updates in one command to MongoDB"),
		RetryBudget: read(g, "SYNC_PATIENCE", "60s", duration(0, "60s"),
			"the retry budget: how long an attempt keeps trying while MongoDB does not answer, before it fails, or while what its work needs is away, before the run is snoozed; one operation of MongoDB may take 10 s even if this is less"),
	}
}

// readRetryAndRetention returns the change that the settings make in the Definition of every job type. What a Definition sets itself
// stays.
func readRetryAndRetention(r *reader) func(*tasks.Definition) {
	const theme = "Retries and retention"
	g := r.group(theme, worker)
	attempts := readSet(r.group(theme, api, worker), "JOB_ATTEMPTS", strconv.Itoa(tasks.DefaultAttempts), wholeNumber(1, 10_000),
		"how many attempts a run has, the first one included; for job types whose definition does not set it, as all of these settings")
	backoff := readSet(g, "JOB_BACKOFF", short(tasks.DefaultBackoff), duration(time.Second, "5s"), "the wait before the first retry")
	factor := readSet(g, "JOB_BACKOFF_FACTOR", fmt.Sprint(tasks.DefaultBackoffFactor), number(1, 100),
		"the factor by which the wait grows with each further retry")
	completed := readSet(g, "JOB_KEEP_COMPLETED", strconv.Itoa(tasks.DefaultKeepCompleted), wholeNumber(0, 10_000),
		"how many completed runs of each job type are kept, the latest ones")
	failed := readSet(g, "JOB_KEEP_FAILED", strconv.Itoa(tasks.DefaultKeepFailed), wholeNumber(0, 10_000),
		"how many failed runs of each job type are kept, the latest ones")
	limit := readSet(r.group(theme, api, scheduler, worker), "JOB_MAX_DURATION", short(tasks.DefaultMaxDuration), duration(time.Second, "6h"),
		"how long a run may take, from its first start and over all its attempts")
	return func(d *tasks.Definition) {
		d.SetDefaults(tasks.Defaults{
			Attempts: attempts, Backoff: backoff, BackoffFactor: factor, KeepCompleted: completed, KeepFailed: failed, MaxDuration: limit,
		})
	}
}

// readJobType changes the schedule of a job type as the settings say, and adds its freshness if it is a synchronisation.
func readJobType(r *reader, d *tasks.Definition, freshness map[string]time.Duration) {
	if _, err := d.ScheduledPayload(); err != nil {
		return // it can only be triggered
	}
	const theme = "Schedules"
	prefix := SettingPrefix(d.Name)
	g := r.group(theme, api, scheduler, worker).of(prefix)
	byDefault := ""
	if d.Schedule.Every > 0 {
		byDefault = short(d.Schedule.Every)
	}
	every := readSet(g, prefix+"_INTERVAL", byDefault, interval, "the time between two scheduled runs of "+d.Name+", aligned to the clock")
	cron := readSet(g, prefix+"_CRON", d.Schedule.Cron, cronExpression,
		"the schedule of "+d.Name+" as a cron expression in UTC, instead of an interval")
	switch {
	case cron != nil && every != nil && *every > 0:
		r.refuse("%[1]s_INTERVAL and %[1]s_CRON are both set; set one of them", prefix)
	case cron != nil:
		d.Schedule = tasks.Schedule{Cron: *cron}
	case every != nil:
		d.Schedule = tasks.Schedule{Every: *every}
	}
	if err := d.Schedule.Validate(); err != nil { // the Definition's own schedule
		r.refuse("the schedule of %s: %w", d.Name, err)
	}
	if _, isSync := d.NewPayload().(*tasks.SyncPayload); !isSync {
		return
	}
	without := tasks.DefaultFreshness
	age := readSet(r.group(theme, worker).of(prefix), prefix+"_FRESHNESS", "", duration(0, "20m"), fmt.Sprintf(
		"the age from which on a stamp is due for an incremental %s; by default the interval, or %s without a schedule", d.Name, short(without)))
	freshness[d.Name] = cmp.Or(d.Schedule.Interval(time.Now()), without)
	if age != nil {
		freshness[d.Name] = *age
	}
}
