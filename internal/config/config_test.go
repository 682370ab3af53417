package config_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/internal/config"
	"github.com/codex-api/codex-jobs/internal/redisconn"
	"github.com/codex-api/codex-jobs/internal/syncrun"
	"github.com/codex-api/codex-jobs/internal/tasks"
)

// The tests here set the environment and the working directory, and so cannot run in parallel.

// secret must not be in any output.
const secret = "s3cr3t"

// setup gives the test an environment without any of the settings, and a working directory with the given .env.
func setup(t *testing.T, dotenv string, environment ...string) {
	t.Helper()
	for _, s := range config.Settings(codex.Registry()) {
		t.Setenv(s.Name, "") // which puts it back after the test
		if err := os.Unsetenv(s.Name); err != nil {
			t.Fatal(err)
		}
	}
	for _, setting := range environment {
		name, value, _ := strings.Cut(setting, "=")
		t.Setenv(name, value)
	}
	t.Chdir(t.TempDir())
	if dotenv != "" {
		if err := os.WriteFile(".env", []byte(dotenv), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func load(t *testing.T) config.Config {
	t.Helper()
	c, err := config.Load(codex.Registry())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func definition(t *testing.T, c config.Config, name string) tasks.Definition {
	t.Helper()
	def, ok := c.Registry.Lookup(name)
	if !ok {
		t.Fatalf("no job type %q", name)
	}
	return def
}

// comparable returns a Config without the fields that cannot be compared.
func comparable(c config.Config) (config.Config, []tasks.Definition) {
	definitions := c.Registry.All()
	for i := range definitions {
		definitions[i].NewPayload = nil
	}
	c.Registry, c.Unknown = nil, nil
	return c, definitions
}

func TestDefaults(t *testing.T) {
	setup(t, "")
	c := load(t)
	rest, definitions := comparable(c)
	want := config.Config{
		Redis:   redisconn.Options{Addr: "127.0.0.1:6379"},
		MongoDB: config.MongoDB{URI: "mongodb://127.0.0.1:27017", Database: "codex", DatabaseFrom: "the default"},
		HTTP:    config.HTTP{Host: "127.0.0.1", Port: 4000, DashboardReadOnly: true},
		Admin:   config.Admin{Host: "127.0.0.1"},
		Tracing: config.Tracing{Timeout: 10 * time.Second, Ratio: 1},
		Log:     config.Log{Level: slog.LevelInfo, Format: "json"},
		Worker:  config.Worker{Concurrency: 3},
		Sync: config.Sync{BatchSize: 100, Writers: 4, RangeSize: syncrun.DefaultRangeSize, BulkSize: 1000, RetryBudget: time.Minute, Freshness: map[string]time.Duration{
			"user-sync": 20 * time.Minute, "project-sync": 20 * time.Minute, "issue-sync": 20 * time.Minute,
		}},
		History: config.History{Collection: "job_runs", Keep: 90 * 24 * time.Hour, Records: config.RecordNames},
	}
	if !reflect.DeepEqual(rest, want) {
		t.Errorf("got %+v, want %+v", rest, want)
	}
	_, shipped := comparable(config.Config{Registry: codex.Registry()})
	if !reflect.DeepEqual(definitions, shipped) {
		t.Errorf("got the job types %+v, want %+v", definitions, shipped)
	}
}

// Every default that is shown is the real one: to set it changes nothing.
func TestShownDefaultsApply(t *testing.T) {
	setup(t, "")
	want, wantDefinitions := comparable(load(t))
	for _, s := range config.Settings(codex.Registry()) {
		t.Setenv(s.Name, s.Default)
	}
	got, definitions := comparable(load(t))
	if !reflect.DeepEqual(got, want) || !reflect.DeepEqual(definitions, wantDefinitions) {
		t.Errorf("got %+v %+v, want %+v %+v", got, definitions, want, wantDefinitions)
	}
}

func TestEnvironmentOverDotenvOverDefault(t *testing.T) {
	setup(t, "REDIS_HOST=from-file\nPORT=4001\nJOB_ATTEMPTS=4\nUSER_SYNC_INTERVAL=30m\n", "PORT=4002", "JOB_ATTEMPTS=5")
	c := load(t)
	user := definition(t, c, "user-sync")
	got := fmt.Sprint(c.Redis.Addr, " ", c.HTTP.Port, " ", user.Attempts, " ", user.Schedule.Every)
	if want := "from-file:6379 4002 5 30m0s"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// An empty variable hides the one in .env, and means the default: so one start can do without what the file says.
func TestEmptyEnvironmentOverDotenv(t *testing.T) {
	dotenv := ""
	for name, value := range map[string]string{
		"REDIS_HOST": "from-file", "REDIS_PORT": "7000", "REDIS_DB": "7", "REDIS_PASSWORD_FILE": file(t, secret), "MONGODB_URI": "mongodb://from-file",
		"REDIS_TLS": "true", "PORT": "4001", "API_KEYS": "ops:write:" + secretKey, "LOG_FORMAT": "text", "JOB_ATTEMPTS": "9", "USER_SYNC_INTERVAL": "30m",
		"OTEL_EXPORTER_OTLP_CERTIFICATE": "/not/there", "TLS_CERT_FILE": "/not/there", "ISSUE_SYNC_FRESHNESS": "5h",
	} {
		dotenv += name + "=" + value + "\n"
	}
	setup(t, "")
	want, wantDefinitions := comparable(load(t))
	setup(t, dotenv)
	for i, s := range config.Settings(codex.Registry()) {
		t.Setenv(s.Name, strings.Repeat(" ", i%2)) // blanks are the same
	}
	got, definitions := comparable(load(t))
	if !reflect.DeepEqual(got, want) || !reflect.DeepEqual(definitions, wantDefinitions) {
		t.Errorf("got %+v %+v, want %+v %+v", got, definitions, want, wantDefinitions)
	}
	// The value in a file can take the place of one in .env so.
	setup(t, "REDIS_PASSWORD=old\n", "REDIS_PASSWORD=", "REDIS_PASSWORD_FILE="+file(t, secret))
	if c := load(t); c.Redis.Password != secret {
		t.Errorf("the password is %q, want that of the file", c.Redis.Password)
	}
}

// The block for .env in the documentation of the replaced system, unchanged.
func TestDotenvOfTheReplacedSystem(t *testing.T) {
	const block = `# Redis Configuration
REDIS_HOST=127.0.0.1
REDIS_PORT=6379
REDIS_PASSWORD=          # Optional
REDIS_DB=0               # Default database
`
	setup(t, block)
	if got, want := load(t).Redis, (redisconn.Options{Addr: "127.0.0.1:6379"}); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	setup(t, strings.NewReplacer("127.0.0.1", "redis.internal", "6379", "6380", "PASSWORD=  ", "PASSWORD=pw", "DB=0", "DB=7").Replace(block))
	if got, want := load(t).Redis, (redisconn.Options{Addr: "redis.internal:6380", Password: "pw", DB: 7}); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestDotenvSyntax(t *testing.T) {
	for dotenv, want := range map[string]string{
		"REDIS_PASSWORD=plain":                        "plain",
		"\uFEFFREDIS_PASSWORD=plain\r\nPORT=4000\r\n": "plain",
		"export REDIS_PASSWORD=plain":                 "plain",
		"  REDIS_PASSWORD = plain  ":                  "plain",
		`REDIS_PASSWORD="with # and space"`:           "with # and space",
		`REDIS_PASSWORD='$HOME and #'`:                "$HOME and #",
		`REDIS_PASSWORD=a=b=c`:                        "a=b=c",
		"OTHER=1\nREDIS_PASSWORD=plain":               "plain",
		"REDIS_PASSWORD=one\nREDIS_PASSWORD=two":      "two",
		"redis_password=plain":                        "plain",
	} {
		setup(t, dotenv)
		if got := load(t).Redis.Password; got != want {
			t.Errorf("%q: %q, want %q", dotenv, got, want)
		}
	}
}

func TestEverythingWrongIsListed(t *testing.T) {
	setup(t, "REDIS_DB=-1\n", "REDIS_PORT=tcp://10.0.0.1:6379", "MONGODB_URI=mongo://u:"+secret+"@h", "PORT=70000", "LOG_LEVEL=loud",
		"LOG_FORMAT=xml", "WORKER_CONCURRENCY=0", "SYNC_BATCH_SIZE=10001", "SYNC_PATIENCE=long", "JOB_ATTEMPTS=0", "JOB_BACKOFF=10ms",
		"JOB_BACKOFF_FACTOR=NaN", "DASHBOARD_READ_ONLY=perhaps", "USER_SYNC_INTERVAL=25m", "PROJECT_SYNC_CRON=@every 25m",
		"ISSUE_SYNC_FRESHNESS=-1s", "REDIS_PASSWORD="+secret, "OTEL_EXPORTER_OTLP_HEADERS="+secret)
	_, err := config.Load(codex.Registry())
	if err == nil {
		t.Fatal("all of it is allowed")
	}
	want := `REDIS_PORT must be a whole number from 1 to 65535, was "tcp://10.0.0.1:6379"
REDIS_DB must be a whole number, 0 or more, was "-1"
MONGODB_URI must be a connection string, such as mongodb://host:27017 or mongodb+srv://host, was "mongo://***@h"
PORT must be a whole number from 1 to 65535, was "70000"
DASHBOARD_READ_ONLY must be true or false, was "perhaps"
OTEL_EXPORTER_OTLP_HEADERS must be name=value pairs, separated by commas, with percent-encoded values
LOG_LEVEL must be debug, info, warn or error, was "loud"
LOG_FORMAT must be json or text, was "xml"
WORKER_CONCURRENCY must be a whole number from 1 to 10000, was "0"
SYNC_BATCH_SIZE must be a whole number from 1 to 10000, was "10001"
SYNC_PATIENCE must be a duration from 0s to 87600h, such as 60s, was "long"
JOB_ATTEMPTS must be a whole number from 1 to 10000, was "0"
JOB_BACKOFF must be a duration from 1s to 87600h, such as 5s, was "10ms"
JOB_BACKOFF_FACTOR must be a number from 1 to 100, was "NaN"
USER_SYNC_INTERVAL must be off, or whole seconds that divide a minute, whole minutes that divide an hour or whole hours that divide a day, such as 20m, was "25m"
PROJECT_SYNC_CRON must be five fields: minute, hour, day of month, month, day of week, was "@every 25m"
ISSUE_SYNC_FRESHNESS must be a duration from 0s to 87600h, such as 20m, was "-1s"`
	if err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestRefusedValues(t *testing.T) {
	for name, values := range map[string][]string{
		"REDIS_HOST":                  {"redis://h", "redis://:" + secret + "@h:6379", "a b", "h/0", "u@h", "[::1]"},
		"HOST":                        {"http://0.0.0.0", "0.0.0.0/0"},
		"REDIS_PORT":                  {"0", "65536", "-1", "x", "6379.0", "6379 7"},
		"REDIS_DB":                    {"-1", "x", "1.0", "99999999999999999999"},
		"REDIS_CLUSTER_ADDRS":         {"a", "a:6379,", "a:6379,,b:6379", "a:6379 b:6379", ":6379", "a:0", "a:65536", "a:x", "::1:6379", "a:6379/0", "rediss://:" + secret + "@a:6379", "a:1,u:" + secret + "@b:2"},
		"REDIS_TLS":                   {"yes", "2"},
		"MONGODB_URI":                 {"localhost:27017", "mongodb://", "mongodb://h:99999", "mongodb://h:x", "mongodb://h/?w=1&w=x&maxPoolSize=many", "mongodb://u:p/" + secret + "@h/db", "mongodb+srv://", "mongodb+srv://a,b", "mongodb+srv://h:1", "mongodb+srv://h/?directConnection=true", "mongodb+srv://h/?srvMaxHosts=1&replicaSet=rs", "mongodb+srv://h/?w=1&w=x&maxPoolSize=many", "mongodb+srv://u:" + secret + "@h:1", "mongodb+srv://user:p/" + secret + "@host/db", "mongodb+srv://user:" + secret + "@" + secret + "@host", "mongodb://h/a%20b", "http://h", "u:" + secret + "@h", "mongo://u:" + secret + "@h"},
		"MONGODB_DATABASE":            {"a/b", `a\b`, "a.b", "a b", "a$b", `a"b`, strings.Repeat("x", 64)},
		"PORT":                        {"0", "65536", ":4000", "127.0.0.1:4000"},
		"BASE_PATH":                   {"/", "codex", "/codex/", "//codex", "/a b", "/..", "/é", "http://h/codex"},
		"TRUSTED_PROXIES":             {"*", "proxy", "10.0.0.0/33", "10.0.0.1:80", "10.0.0.1,", "10.0.0.1 10.0.0.2"},
		"ADMIN_HOST":                  {"http://0.0.0.0"},
		"ADMIN_PORT":                  {"0", "65536", "none", ":4001"},
		"OTEL_EXPORTER_OTLP_ENDPOINT": {"collector", "collector:4317", "grpc://collector", "http://", "http://:4318", "http://h/?a=b", "http://h/#x", "http://u:" + secret + "@ h"},
		"OTEL_EXPORTER_OTLP_HEADERS":  {secret, "a=b," + secret, "=" + secret, "a b=" + secret, "a:b=c", "a=" + secret + "%zz"},
		"OTEL_EXPORTER_OTLP_TIMEOUT":  {"0", "-1", "600001", "10s"},
		"OTEL_TRACES_SAMPLER_ARG":     {"-0.1", "1.1", "NaN", "half"},
		"DASHBOARD_READ_ONLY":         {"yes", "2"},
		"LOG_LEVEL":                   {"trace", "warning", "info+2", "3"},
		"LOG_FORMAT":                  {"JSON", "logfmt"},
		"WORKER_CONCURRENCY":          {"0", "10001", "many"},
		"SYNC_BATCH_SIZE":             {"0", "10001"},
		"SYNC_WRITERS":                {"0", "257"},
		"SYNC_RANGE_SIZE":             {"0", "1000000001"},
		"SYNC_BULK_SIZE":              {"0", "100001"},
		"SYNC_INDEX":                  {"yes", "lastSynced"},
		"SYNC_PATIENCE":               {"-1s", "60", "200000h"},
		"JOB_ATTEMPTS":                {"0", "10001"},
		"JOB_BACKOFF":                 {"999ms", "0", "-1s"},
		"JOB_BACKOFF_FACTOR":          {"0.99", "101", "Inf", "-5"},
		"JOB_KEEP_COMPLETED":          {"-1", "10001"},
		"JOB_KEEP_FAILED":             {"-1", "10001"},
		"JOB_MAX_DURATION":            {"999ms", "0", "forever"},
		"USER_SYNC_INTERVAL":          {"20", "-20m", "never", "25m", "48h", "1ms"},
		"ISSUE_SYNC_INTERVAL":         {"7m"},
		"USER_SYNC_CRON":              {"* * * *", "@hourly", "TZ=UTC * * * * *", "TZ=0", "0 0 30 2 *"},
		"PROJECT_SYNC_CRON":           {"x"},
		"USER_SYNC_FRESHNESS":         {"-1s", "20"},
		"PROJECT_SYNC_INTERVAL":       {"x"},
	} {
		for _, value := range values {
			setup(t, "", name+"="+value)
			_, err := config.Load(codex.Registry())
			if err == nil {
				t.Errorf("%s=%s is allowed", name, value)
				continue
			}
			if !strings.HasPrefix(err.Error(), name+" must be ") {
				t.Errorf("%s=%s: %v", name, value, err)
			}
			if strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s=%s: %v", name, value, err)
			}
		}
	}
}

func TestAllowedValues(t *testing.T) {
	for name, values := range map[string][]string{
		"REDIS_HOST":                  {"redis", "redis.default.svc.cluster.local", "::1", "10.0.0.1", "my_redis"},
		"HOST":                        {"127.0.0.1", "::1", "localhost", "127.0.0.2"},
		"REDIS_PORT":                  {"1", "65535", " 6379 "},
		"REDIS_PASSWORD":              {"p@ss/w:rd?#", "x y"},
		"REDIS_CLUSTER_ADDRS":         {"a:1", "a:1,b:65535", " a:1 , [::1]:2 ", "10.0.0.1:6379,redis.default.svc.cluster.local:6379"},
		"REDIS_TLS":                   {"true", "false", "1", "0"},
		"MONGODB_URI":                 {"mongodb://h", "mongodb://u:p%40@a:1,b:2/db?replicaSet=rs", "mongodb+srv://u:p@cluster.example", "mongodb+srv://cluster.example.com/shop?srvMaxHosts=2&srvServiceName=x&w=majority", "mongodb://h/?tls=true&tlsCAFile=/not/there/yet"},
		"MONGODB_DATABASE":            {"codex", "codex-api_2", strings.Repeat("x", 63)},
		"ADMIN_PORT":                  {"1", "65535", "off"},
		"OTEL_EXPORTER_OTLP_ENDPOINT": {"http://collector:4318", "https://u:p@[::1]/otlp/"},
		"OTEL_EXPORTER_OTLP_HEADERS":  {"authorization=Bearer%20x", "a=b=c, d="},
		"OTEL_TRACES_SAMPLER_ARG":     {"0", "1", "0.001"},
		"DASHBOARD_READ_ONLY":         {"true", "false", "1", "0"},
		"LOG_LEVEL":                   {"debug", "info", "warn", "error", "INFO"},
		"LOG_FORMAT":                  {"json", "text"},
		"SYNC_PATIENCE":               {"0s", "1h"},
		"JOB_BACKOFF_FACTOR":          {"1", "1.5", "100"},
		"JOB_KEEP_COMPLETED":          {"0", "10000"},
		"USER_SYNC_INTERVAL":          {"20m", "1h", "24h", "5s", "off", "0", "1200s"},
		"USER_SYNC_CRON":              {"*/25 * * * *", "0 9 * * MON-FRI"},
		"USER_SYNC_FRESHNESS":         {"0s", "20m", "48h"},
	} {
		for _, value := range values {
			setup(t, "", name+"="+value)
			if _, err := config.Load(codex.Registry()); err != nil {
				t.Errorf("%s=%s: %v", name, value, err)
			}
		}
	}
}

func TestSettingsReachTheDefinitions(t *testing.T) {
	setup(t, "", "JOB_ATTEMPTS=5", "JOB_BACKOFF=2s", "JOB_BACKOFF_FACTOR=1.5", "JOB_KEEP_COMPLETED=0", "JOB_KEEP_FAILED=7", "JOB_MAX_DURATION=1h",
		"SYNC_BATCH_SIZE=50", "SYNC_WRITERS=2", "SYNC_RANGE_SIZE=500", "SYNC_BULK_SIZE=10", "SYNC_INDEX=true", "SYNC_PATIENCE=5s", "WORKER_CONCURRENCY=2", "DASHBOARD_READ_ONLY=false",
		"LOG_LEVEL=debug", "LOG_FORMAT=text", "HOST=0.0.0.0", "AUTH_DISABLED=true", "PORT=5000", "MONGODB_DATABASE=other", "MONGODB_URI=mongodb://h:1/x",
		"ADMIN_HOST=0.0.0.0", "ADMIN_PORT=off", "OTEL_EXPORTER_OTLP_ENDPOINT=https://collector:4318/otlp", "OTEL_EXPORTER_OTLP_HEADERS=a=b%20c, d=",
		"OTEL_EXPORTER_OTLP_TIMEOUT=2500", "OTEL_TRACES_SAMPLER_ARG=0.25", "HISTORY_COLLECTION=runs", "HISTORY_KEEP=36h", "HISTORY_RECORDS=ids")
	c := load(t)
	for _, def := range c.Registry.All() {
		if def.Attempts != 5 || def.Backoff != 2*time.Second || def.BackoffFactor != 1.5 || def.KeepCompleted != 0 || def.KeepFailed != 7 || def.MaxDuration != time.Hour {
			t.Errorf("%s: %+v", def.Name, def)
		}
	}
	c, _ = comparable(c)
	c.Sync.Freshness = nil
	want := config.Config{
		Redis:   redisconn.Options{Addr: "127.0.0.1:6379"},
		MongoDB: config.MongoDB{URI: "mongodb://h:1/x", Database: "other", DatabaseFrom: "MONGODB_DATABASE", PathDatabase: "x"},
		HTTP:    config.HTTP{Host: "0.0.0.0", Port: 5000, AuthDisabled: true},
		Admin:   config.Admin{Host: "0.0.0.0", Port: config.AdminOff},
		Tracing: config.Tracing{Endpoint: "https://collector:4318/otlp", Headers: map[string]string{"a": "b c", "d": ""}, Timeout: 2500 * time.Millisecond, Ratio: 0.25},
		Log:     config.Log{Level: slog.LevelDebug, Format: "text"},
		Worker:  config.Worker{Concurrency: 2},
		Sync:    config.Sync{BatchSize: 50, Writers: 2, RangeSize: 500, Index: true, BulkSize: 10, RetryBudget: 5 * time.Second},
		History: config.History{Collection: "runs", Keep: 36 * time.Hour, Records: config.RecordIDs},
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got %+v, want %+v", c, want)
	}
	if def, _ := codex.Registry().Lookup("user-sync"); def.Attempts != 3 {
		t.Errorf("the shipped job types have changed: %+v", def)
	}
}

func TestSettingsOfAJobType(t *testing.T) {
	for _, test := range []struct {
		name        string
		environment []string
		schedule    tasks.Schedule
		freshness   time.Duration
	}{
		{"default", nil, tasks.Schedule{Every: 20 * time.Minute}, 20 * time.Minute},
		{"interval", []string{"USER_SYNC_INTERVAL=1h"}, tasks.Schedule{Every: time.Hour}, time.Hour},
		{"off", []string{"USER_SYNC_INTERVAL=off"}, tasks.Schedule{}, 20 * time.Minute},
		{"cron", []string{"USER_SYNC_CRON=*/25 * * * *"}, tasks.Schedule{Cron: "*/25 * * * *"}, 10 * time.Minute},
		{"cron on weekdays", []string{"USER_SYNC_CRON=0 9 * * 1-5"}, tasks.Schedule{Cron: "0 9 * * 1-5"}, 24 * time.Hour},
		{"cron with the interval off", []string{"USER_SYNC_INTERVAL=off", "USER_SYNC_CRON=0 * * * *"}, tasks.Schedule{Cron: "0 * * * *"}, time.Hour},
		{"freshness", []string{"USER_SYNC_FRESHNESS=5m"}, tasks.Schedule{Every: 20 * time.Minute}, 5 * time.Minute},
		{"freshness and interval", []string{"USER_SYNC_FRESHNESS=5m", "USER_SYNC_INTERVAL=1h"}, tasks.Schedule{Every: time.Hour}, 5 * time.Minute},
		{"freshness of nothing", []string{"USER_SYNC_FRESHNESS=0s"}, tasks.Schedule{Every: 20 * time.Minute}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			setup(t, "", test.environment...)
			c := load(t)
			if got := definition(t, c, "user-sync").Schedule; got != test.schedule {
				t.Errorf("the schedule is %+v, want %+v", got, test.schedule)
			}
			if got := c.Sync.Freshness["user-sync"]; got != test.freshness {
				t.Errorf("the freshness is %s, want %s", got, test.freshness)
			}
			for _, other := range []string{"project-sync", "issue-sync"} { // are not touched
				if def := definition(t, c, other); def.Schedule.Enabled() || c.Sync.Freshness[other] != 20*time.Minute {
					t.Errorf("%s: %+v, freshness %s", other, def.Schedule, c.Sync.Freshness[other])
				}
			}
		})
	}

	setup(t, "", "PROJECT_SYNC_INTERVAL=1h", "ISSUE_SYNC_CRON=30 * * * *")
	c := load(t)
	if p, i := definition(t, c, "project-sync").Schedule, definition(t, c, "issue-sync").Schedule; p.Every != time.Hour || i.Cron != "30 * * * *" {
		t.Errorf("the other job types' schedules are %+v and %+v", p, i)
	}

	setup(t, "", "USER_SYNC_INTERVAL=20m", "USER_SYNC_CRON=*/20 * * * *")
	_, err := config.Load(codex.Registry())
	if want := "USER_SYNC_INTERVAL and USER_SYNC_CRON are both set; set one of them"; err == nil || err.Error() != want {
		t.Errorf("an interval and a cron expression: %v, want %s", err, want)
	}
}

// A new job type has settings, too. One that is not a sync has no freshness.
func TestSettingsOfANewJobType(t *testing.T) {
	registry, err := tasks.NewRegistry(tasks.Definition{
		Name: "mail-digest", Title: "Mail digest", NewPayload: func() tasks.Payload { return new(digest) },
		Schedule: tasks.Schedule{Cron: "0 7 * * *"}, Attempts: 9,
	})
	if err != nil {
		t.Fatal(err)
	}
	defaults := make(map[string]string)
	for _, s := range config.Settings(registry) {
		defaults[s.Name] = s.Default
	}
	if cron, ok := defaults["MAIL_DIGEST_CRON"]; !ok || cron != "0 7 * * *" {
		t.Errorf("its cron expression is %q", cron)
	}
	if _, ok := defaults["MAIL_DIGEST_INTERVAL"]; !ok {
		t.Error("it has no interval")
	}
	if _, ok := defaults["MAIL_DIGEST_FRESHNESS"]; ok {
		t.Error("it has a freshness")
	}
	setup(t, "", "MAIL_DIGEST_CRON=0 8 * * *")
	c, err := config.Load(registry)
	if err != nil {
		t.Fatal(err)
	}
	if def := definition(t, c, "mail-digest"); def.Schedule.Cron != "0 8 * * *" || def.Attempts != 9 {
		t.Errorf("got %+v", def)
	}
	for value, want := range map[string]time.Duration{"6h": 6 * time.Hour, "off": 0} { // in the place of its cron expression
		setup(t, "", "MAIL_DIGEST_CRON=", "MAIL_DIGEST_INTERVAL="+value)
		if c, err = config.Load(registry); err != nil {
			t.Fatal(err)
		}
		if got := definition(t, c, "mail-digest").Schedule; got != (tasks.Schedule{Every: want}) {
			t.Errorf("with the interval %s: got %+v", value, got)
		}
	}
}

type digest struct{}

func (*digest) UniqueKey() string { return "" }
func (*digest) Validate() error   { return nil }

func TestBrokenDotenv(t *testing.T) {
	for name, dotenv := range map[string]string{
		"no equals sign":  "PORT=4000\nREDIS_PASSWORD " + secret + "\n",
		"an open quote":   "PORT=4000\nREDIS_PASSWORD=\"" + secret + "\n",
		"a bad name":      "REDIS PASSWORD=" + secret + "\n",
		"an unset export": "export " + secret + "\n",
	} {
		setup(t, dotenv)
		_, err := config.Load(codex.Registry())
		if err == nil || !strings.HasPrefix(err.Error(), "reading .env: ") {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if strings.Contains(err.Error(), secret) {
			t.Errorf("%s: the error tells a secret: %v", name, err)
		}
	}
	setup(t, "")
	if err := os.Mkdir(filepath.Join(".", ".env"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := config.Load(codex.Registry()); err == nil || !strings.HasPrefix(err.Error(), "reading .env: ") {
		t.Errorf("a directory: %v", err)
	}
}

func TestLogValueHidesSecrets(t *testing.T) {
	for _, uri := range []string{
		"mongodb://user:" + secret + "@host/db", "mongodb+srv://user:" + secret + "@host", "mongodb://" + secret + "@host",
		"mongodb+srv://host/?tlsCertificateKeyFilePassword=" + secret, "mongodb+srv://u:p@host/?authMechanism=MONGODB-AWS&authMechanismProperties=AWS_SESSION_TOKEN:" + secret + "&w=1",
		"mongodb+srv://user:p%2F" + secret + "@host/db", "mongodb+srv://host/?proxyPassword=" + secret + "&proxyUsername=x",
	} {
		setup(t, "", "REDIS_PASSWORD="+secret, "MONGODB_URI="+uri, "PROJECT_SYNC_CRON=0 9 * * *")
		c := load(t)
		var text, asJSON strings.Builder
		slog.New(slog.NewTextHandler(&text, nil)).Info("Starting", "settings", c)
		slog.New(slog.NewJSONHandler(&asJSON, nil)).Info("Starting", "settings", c)
		for _, line := range []string{text.String(), asJSON.String()} {
			if strings.Contains(line, secret) {
				t.Errorf("%s: the log has a secret: %s", uri, line)
			}
			for _, want := range []string{"127.0.0.1:6379/0", "mongodb", "host", "database", "*/20 * * * *", "0 9 * * *"} {
				if !strings.Contains(line, want) {
					t.Errorf("%s: the log does not have %s: %s", uri, want, line)
				}
			}
		}
		if c.MongoDB.URI != uri || c.Redis.Password != secret {
			t.Errorf("%s: got %+v %+v", uri, c.MongoDB, c.Redis)
		}
	}
}
