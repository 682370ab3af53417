package config

import (
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/connstring"

	"github.com/codex-api/codex-jobs/pkg/tasks"
)

// Setting is one environment variable, as the help text and the README show it.
type Setting struct {
	// Name is the variable's name.
	Name string
	// Default is its value when it is not set; "" when there is none.
	Default string
	// Allowed says in words what it may be.
	Allowed string
	// Purpose says what it does.
	Purpose string

	secret bool
	// fileOf is the setting whose value is in the file that this one names.
	fileOf string
	// fromDefinition says that Default is what a Definition says, or usually says, and is not to be set.
	fromDefinition bool
	set            func(value string) bool // false when the value is not allowed
}

func (s Setting) show(value string) string {
	if s.secret {
		return "not valid"
	}
	return strconv.Quote(redactURI(value))
}

// Settings lists every setting for the job types of the registry.
func Settings(registry *tasks.Registry) []Setting { return newLoader(registry).settings }

// loader is the list of settings together with the Config that they fill.
type loader struct {
	config   Config
	settings []Setting
	redis    redisSettings
	access   accessSettings
	// changes of a Definition, by job type; "" is every job type
	changes map[string][]func(*tasks.Definition)
}

// overrides adds a setting for what Definitions say: those of every job type (job "") or one's.
func overrides[T any](l *loader, job string, s Setting, parse func(*T) func(string) bool, apply func(*tasks.Definition, T)) {
	s.fromDefinition = true
	s.set = func(value string) bool {
		var parsed T
		if !parse(&parsed)(value) {
			return false
		}
		l.changes[job] = append(l.changes[job], func(d *tasks.Definition) { apply(d, parsed) })
		return true
	}
	l.settings = append(l.settings, s)
}

func newLoader(registry *tasks.Registry) *loader {
	l := &loader{changes: make(map[string][]func(*tasks.Definition))}
	c := &l.config
	c.Registry = registry
	c.Sync.Freshness = make(map[string]time.Duration)

	l.addRedis()
	l.add("MONGODB_URI", "mongodb://127.0.0.1:27017", "a connection string, such as mongodb://host:27017 or mongodb+srv://host",
		"MongoDB's connection string", uri(&c.MongoDB.URI))
	l.addFile("MONGODB_URI")
	l.add("MONGODB_DATABASE", "codex", "a database name of at most 63 bytes, without spaces and any of /\\.\"$",
		"the database of the records", databaseName(&c.MongoDB.Database))
	l.add("HOST", "127.0.0.1", "a host name or address", "the address that the API listens on", host(&c.HTTP.Host))
	l.add("PORT", "4000", portRange, "the port that the API listens on", number(&c.HTTP.Port, 1, 65535))
	l.addAccess()
	l.addWatching()
	l.add("DASHBOARD_READ_ONLY", "true", "true or false", "keeps the dashboard from changing anything",
		boolean(&c.HTTP.DashboardReadOnly))
	l.add("LOG_LEVEL", "info", "debug, info, warn or error", "the least level that is logged: debug, info, warn or error", level(&c.Log.Level))
	l.add("LOG_FORMAT", "json", "json or text", "how a line of the log is written: json or text", oneOf(&c.Log.Format, "json", "text"))
	l.add("WORKER_CONCURRENCY", "3", "a whole number from 1 to 1000",
		"how many runs, each of another job type, one worker works on at the same time", number(&c.Worker.Concurrency, 1, 1000))
	l.add("SYNC_BATCH_SIZE", "100", "a whole number from 1 to 10000",
		"records in a batch, where a trigger does not say", number(&c.Sync.BatchSize, tasks.MinBatchSize, tasks.MaxBatchSize))
	l.add("SYNC_WRITERS", "4", "a whole number from 1 to 256",
		"batches that one worker writes at the same time, in one run or in one range of a large run", number(&c.Sync.Writers, 1, 256))
	l.add("SYNC_RANGE_SIZE", "20000", "a whole number from 1 to 1000000000",
		"records in a range; a run over more of them is cut into ranges that all workers share", number(&c.Sync.RangeSize, 1, 1_000_000_000))
	l.add("SYNC_BULK_SIZE", "1000", "a whole number from 1 to 100000", "updates in one command to MongoDB, at most",
		number(&c.Sync.BulkSize, 1, 100_000))
	l.add("SYNC_PATIENCE", "60s", "a duration, such as 60s", "how long an attempt waits for a MongoDB that is gone",
		duration(&c.Sync.Patience, 0))
	l.addRetryAndRetention()
	for _, d := range registry.All() {
		l.addJob(d)
	}
	return l
}

const (
	portRange    = "a whole number from 1 to 65535"
	secondOrMore = "a duration of at least 1s"
	anyText      = "any text"
)

func (l *loader) add(name, value, allowed, purpose string, set func(string) bool) {
	l.settings = append(l.settings, Setting{Name: name, Default: value, Allowed: allowed, Purpose: purpose, set: set})
}

// addSecret adds a setting whose value is not shown, and the one that names a file with it.
func (l *loader) addSecret(name, allowed, purpose string, set func(string) bool) {
	l.add(name, "", allowed, purpose, set)
	l.settings[len(l.settings)-1].secret = true
	l.addFile(name)
}

// addFile adds the setting that names a file with the value of another one.
func (l *loader) addFile(name string) {
	var path string
	l.add(name+"_FILE", "", "the path of a file", "a file that holds the value, instead of "+name, text(&path))
	l.settings[len(l.settings)-1].fileOf = name
}

// addRetryAndRetention adds the settings for all job types.
func (l *loader) addRetryAndRetention() {
	whole := func(least int) func(*int) func(string) bool {
		return func(n *int) func(string) bool { return number(n, least, 10_000) }
	}
	overrides(l, "", Setting{
		Name: "JOB_ATTEMPTS", Default: strconv.Itoa(tasks.DefaultAttempts), Allowed: "a whole number from 1 to 10000",
		Purpose: "how often a run is tried before it has failed, unless its definition says otherwise",
	}, whole(1), func(d *tasks.Definition, n int) { d.Attempts = n })
	overrides(l, "", Setting{
		Name: "JOB_BACKOFF", Default: tasks.DefaultBackoff.String(), Allowed: secondOrMore,
		Purpose: "the wait before the first retry",
	}, durationFrom(time.Second), func(d *tasks.Definition, t time.Duration) { d.Backoff = t })
	overrides(l, "", Setting{
		Name: "JOB_BACKOFF_FACTOR", Default: strconv.FormatFloat(tasks.DefaultBackoffFactor, 'g', -1, 64),
		Allowed: "a number from 1 to 100", Purpose: "what each further retry multiplies the wait by",
	}, factor, func(d *tasks.Definition, f float64) { d.BackoffFactor = f })
	overrides(l, "", Setting{
		Name: "JOB_KEEP_COMPLETED", Default: strconv.Itoa(tasks.DefaultKeepCompleted), Allowed: "a whole number from 0 to 10000",
		Purpose: "completed runs that are kept of each job type",
	}, whole(0), func(d *tasks.Definition, n int) { d.KeepCompleted = n })
	overrides(l, "", Setting{
		Name: "JOB_KEEP_FAILED", Default: strconv.Itoa(tasks.DefaultKeepFailed), Allowed: "a whole number from 0 to 10000",
		Purpose: "failed runs that are kept of each job type",
	}, whole(0), func(d *tasks.Definition, n int) { d.KeepFailed = n })
	overrides(l, "", Setting{
		Name: "JOB_MAX_DURATION", Default: shortDuration(tasks.DefaultMaxDuration), Allowed: secondOrMore,
		Purpose: "how long a run may take over all its attempts",
	}, durationFrom(time.Second), func(d *tasks.Definition, t time.Duration) { d.MaxDuration = t })
}

// addJob adds the settings that a job type's Definition brings along.
func (l *loader) addJob(def tasks.Definition) {
	if _, err := def.ScheduledPayload(); err != nil {
		return // it can only be triggered
	}
	prefix := strings.ToUpper(strings.ReplaceAll(def.Name, "-", "_"))
	every := ""
	if def.Schedule.Every > 0 {
		every = shortDuration(def.Schedule.Every)
	}
	intervalSet := false
	overrides(l, def.Name, Setting{
		Name: prefix + "_INTERVAL", Default: every, Allowed: "a duration, such as 20m, or off",
		Purpose: fmt.Sprintf("the time between two scheduled runs of %s, aligned to the clock", def.Name),
	}, interval, func(d *tasks.Definition, t time.Duration) {
		d.Schedule.Every, intervalSet = t, t > 0
	})
	overrides(l, def.Name, Setting{
		Name: prefix + "_CRON", Default: def.Schedule.Cron, Allowed: "five fields: minute, hour, day of month, month, day of week",
		Purpose: fmt.Sprintf("the schedule of %s as a cron expression in UTC, in the place of an interval", def.Name),
	}, cronExpression, func(d *tasks.Definition, cron string) {
		d.Schedule.Cron = cron
		if !intervalSet {
			d.Schedule.Every = 0 // the Definition's interval gives way; one that is set, too, is a mistake
		}
	})
	if _, isSync := def.NewPayload().(*tasks.SyncPayload); isSync {
		l.add(prefix+"_FRESHNESS", "", "a duration, such as 20m",
			fmt.Sprintf("how old a stamp may be before an incremental %s visits the record again; by default the interval, or 20m without one", def.Name),
			func(value string) bool {
				var t time.Duration
				ok := duration(&t, 0)(value)
				l.config.Sync.Freshness[def.Name] = t
				return ok
			})
	}
}

// finish returns what is wrong with settings that depend on each other, and with the Definitions once what was set is
// applied to them.
func (l *loader) finish(now time.Time) []error {
	c := &l.config
	wrong := append(l.finishRedis(), l.finishAccess()...)
	c.Registry = c.Registry.Resolve(func(d *tasks.Definition) {
		for _, apply := range append(l.changes[""], l.changes[d.Name]...) {
			apply(d)
		}
		if err := d.Schedule.Validate(); err != nil {
			wrong = append(wrong, fmt.Errorf("the schedule of %s: %w", d.Name, err))
		} else if _, set := c.Sync.Freshness[d.Name]; !set {
			c.Sync.Freshness[d.Name] = d.Schedule.Interval(now)
			if c.Sync.Freshness[d.Name] == 0 {
				c.Sync.Freshness[d.Name] = tasks.UserSync.Schedule.Every
			}
		}
	})
	return wrong
}

func text(target *string) func(string) bool {
	return func(value string) bool {
		*target = value
		return true
	}
}

// host takes what can stand before a port. A URL in its place is a common mistake.
func host(target *string) func(string) bool {
	return func(value string) bool {
		*target = value
		return !strings.ContainsAny(value, "/@[]?# \t")
	}
}

// databaseName takes what MongoDB takes.
func databaseName(target *string) func(string) bool {
	return func(value string) bool {
		*target = value
		return len(value) <= 63 && !strings.ContainsAny(value, "/\\. \"$")
	}
}

// uri takes what the driver can parse. Of mongodb+srv, whose hosts are looked up, only the driver can tell when it connects.
func uri(target *string) func(string) bool {
	return func(value string) bool {
		*target = value
		if rest, ok := strings.CutPrefix(value, "mongodb+srv://"); ok {
			return rest != ""
		}
		_, err := connstring.ParseAndValidate(value)
		return err == nil
	}
}

func number(target *int, least, most int) func(string) bool {
	return func(value string) bool {
		n, err := strconv.Atoi(value)
		*target = n
		return err == nil && n >= least && n <= most
	}
}

func factor(target *float64) func(string) bool {
	return func(value string) bool {
		f, err := strconv.ParseFloat(value, 64)
		*target = f
		return err == nil && f >= 1 && f <= 100
	}
}

func boolean(target *bool) func(string) bool {
	return func(value string) bool {
		b, err := strconv.ParseBool(value)
		*target = b
		return err == nil
	}
}

func duration(target *time.Duration, least time.Duration) func(string) bool {
	return func(value string) bool {
		d, err := time.ParseDuration(value)
		*target = d
		return err == nil && d >= least && d <= 10*365*24*time.Hour
	}
}

func durationFrom(least time.Duration) func(*time.Duration) func(string) bool {
	return func(target *time.Duration) func(string) bool { return duration(target, least) }
}

func cronExpression(target *string) func(string) bool {
	return func(value string) bool {
		*target = value
		return tasks.Schedule{Cron: value}.Validate() == nil
	}
}

// interval reads a duration, or "off" as 0. Whether it can be aligned to the clock is the schedule's to say.
func interval(target *time.Duration) func(string) bool {
	return func(value string) bool {
		if value == "off" || value == "0" {
			*target = 0
			return true
		}
		return duration(target, 1)(value)
	}
}

func level(target *slog.Level) func(string) bool {
	return func(value string) bool {
		var name string
		return oneOf(&name, "debug", "info", "warn", "error")(strings.ToLower(value)) && target.UnmarshalText([]byte(name)) == nil
	}
}

func oneOf(target *string, allowed ...string) func(string) bool {
	return func(value string) bool {
		for _, a := range allowed {
			if value == a {
				*target = value
				return true
			}
		}
		return false
	}
}

// shortDuration writes 20m0s as 20m.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
