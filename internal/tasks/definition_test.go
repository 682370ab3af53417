package tasks_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/internal/tasks"
)

func syncPayload() tasks.Payload { return new(tasks.SyncPayload) }

// What is expected of each job type that is shipped.
func TestDefaultRegistry(t *testing.T) {
	t.Parallel()
	type expected struct {
		name, title                         string
		attempts, keepCompleted, keepFailed int
		backoff                             time.Duration
		backoffFactor                       float64
		maxDuration                         time.Duration
		schedule                            tasks.Schedule
		scheduled                           string // the unique key of a scheduled run, or "" if none is possible
	}
	sync := func(name, title string, every time.Duration) expected {
		return expected{name, title, 3, 10, 20, 5 * time.Second, 5, 6 * time.Hour, tasks.Schedule{Every: every}, "incremental"}
	}
	want := []expected{
		sync("user-sync", "User sync", 20*time.Minute), sync("project-sync", "Project sync", 0), sync("issue-sync", "Issue sync", 0),
	}
	registry := codex.Registry()
	var got []expected
	for _, d := range registry.All() {
		e := expected{
			d.Name, d.Title, d.Attempts, d.KeepCompleted, d.KeepFailed, d.Backoff, d.BackoffFactor, d.MaxDuration, d.Schedule, "",
		}
		if payload, err := d.ScheduledPayload(); err == nil {
			e.scheduled = payload.UniqueKey()
		}
		got = append(got, e)
	}
	if !slices.Equal(got, want) {
		t.Errorf("the job types are %+v, want %+v", got, want)
	}
	if _, ok := registry.Lookup("users"); ok {
		t.Error("there is a job type that was not given")
	}
}

func TestNewRegistryRefuses(t *testing.T) {
	t.Parallel()
	good := tasks.Definition{Name: "a-job", Title: "A job", NewPayload: syncPayload}
	with := func(change func(*tasks.Definition)) tasks.Definition {
		d := good
		change(&d)
		return d
	}
	if _, err := tasks.NewRegistry(good, with(func(d *tasks.Definition) { d.Name = "b2" })); err != nil {
		t.Errorf("good ones are refused: %v", err)
	}
	for _, test := range []struct {
		name        string
		definitions []tasks.Definition
		want        string
	}{
		{"twice", []tasks.Definition{good, good}, `job type "a-job" is defined twice`},
		{"no title", []tasks.Definition{with(func(d *tasks.Definition) { d.Title = "" })}, `job type "a-job" has no title`},
		{"the name of ranges", []tasks.Definition{with(func(d *tasks.Definition) { d.Name = "ranges" })}, `job type "ranges": its name must not be "ranges"`},
		{"options of a number", []tasks.Definition{with(func(d *tasks.Definition) { d.NewPayload = func() tasks.Payload { return new(optioned) } })},
			`job type "a-job": the payload's field Size has options, so it must be a text, was int`},
		{"no payload", []tasks.Definition{with(func(d *tasks.Definition) { d.NewPayload = nil })}, `job type "a-job" has no payload`},
	} {
		if _, err := tasks.NewRegistry(test.definitions...); err == nil || err.Error() != test.want {
			t.Errorf("%s: %v, want %s", test.name, err, test.want)
		}
	}
	for _, name := range []string{"", "A", "user_sync", "user sync", "-a", "a-", "a--b", "1a", "all:", "user-sync\n", "ä", "{a}"} {
		_, err := tasks.NewRegistry(with(func(d *tasks.Definition) { d.Name = name }))
		if want := fmt.Sprintf("job type %q: its name must be lower-case words joined by hyphens", name); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", name, err, want)
		}
	}
}

// optioned is a payload with options for a number.
type optioned struct {
	Size int `json:"size" options:"1,2"`
}

func (*optioned) UniqueKey() string { return "" }
func (*optioned) Validate() error   { return nil }

// Changing the copy leaves the original as it is.
func TestResolveLeavesTheOriginalAlone(t *testing.T) {
	t.Parallel()
	original, err := tasks.NewRegistry(codex.UserSync, codex.ProjectSync)
	if err != nil {
		t.Fatal(err)
	}
	resolved := original.Resolve(func(d *tasks.Definition) {
		d.Attempts, d.KeepCompleted, d.KeepFailed = 7, 0, 0
		d.Schedule = tasks.Schedule{}
	})
	for _, def := range original.All() {
		if def.Attempts != 3 || def.KeepCompleted != 10 {
			t.Errorf("the original's %s has changed: %+v", def.Name, def)
		}
	}
	for _, def := range resolved.All() {
		if def.Attempts != 7 || def.KeepCompleted != 0 || def.KeepFailed != 0 || def.Schedule.Enabled() {
			t.Errorf("the copy's %s is %+v", def.Name, def)
		}
	}
	if !slices.Equal(original.Names(), resolved.Names()) {
		t.Errorf("the copy has %v", resolved.Names())
	}
	original.All()[0].Name = "changed"
	original.Names()[0] = "changed"
	if def, ok := original.Lookup("user-sync"); !ok || def.Name != "user-sync" {
		t.Errorf("changing what All and Names return has changed the registry")
	}
}

// A namespace changes the queues, and nothing else.
func TestNamespace(t *testing.T) {
	t.Parallel()
	plain := codex.Registry()
	shop := plain.In("shop").Resolve(func(d *tasks.Definition) { d.Attempts = 7 })
	if plain.Namespace() != "" || shop.Namespace() != "shop" || !slices.Equal(plain.Names(), shop.Names()) {
		t.Errorf("%q %v, %q %v", plain.Namespace(), plain.Names(), shop.Namespace(), shop.Names())
	}
	for registry, want := range map[*tasks.Registry]string{plain: "user-sync user-sync:ranges", shop: "shop:user-sync shop:user-sync:ranges"} {
		def, _ := registry.Lookup("user-sync")
		if got := def.Queue() + " " + def.RangeQueue(); got != want {
			t.Errorf("the queues are %s, want %s", got, want)
		}
		if task := def.NewTask(tasks.TriggerID(def.Name, time.Now()), nil, nil); task.Type() != "user-sync" {
			t.Errorf("the task is a %s", task.Type())
		}
		if options := fmt.Sprint(def.TaskOptions("id")); !strings.Contains(options, fmt.Sprintf("Queue(%q)", def.Queue())) {
			t.Errorf("the options are %s", options)
		}
	}
	for name, want := range map[tasks.Namespace]bool{
		"": true, "shop": true, "a-1": true, "123456789012345678901234567890": true, "1234567890123456789012345678901": false,
		"Shop": false, "a:b": false, "a b": false, "{a}": false, "ä": false, "a\n": false,
	} {
		if name.Valid() != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}

func TestRetryDelay(t *testing.T) {
	t.Parallel()
	def, _ := codex.Registry().Lookup("user-sync")
	for failed, want := range map[int]time.Duration{
		1: 5 * time.Second, 2: 25 * time.Second, 3: 125 * time.Second, 8: 24 * time.Hour, 1000: 24 * time.Hour, 100_000: 24 * time.Hour,
	} {
		if got := def.RetryDelay(failed); got != want {
			t.Errorf("after %d failed attempts: %s, want %s", failed, got, want)
		}
	}
	def.Backoff, def.BackoffFactor = 90*time.Second, 1
	for failed := 1; failed < 5; failed++ {
		if got := def.RetryDelay(failed); got != 90*time.Second {
			t.Errorf("without a factor, after %d failed attempts: %s", failed, got)
		}
	}
	def.BackoffFactor = 1.5
	if got := def.RetryDelay(2); got != 135*time.Second {
		t.Errorf("with a factor of 1.5: %s", got)
	}
}

func TestTaskOfARun(t *testing.T) {
	t.Parallel()
	def, _ := codex.Registry().Lookup("issue-sync")
	size := 5
	payload := &tasks.SyncPayload{SyncType: "full", BatchSize: &size}
	data, err := def.EncodePayload(payload)
	if err != nil || string(data) != `{"version":1,"syncType":"full","batchSize":5}` {
		t.Fatalf("encoded: %s, %v", data, err)
	}
	id := tasks.TriggerID(def.Name, time.Now())
	task := def.NewTask(id, data, nil)
	if task.Type() != "issue-sync" || string(task.Payload()) != string(data) {
		t.Errorf("the task is %s %s", task.Type(), task.Payload())
	}
	var options []string
	for _, o := range def.TaskOptions(id.String()) {
		options = append(options, o.String())
	}
	for _, want := range []string{`Queue("issue-sync")`, "MaxRetry(1000000)", "Timeout(7h0m0s)", fmt.Sprintf("TaskID(%q)", id)} {
		if !slices.Contains(options, want) {
			t.Errorf("the options are %v, without %s", options, want)
		}
	}
	if last := options[len(options)-1]; !strings.HasPrefix(last, "TaskID") {
		t.Errorf("the last option is %s", last)
	}
	decoded, err := def.DecodePayload(task.Payload())
	if back, ok := decoded.(*tasks.SyncPayload); err != nil || !ok || back.SyncType != "full" || *back.BatchSize != 5 {
		t.Errorf("decoded: %+v, %v", decoded, err)
	}
	if decoded, err := def.DecodePayload([]byte(`{"syncType":"no"}`)); err == nil || decoded != nil {
		t.Errorf("an invalid payload was decoded: %+v, %v", decoded, err)
	}
}

// demanding is a payload that is not valid when nothing is given, and so cannot be scheduled.
type demanding struct {
	Year int `json:"year" allowed:"a year from 2000"`
}

func (*demanding) UniqueKey() string { return "" }

func (d *demanding) Validate() error {
	if d.Year < 2000 {
		return tasks.NewFieldError(d, "year", d.Year)
	}
	return nil
}

func TestScheduledPayloadMustBeValid(t *testing.T) {
	t.Parallel()
	def := tasks.Definition{Name: "report", Title: "Report", NewPayload: func() tasks.Payload { return new(demanding) }}
	_, err := def.ScheduledPayload()
	var wrong *tasks.FieldError
	if want := `job type "report" cannot be scheduled: year was 0; it must be a year from 2000`; !errors.As(err, &wrong) || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// A registry says everything about its job types; what a definition leaves out has a default.
func ExampleNewRegistry() {
	registry, err := tasks.NewRegistry(
		codex.UserSync,
		tasks.Definition{
			Name: "yearly-report", Title: "Yearly report",
			NewPayload: func() tasks.Payload { return new(demanding) },
			Attempts:   5,
		},
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, def := range registry.All() {
		fmt.Printf("%s: scheduled %v, %d attempts, first retry after %s\n", def.Name, def.Schedule.Enabled(), def.Attempts, def.RetryDelay(1))
	}
	report, _ := registry.Lookup("yearly-report")
	_, err = report.DecodePayload([]byte(`{"year": 1999}`))
	fmt.Println(err)
	// Output:
	// user-sync: scheduled true, 3 attempts, first retry after 5s
	// yearly-report: scheduled false, 5 attempts, first retry after 5s
	// year was 1999; it must be a year from 2000
}

// What a Definition sets itself stays, whatever the settings say.
func TestDefinitionBeforeDefaults(t *testing.T) {
	t.Parallel()
	registry, err := tasks.NewRegistry(
		tasks.Definition{Name: "mine", Title: "Mine", NewPayload: codex.UserSync.NewPayload, Attempts: 1, Backoff: time.Minute, KeepFailed: 7},
		codex.UserSync,
	)
	if err != nil {
		t.Fatal(err)
	}
	attempts, backoff, factor, keep, limit := 9, 3*time.Second, 2.0, 0, time.Hour
	registry = registry.Resolve(func(d *tasks.Definition) {
		d.SetDefaults(tasks.Defaults{
			Attempts: &attempts, Backoff: &backoff, BackoffFactor: &factor, KeepCompleted: &keep, KeepFailed: &keep, MaxDuration: &limit,
		})
	})
	mine, _ := registry.Lookup("mine")
	if mine.Attempts != 1 || mine.Backoff != time.Minute || mine.BackoffFactor != 2 || mine.KeepCompleted != 0 || mine.KeepFailed != 7 || mine.MaxDuration != time.Hour {
		t.Errorf("a definition of one's own: %+v", mine)
	}
	user, _ := registry.Lookup("user-sync")
	if user.Attempts != 9 || user.Backoff != 3*time.Second || user.BackoffFactor != 2 || user.KeepCompleted != 0 || user.KeepFailed != 0 || user.MaxDuration != time.Hour {
		t.Errorf("a shipped definition: %+v", user)
	}
}
