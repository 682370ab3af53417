package api_test

import (
	"bytes"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/codex-api/codex-jobs/internal/api"
	"github.com/codex-api/codex-jobs/internal/cli"
	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/pkg/client"
)

func TestOpenAPIIsServed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	a := b.get(t, "/openapi.json")
	if a.text != string(api.OpenAPI(syncs())) {
		t.Errorf("got %d %.300s", a.status, a.text)
	}
	if servers := a.json(t)["servers"]; fmt.Sprint(servers) != "[map[url:/]]" {
		t.Errorf("the servers are %v, not the one that it comes from", servers)
	}
}

// The described routes are the routes of the router.
func TestOpenAPIHasEveryRoute(t *testing.T) {
	t.Parallel()
	var options api.Options
	setup(t, func(o *api.Options) { options = *o })
	options.Metrics = prometheus.NewRegistry() // each server has one of its own
	server := api.New(options)
	routes := server.DescribableRoutes()
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	slices.Sort(routes)
	if described := describedAPI().operations(); !slices.Equal(routes, described) {
		t.Errorf("the router has\n%s\nand described are\n%s", strings.Join(routes, "\n"), strings.Join(described, "\n"))
	}
}

// welcome is the payload of that job type.
type welcome struct {
	To       string `json:"to" allowed:"an e-mail address" required:"true"`
	Language string `json:"language" options:"en,nl"`
	Copies   *int   `json:"copies,omitempty" allowed:"a whole number from 1 to 3"`
}

func (w *welcome) UniqueKey() string { return w.To }

func (w *welcome) Validate() error {
	if w.Language == "" {
		w.Language = "en"
	}
	if !strings.Contains(w.To, "@") {
		return tasks.NewFieldError(w, "to", w.To)
	}
	return nil
}

// mails are registries with a job type of another product.
func mails(t *testing.T) map[string]*tasks.Registry {
	t.Helper()
	mail := tasks.Definition{Name: "welcome-mail", Title: `Welcome "mail"`, NewPayload: func() tasks.Payload { return new(welcome) }}
	registries := make(map[string]*tasks.Registry)
	for name, definitions := range map[string][]tasks.Definition{
		"alone": {mail}, "first": {mail, codex.ProjectSync}, "last": {codex.UserSync, codex.ProjectSync, codex.IssueSync, mail},
	} {
		registry, err := tasks.NewRegistry(definitions...)
		if err != nil {
			t.Fatal(err)
		}
		registries[name] = registry
	}
	return registries
}

// The description has each job type of the registry, and no others.
func TestOpenAPIFollowsTheRegistry(t *testing.T) {
	t.Parallel()
	for name, registry := range mails(t) {
		text := api.OpenAPI(registry)
		d, err := newDescription(text)
		if err != nil {
			t.Fatal(err)
		}
		d.sound(t)
		names := strings.Join(registry.Names(), " ")
		for path, want := range map[string]string{
			"/components/schemas/JobType/enum":                           "[" + names + "]",
			"/components/schemas/JobTypeOrAll/enum":                      "[" + names + " all]",
			"/components/schemas/ControlBody/properties/job/enum":        "[" + names + " all]",
			"/components/parameters/StatusJob/schema/enum":               "[" + names + " all]",
			"/components/schemas/WelcomeMailPayload/description":         "The payload of `welcome-mail`.",
			"/components/schemas/WelcomeMailPayload/properties/to":       "map[description:Must be an e-mail address. type:string]",
			"/components/schemas/WelcomeMailPayload/required":            "[to]",
			"/components/schemas/WelcomeMailPayload/properties/language": `map[default:en description:Must be "en" or "nl". enum:[en nl ] type:string]`,
			"/components/schemas/WelcomeMailData/required":               "<nil>",
			"/components/schemas/WelcomeMailPayload/properties/copies":   "map[description:Must be a whole number from 1 to 3. type:integer]",
			"/components/schemas/WelcomeMailPayload/properties/delay":    "map[description:Must be a whole number of milliseconds from 0 to 31536000000. type:integer]",
			"/components/schemas/WelcomeMailData/description":            "The payload of `welcome-mail`, as answers have it.",
			"/components/schemas/WelcomeMailData/properties/delay":       "<nil>",
		} {
			if got, _ := d.at(path); fmt.Sprint(got) != want {
				t.Errorf("%s: %s is %v, want %s", name, path, got, want)
			}
		}
		for _, shipped := range syncs().Names() {
			if _, ok := registry.Lookup(shipped); !ok && bytes.Contains(text, []byte(shipped)) {
				t.Errorf("%s: %s is in the description", name, shipped)
			}
		}
		trigger := "/paths/~1jobs~1trigger~1{job}/post/requestBody/content/application~1json/schema"
		if err := d.check(trigger, object{"to": "ada@codex.example", "language": "nl"}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for field, value := range map[string]any{"runAt": "2026-11-24T04:50:00Z", "delay": 600000} {
			if err := d.check(trigger, object{"to": "ada@codex.example", field: value}); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if d.check(trigger, object{"to": "ada@codex.example", "lang": "nl"}) == nil {
			t.Errorf("%s: a field that is not known is described", name)
		}
	}
}

// What an endpoint gets and what it may answer, and that only a sync can have one.
func TestOpenAPIDescribesTheEndpoint(t *testing.T) {
	t.Parallel()
	d, batch := describedAPI(), pointer("webhooks", "syncBatch", "post")
	const request = `{"jobType": "user-sync", "runId": "1795574400000:user-sync", "syncType": "full", "attempt": 1, "retries": 0,
		"reference": "2026-11-25T02:40:00.000Z", "records": [{"_id": 42}]}`
	for _, test := range []struct {
		at, text string
		right    bool
	}{
		{"/requestBody", request, true},
		{"/requestBody", strings.Replace(request, `{"_id": 42}`, `{"_id": {"$numberLong": "9007199254740993"}, "email": null}`, 1), true},
		{"/requestBody", strings.Replace(request, `{"_id": 42}`, `{"email": "ada@codex.example"}`, 1), false},
		{"/requestBody", strings.Replace(request, `{"_id": 42}`, ``, 1), false},
		{"/requestBody", strings.Replace(request, `"retries": 0,`, ``, 1), false},
		{"/responses/200", `{"results": []}`, true},
		{"/responses/200", `{"results": [{"_id": 42}, {"_id": "a", "set": {"plan": "pro"}, "unset": ["old"]}, {"_id": 1, "error": "no"}]}`, true},
		{"/responses/200", `{"results": [{"set": {"plan": "pro"}}]}`, false},
		{"/responses/200", `{"results": [{"_id": 42, "set": {"plan": "pro"}, "error": "no"}]}`, false},
		{"/responses/200", `{"results": [{"_id": 42, "more": 1}]}`, false},
		{"/responses/200", `{"results": [], "more": 1}`, false},
		{"/responses/200", `[]`, false},
	} {
		if err := d.json(batch+test.at+pointer("content", "application/json", "schema"), test.text); (err == nil) != test.right {
			t.Errorf("%s %s: %v", test.at, test.text, err)
		}
	}
	for _, status := range []string{"200", "204", "408", "429", "500", "502", "503", "504", "default"} {
		if described, _ := d.at(batch + pointer("responses", status)); described == nil {
			t.Errorf("%s is not described", status)
		}
	}
	for name, registry := range mails(t) {
		text := string(api.OpenAPI(registry))
		for _, part := range []string{`"webhooks":{"syncBatch"`, `"name":"Endpoint"`, "ExtendedJSON", "SyncBatch", "RecordResult"} {
			if strings.Contains(text, part) == (name == "alone") {
				t.Errorf("%s: %s is there: %v", name, part, name != "alone")
			}
		}
		if name == "first" && !strings.Contains(text, `"jobType":"project-sync","runId":"1795574400000:project-sync"`) {
			t.Errorf("%s: the example of a batch is not of its sync", name)
		}
	}
}

// The page, the list of job types and codexctl follow the registry, too.
func TestOtherJobTypes(t *testing.T) {
	t.Parallel()
	for name, registry := range mails(t) {
		b := setupRegistry(t, registry)
		b.undescribed = true // requests are compared with the description of the syncs
		page := b.get(t, "/docs")
		isPage(t, page)
		for _, want := range []string{`id="schema-WelcomeMailPayload"`, "The payload of <code>welcome-mail</code>.", "Must be an e-mail address.", "<code>copies</code>"} {
			if !strings.Contains(page.text, want) {
				t.Errorf("%s: the page has no %s", name, want)
			}
		}
		d, err := newDescription(api.OpenAPI(registry))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{"/job-types", "/jobs/status?job=welcome-mail", "/jobs?job=welcome-mail"} {
			if err := d.verify(exchange{http.MethodGet, path, "", b.get(t, path)}); err != nil {
				t.Errorf("%s: %s: %v", name, path, err)
			}
		}
		codexctl := func(args ...string) string {
			var out, errOut strings.Builder
			if status := cli.Run(t.Context(), cli.Program{Out: &out, Err: &errOut}, append([]string{"--server", b.url}, args...)); status != 0 {
				t.Errorf("%s: codexctl %q ended with %d: %s", name, args, status, errOut.String())
			}
			return out.String()
		}
		if out := codexctl("trigger", "welcome-mail", "--data", `{"to": "ada@codex.example"}`); !strings.Contains(out, `Welcome "mail" triggered successfully`) {
			t.Errorf("%s: codexctl has triggered %s", name, out)
		}
		if out := codexctl("status"); !regexp.MustCompile(`(?m)^welcome-mail +1 `).MatchString(out) {
			t.Errorf("%s: the status is\n%s", name, out)
		}
		if out := codexctl("__complete", "trigger", ""); !strings.Contains(out, "welcome-mail\tWelcome \"mail\"\n") {
			t.Errorf("%s: completed is\n%s", name, out)
		}
		if err := d.verify(exchange{http.MethodGet, "/jobs", "", b.get(t, "/jobs")}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestJobTypes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.post(t, "/jobs/pause", `{"job": "project-sync"}`)
	const syncFields = `"fields":[{"name":"syncType","type":"string","allowed":"\"incremental\" or \"full\"",` +
		`"options":["incremental","full"],"default":"incremental"},` +
		`{"name":"batchSize","type":"integer","allowed":"a whole number from 1 to 10000"}]}`
	want := `{"success":true,"data":{"jobTypes":[` +
		`{"name":"user-sync","title":"User sync","schedule":null,"paused":false,"attempts":3,"overall":1,` + syncFields + `,` +
		`{"name":"project-sync","title":"Project sync","schedule":null,"paused":true,"attempts":3,"overall":1,` + syncFields + `,` +
		`{"name":"issue-sync","title":"Issue sync","schedule":null,"paused":false,"attempts":3,"overall":1,` + syncFields + `]}}`
	if got := b.get(t, "/job-types"); got.status != http.StatusOK || got.text != want {
		t.Errorf("got %d %s, want %s", got.status, got.text, want)
	}
	b.startScheduler(t)
	list := must[[]client.JobType](t)(b.api(t).JobTypes(t.Context()))
	if len(list) != 3 || list[0].Schedule == nil || *list[0].Schedule != codex.UserSync.Schedule.Spec() || list[1].Schedule != nil {
		t.Errorf("with a scheduler they are %+v", list)
	}
}

// The schema of a synchronisation's payload is written by hand, and has every field.
func TestOpenAPIHasEveryFieldOfASync(t *testing.T) {
	t.Parallel()
	for _, field := range append(codex.UserSync.Fields(), tasks.StartFields()...) {
		if described, _ := describedAPI().at(pointer("components", "schemas", "SyncPayload", "properties", field.Name)); described == nil {
			t.Errorf("the field %q has no description in openapi.json", field.Name)
		}
	}
}

// Programs that read the document rely on this: every reference leads somewhere, names are unique, objects name their
// fields, and examples fit their schemas.
func TestOpenAPIIsSound(t *testing.T) {
	t.Parallel()
	describedAPI().sound(t)
}

func (d *description) sound(t *testing.T) {
	t.Helper()
	ids := make(map[string]bool)
	for _, route := range d.operations() {
		method, path, _ := strings.Cut(route, " ")
		at := pointer("paths", path, method)
		value, _ := d.at(at)
		operation := value.(object)
		id, _ := operation["operationId"].(string)
		if summary, _ := operation["summary"].(string); id == "" || ids[id] || summary == "" || len(operation["tags"].([]any)) != 1 {
			t.Errorf("%s: the operationId %q, the summary %q or its tags %v", route, id, summary, operation["tags"])
		}
		ids[id] = true
		if parameters := d.parameters(at, "path"); len(parameters) != strings.Count(path, "{") {
			t.Errorf("%s: the parameters of the path are %v", route, parameters)
		}
		for _, status := range []string{"401", "403"} {
			_, open := operation["security"]
			if described, _ := d.at(at + "/responses/" + status); (described == nil) != open {
				t.Errorf("%s: %s is %v, while it needs no key: %v", route, status, described, open)
			}
		}
	}
	hooks, _ := d.root["webhooks"].(object)
	for name, hook := range hooks {
		operation := hook.(object)["post"].(object)
		if id, _ := operation["operationId"].(string); id == "" || ids[id] || fmt.Sprint(operation["security"]) != "[]" {
			t.Errorf("%s: the operationId %q, or the keys %v, which a worker does not have", name, id, operation["security"])
		}
		for _, part := range []string{"/requestBody", "/responses/200"} {
			if described, _ := d.at(pointer("webhooks", name, "post") + part); described == nil {
				continue
			}
			content, _ := d.at(pointer("webhooks", name, "post") + part + pointer("content", "application/json"))
			if o, _ := content.(object); o["example"] == nil && o["examples"] == nil {
				t.Errorf("%s: %s has no example", name, part)
			}
		}
	}
	d.walk(t, "", d.root)
}

// walk visits everything in the document.
func (d *description) walk(t *testing.T, at string, value any) {
	t.Helper()
	switch value := value.(type) {
	case object:
		d.look(t, at, value)
		for name, inside := range value {
			if name != "example" && name != "examples" { // which are no part of the description
				d.walk(t, at+pointer(name), inside)
			}
		}
	case []any:
		for i, inside := range value {
			d.walk(t, fmt.Sprintf("%s/%d", at, i), inside)
		}
	}
}

func (d *description) look(t *testing.T, at string, o object) {
	t.Helper()
	if ref, ok := o["$ref"].(string); ok {
		if there, _ := d.at(strings.TrimPrefix(ref, "#")); there == nil {
			t.Errorf("%s refers to %s, where nothing is", at, ref)
		}
	}
	if _, closed := o["additionalProperties"]; o["type"] == "object" && o["properties"] != nil && !closed && !strings.HasSuffix(at, "/Description") {
		t.Errorf("%s does not say that it has no other fields", at)
	}
	if o["schema"] == nil {
		return
	}
	examples := make(map[string]any)
	if example, ok := o["example"]; ok {
		examples["example"] = example
	}
	more, _ := o["examples"].(object)
	for name, example := range more {
		examples[name] = example.(object)["value"]
	}
	for name, example := range examples {
		if err := d.check(at+"/schema", example); err != nil {
			t.Errorf("%s: the example %s: %v", at, name, err)
		}
	}
}

// The comparison finds differences.
func TestDescriptionSeesDepartures(t *testing.T) {
	t.Parallel()
	const waiting = `{"success":true,"data":{"id":"1000:user-sync","job":"user-sync","state":"waiting","data":{"syncType":"full"},"progress":0,` +
		`"attempt":0,"attempts":3,"createdAt":"1970-01-01T00:00:01.000Z"}}`
	refusal := func(status int) answer { return answer{status: status, text: `{"success":false,"message":"no"}`} }
	for name, test := range map[string]struct {
		exchange
		right bool
	}{
		"a job":                       {exchange{"GET", "/jobs/1000:user-sync", "", answer{status: 200, text: waiting}}, true},
		"an unknown field":            {exchange{"GET", "/jobs/1000:user-sync", "", answer{status: 200, text: strings.Replace(waiting, `"job"`, `"more":1,"job"`, 1)}}, false},
		"an unknown field of a field": {exchange{"GET", "/jobs/1000:user-sync", "", answer{status: 200, text: strings.Replace(waiting, `"syncType"`, `"more":1,"syncType"`, 1)}}, false},
		"a field that is missing":     {exchange{"GET", "/jobs/1000:user-sync", "", answer{status: 200, text: strings.Replace(waiting, `"attempts":3,`, ``, 1)}}, false},
		"a value of another type":     {exchange{"GET", "/jobs/1000:user-sync", "", answer{status: 200, text: strings.Replace(waiting, `"attempts":3`, `"attempts":"3"`, 1)}}, false},
		"a time of another form":      {exchange{"GET", "/jobs/1000:user-sync", "", answer{status: 200, text: strings.Replace(waiting, `01.000Z`, `01Z`, 1)}}, false},
		"no JSON":                     {exchange{"GET", "/jobs/1000:user-sync", "", answer{status: 200, text: "ok"}}, false},
		"a status":                    {exchange{"GET", "/jobs/1000:user-sync", "", refusal(418)}, false},
		"a refusal":                   {exchange{"GET", "/jobs/1000:user-sync", "", refusal(404)}, true},
		"a path":                      {exchange{"GET", "/jobs/1000:user-sync/more", "", answer{status: 200, text: waiting}}, false},
		"a path that is not there":    {exchange{"GET", "/jobs/1000:user-sync/more", "", refusal(404)}, true},
		"an ID":                       {exchange{"GET", "/jobs/1000", "", answer{status: 200, text: waiting}}, false},
		"a method":                    {exchange{"PUT", "/jobs/1000:user-sync", "", answer{status: 200, text: waiting}}, false},
		"a method without Allow":      {exchange{"PUT", "/jobs/1000:user-sync", "", refusal(405)}, false},
		"a parameter":                 {exchange{"GET", "/jobs/1000:user-sync?more=1", "", answer{status: 200, text: waiting}}, false},
		"a parameter's value":         {exchange{"GET", "/jobs?page=0", "", answer{status: 200, text: `{"success":true,"data":{"jobs":[],"total":0,"page":1,"pageSize":20}}`}}, false},
		"a right query refused":       {exchange{"GET", "/jobs?page=1", "", refusal(400)}, false},
		"a wrong query refused":       {exchange{"GET", "/jobs?page=x", "", refusal(400)}, true},
		"a wrong body taken":          {exchange{"POST", "/jobs/pause", `{"job":"x"}`, answer{status: 200, text: `{"success":true,"message":"x"}`}}, false},
		"a right body refused":        {exchange{"POST", "/jobs/pause", `{"job":"user-sync"}`, refusal(400)}, false},
		"a wrong body refused":        {exchange{"POST", "/jobs/pause", `{"job":"x"}`, refusal(400)}, true},
	} {
		test.header = http.Header{"Content-Type": {"application/json; charset=utf-8"}}
		if err := describedAPI().verify(test.exchange); (err == nil) != test.right {
			t.Errorf("%s: %v", name, err)
		}
	}
}
