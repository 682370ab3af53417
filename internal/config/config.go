package config

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/viper"

	"github.com/codex-api/codex-jobs/internal/access"
	"github.com/codex-api/codex-jobs/internal/redisconn"
	"github.com/codex-api/codex-jobs/pkg/tasks"
)

// Config is every setting, valid.
type Config struct {
	Redis   redisconn.Options
	MongoDB MongoDB
	HTTP    HTTP
	Admin   Admin
	Tracing Tracing
	Log     Log
	Worker  Worker
	Sync    Sync
	// CheckHealth says to look after a process that runs, rather than to be one.
	CheckHealth bool
	// Registry is the job types with what the settings change in them.
	Registry *tasks.Registry
}

// MongoDB says where the records are.
type MongoDB struct {
	URI      string
	Database string
}

// HTTP is the API's server.
type HTTP struct {
	Host string
	Port int
	// DashboardReadOnly keeps the dashboard from changing anything.
	DashboardReadOnly bool
	// Keys are the clients that may use the API; with none everybody may who reaches it.
	Keys access.Keys
	// AuthDisabled says that this is so on purpose, whatever the address and whatever name leads there.
	AuthDisabled bool
	// Certificate is what the API speaks TLS with; nil when it does not.
	Certificate *access.Certificate
}

// Log is what is logged, and how.
type Log struct {
	Level slog.Level
	// Format is "json" or "text".
	Format string
}

// Worker is how a worker works.
type Worker struct {
	// Concurrency is how many runs, each of another job type, one worker works on at the same time.
	Concurrency int
}

// Sync is how a synchronisation works.
type Sync struct {
	// BatchSize is how many records make one unit of work, where the payload does not say.
	BatchSize int
	// Writers is how many batches one worker works on at the same time, in one run or in one range of a large one.
	Writers int
	// RangeSize is how many records a range has: a run over more is cut into ranges, which all workers share.
	RangeSize int
	// BulkSize is how many updates one command to MongoDB carries at most.
	BulkSize int
	// Patience is how long an attempt waits for a MongoDB that is gone.
	Patience time.Duration
	// Freshness is, by job type, how old a record's stamp may be before an incremental run visits it again.
	Freshness map[string]time.Duration
}

// Load reads the settings for the job types of the registry. Its error lists everything that is wrong.
func Load(registry *tasks.Registry) (Config, error) {
	v := viper.New()
	v.SetConfigFile(dotenv)
	v.SetConfigType("dotenv")
	v.AutomaticEnv()
	if err := v.ReadInConfig(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Config{}, fmt.Errorf("reading .env: %w", withoutText(err))
	}
	l := newLoader(registry)
	wrong := l.readFiles(v)
	for _, s := range l.settings {
		value := strings.TrimSpace(v.GetString(s.Name))
		if value == "" && !s.fromDefinition { // blanks, too, are as good as not set
			value = s.Default
		}
		if value == "" {
			continue
		}
		if !s.set(value) {
			wrong = append(wrong, fmt.Errorf("%s was %s; it may be %s", s.Name, s.show(value), s.Allowed))
		}
	}
	wrong = append(wrong, l.finish(time.Now())...)
	return l.config, errors.Join(wrong...)
}

// readFiles gives the settings whose value is in a file that value. Nothing has a default yet.
func (l *loader) readFiles(v *viper.Viper) (wrong []error) {
	for _, s := range l.settings {
		path := strings.TrimSpace(v.GetString(s.Name))
		if s.fileOf == "" || path == "" {
			continue
		}
		if strings.TrimSpace(v.GetString(s.fileOf)) != "" {
			wrong = append(wrong, fmt.Errorf("%s and %s are both set; set one of them", s.fileOf, s.Name))
			continue
		}
		data, err := os.ReadFile(path)
		value := strings.TrimSpace(string(data))
		switch {
		case err != nil:
			wrong = append(wrong, fmt.Errorf("%s: %w", s.Name, err))
		case value == "":
			wrong = append(wrong, fmt.Errorf("%s: %s is empty", s.Name, path))
		}
		v.Set(s.fileOf, value)
	}
	return wrong
}

// LogValue shows the settings without secrets.
func (c Config) LogValue() slog.Value {
	var jobs []any
	for _, d := range c.Registry.All() {
		if d.Schedule.Enabled() {
			jobs = append(jobs, slog.String(d.Name, d.Schedule.Spec()))
		}
	}
	return slog.GroupValue(
		slog.String("redis", c.Redis.String()),
		slog.String("mongodb", redactURI(c.MongoDB.URI)),
		slog.String("database", c.MongoDB.Database),
		slog.Int("concurrency", c.Worker.Concurrency),
		slog.Int("batchSize", c.Sync.BatchSize),
		slog.Int("writers", c.Sync.Writers),
		slog.Int("rangeSize", c.Sync.RangeSize),
		slog.Group("schedules", jobs...),
		slog.Any("apiKeys", c.HTTP.Keys.Names()),
		slog.Bool("authDisabled", c.HTTP.AuthDisabled),
		slog.Bool("tls", c.HTTP.Certificate != nil),
		slog.String("traces", redactURI(c.Tracing.Endpoint)),
	)
}

const dotenv = ".env"

// assignment is how a line of .env begins.
var assignment = regexp.MustCompile(`^(export\s+)?[\w.]+\s*[=:]`)

// withoutText replaces the error of a .env that cannot be parsed, which quotes the line and so perhaps a password.
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

// redactURI hides who logs in, and with what, even in a URI that is not valid.
func redactURI(uri string) string {
	return secretOptions.ReplaceAllString(credentials.ReplaceAllString(uri, "${1}***@"), "${1}***")
}
