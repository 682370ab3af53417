package config

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/viper"

	"github.com/codex-api/codex-jobs/internal/access"
	"github.com/codex-api/codex-jobs/internal/redisconn"
	"github.com/codex-api/codex-jobs/internal/tasks"
)

// Config has the value of every setting. All are valid.
type Config struct {
	Redis   redisconn.Options
	MongoDB MongoDB
	HTTP    HTTP
	Admin   Admin
	Tracing Tracing
	Log     Log
	Worker  Worker
	Sync    Sync
	History History
	// Notify is the receiver of notifications.
	Notify Notify
	// Endpoints has the endpoint of each job type that has one.
	Endpoints map[string]Endpoint
	// CheckHealth asks for a health check of the running process, in place of a new process.
	CheckHealth bool
	// TryEndpoint is the job type whose endpoint is to be tried, in place of a new process; "" for none.
	TryEndpoint string
	// TryRecords is the file with the records for that; "" for made-up ones.
	TryRecords string
	// Program is the name of the program that runs with the settings; "" for none of the three.
	Program string
	// Unknown are the variables that look like settings and are none.
	Unknown []string
	// Registry has the job types, with the changes that the settings make, in the deployment's namespace.
	Registry *tasks.Registry
}

// HTTP is the API's server.
type HTTP struct {
	Host string
	Port int
	// BasePath is the path below which clients see the API, such as "/codex"; "" for none.
	BasePath string
	// TrustedProxies are the networks of the proxies whose X-Forwarded headers count.
	TrustedProxies []netip.Prefix
	// DashboardReadOnly keeps the dashboard from changing anything.
	DashboardReadOnly bool
	// Keys are the API keys of the clients. Without keys every client that reaches the API can use it.
	Keys access.Keys
	// AuthDisabled allows requests without keys on any address and for any Host.
	AuthDisabled bool
	// Certificate is for HTTPS; nil for HTTP.
	Certificate *access.Certificate
}

// Log says which lines are logged, and in which format.
type Log struct {
	Level slog.Level
	// Format is "json" or "text".
	Format string
}

// Worker is for workers.
type Worker struct {
	// Concurrency is how many handlers run on one worker at the same time, handlers of ranges included. A run that only
	// waits for its ranges does not count.
	Concurrency int
}

// Sync is for synchronisations.
type Sync struct {
	// BatchSize is the number of records in a batch, when the payload does not set it.
	BatchSize int
	// Writers is how many batches of a run, or of a range of a large run, one worker writes at the same time.
	Writers int
	// RangeSize is the number of records in a range. A run of a larger collection is split into ranges, which all workers share.
	RangeSize int
	// Index makes workers make an index on the stamp of each synchronised collection, and use it where few records are due.
	Index bool
	// BulkSize is the highest number of updates in one command to MongoDB.
	BulkSize int
	// RetryBudget is how long an attempt keeps trying while MongoDB does not answer.
	RetryBudget time.Duration
	// Freshness is, for each job type, the age from which on a record's stamp is due for an incremental run.
	Freshness map[string]time.Duration
}

// Load reads the settings for the job types of the registry. Its error lists everything that is wrong, without secrets.
func Load(registry *tasks.Registry) (Config, error) {
	v := viper.New()
	v.SetConfigFile(dotenv)
	v.SetConfigType("dotenv")
	v.AutomaticEnv()
	v.AllowEmptyEnv(true) // an empty variable hides the one in .env, and means the default
	if err := v.ReadInConfig(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Config{}, fmt.Errorf("reading .env: %w", withoutText(err))
	}
	r := &reader{get: v.GetString}
	c := readConfig(r, registry)
	names := environmentNames()
	for _, key := range v.AllKeys() {
		names = append(names, strings.ToUpper(key))
	}
	c.Unknown = unknown(r.settings, names)
	return c, errors.Join(r.wrong...)
}

// LogValue shows the most important settings, without secrets: those that Program uses, or all if that is "".
func (c Config) LogValue() slog.Value {
	var jobs []any
	for _, d := range c.Registry.All() {
		if d.Schedule.Enabled() {
			jobs = append(jobs, slog.String(d.Name, d.Schedule.Spec()))
		}
	}
	var shown []slog.Attr
	show := func(a slog.Attr, programs ...string) {
		if c.Program == "" || slices.Contains(programs, c.Program) {
			shown = append(shown, a)
		}
	}
	show(slog.String("redis", c.Redis.String()), api, scheduler, worker)
	show(slog.String("namespace", string(c.Registry.Namespace())), api, scheduler, worker)
	show(slog.String("mongodb", redactURI(c.MongoDB.URI)), api, worker)
	show(slog.String("database", c.MongoDB.Database), api, worker)
	show(slog.Any("history", c.History), api, worker)
	show(slog.Int("concurrency", c.Worker.Concurrency), worker)
	show(slog.Int("batchSize", c.Sync.BatchSize), worker)
	show(slog.Int("writers", c.Sync.Writers), worker)
	show(slog.Int("rangeSize", c.Sync.RangeSize), worker)
	show(slog.Group("schedules", jobs...), api, scheduler, worker)
	var endpoints []any
	for name, e := range c.Endpoints {
		endpoints = append(endpoints, slog.Any(name, e.Options))
	}
	show(slog.Group("endpoints", endpoints...), worker)
	show(slog.Any("notify", c.Notify), worker)
	show(slog.Any("apiKeys", c.HTTP.Keys.Names()), api)
	show(slog.Bool("authDisabled", c.HTTP.AuthDisabled), api)
	show(slog.Bool("tls", c.HTTP.Certificate != nil), api)
	show(slog.String("traces", redactURI(c.Tracing.Endpoint)), api, scheduler, worker)
	return slog.GroupValue(shown...)
}

const dotenv = ".env"

// assignment is how a line of .env begins.
var assignment = regexp.MustCompile(`^(export\s+)?[\w.]+\s*[=:]`)

// withoutText replaces the error of a .env that cannot be parsed, because that error quotes the line, which may have a
// password.
func withoutText(err error) error {
	if parsing := (viper.ConfigParseError{}); !errors.As(err, &parsing) {
		return err
	}
	data, err := os.ReadFile(dotenv)
	if err != nil {
		return err
	}
	number := 0
	for line := range strings.Lines(string(data)) {
		number++
		line = strings.TrimSpace(line)
		if line != "" && line[0] != '#' && !assignment.MatchString(line) {
			return fmt.Errorf("line %d is not of the form NAME=value", number)
		}
	}
	return errors.New("a value has an opening quote and no closing one")
}

var (
	credentials   = regexp.MustCompile(`^([a-z0-9+.]+://)?.+@`)
	secretOptions = regexp.MustCompile(`(?i)((?:password|properties)=)[^&]*`)
)

// redactURI hides the user and the passwords in a URI, even in an invalid one.
func redactURI(uri string) string {
	return secretOptions.ReplaceAllString(credentials.ReplaceAllString(uri, "${1}***@"), "${1}***")
}
