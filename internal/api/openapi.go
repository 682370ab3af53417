// The description of the API, for programs: an OpenAPI document. openapi.json is written by hand, for an API with the three
// syncs; the job types of the registry are put in here. The tests compare every request and every answer with it.

package api

import (
	_ "embed"
	"encoding/json"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/pkg/client"
)

// The paths of what describes the API: for programs, for people, its job types, and the processes behind it.
const (
	openAPIPath   = "/openapi.json"
	docsPath      = "/docs"
	jobTypesPath  = "/job-types"
	processesPath = "/processes"
	whoamiPath    = "/whoami"
)

//go:embed openapi.json
var shippedOpenAPI string

// openAPI returns the description of an API over the registry.
func openAPI(registry *tasks.Registry) []byte {
	names, payloads := registry.Names(), payloadsOf(registry)
	var bodies, data []any
	for _, p := range payloads {
		bodies = append(bodies, map[string]string{"$ref": "#/components/schemas/" + p.schema})
		data = append(data, map[string]string{"$ref": "#/components/schemas/" + p.dataSchema()})
	}
	d := withExamplesOf(registry)
	d = set(d, names, "components", "schemas", "JobType", "enum")
	d = set(d, append(registry.Names(), client.AllJobs), "components", "schemas", "JobTypeOrAll", "enum")
	d = set(d, names[0], "components", "parameters", "StatusJob", "schema", "default")
	d = set(d, names[0], "components", "parameters", "ListJob", "example")
	d = set(d, bodies, "components", "schemas", "TriggerBody", "anyOf")
	d = set(d, append(data, map[string]string{"type": "null"}), "components", "schemas", "Data", "anyOf")
	for _, p := range payloads {
		if p.schema != syncPayloadSchema {
			d = set(d, p.describe(p.description(), p.required(), tasks.StartFields()...), "components", "schemas", p.schema)
			inAnswers := p.describe(strings.TrimSuffix(p.description(), ".")+", as answers have it.", nil)
			d = set(d, inAnswers, "components", "schemas", p.dataSchema())
		}
	}
	if all := registry.All(); slices.ContainsFunc(all, canHaveEndpoint) {
		name := all[slices.IndexFunc(all, canHaveEndpoint)].Name
		batch := []string{"webhooks", "syncBatch", "post", "requestBody", "content", "application/json", "examples", "fields", "value"}
		d = set(d, name, append(batch, "jobType")...)
		d = set(d, "1795574400000:"+name, append(batch, "runId")...)
	} else {
		d = withoutEndpoint(d)
	}
	// The examples of a trigger are for a synchronisation.
	if sync := slices.IndexFunc(payloads, isSync); sync >= 0 {
		d = set(d, payloads[sync].description(), "components", "schemas", syncPayloadSchema, "description")
		return set(d, payloads[sync].jobs[0], "components", "parameters", "TriggerJob", "example")
	}
	d = set(d, nil, "components", "schemas", syncPayloadSchema)
	d = set(d, nil, "components", "schemas", syncDataSchema)
	d = set(d, nil, "paths", "/jobs/trigger/{job}", "post", "requestBody", "content", "application/json", "examples")
	return set(d, names[0], "components", "parameters", "TriggerJob", "example")
}

// canHaveEndpoint reports whether the workers can ask an endpoint for the job type's batches.
func canHaveEndpoint(def tasks.Definition) bool { return def.Endpoint }

// withoutEndpoint returns the description without what a worker sends to an endpoint.
func withoutEndpoint(d json.RawMessage) json.RawMessage {
	var shown struct{ Tags []map[string]string }
	if err := json.Unmarshal(d, &shown); err != nil {
		panic(err) // a programming error that every test would show
	}
	d = set(d, slices.DeleteFunc(shown.Tags, func(tag map[string]string) bool { return tag["name"] == "Endpoint" }), "tags")
	d = set(d, nil, "webhooks", "syncBatch")
	for _, schema := range []string{"SyncBatchAnswer", "RecordResult", "RecordUpdate", "RecordError", "ExtendedJSON"} {
		d = set(d, nil, "components", "schemas", schema)
	}
	return d
}

// syncPayloadSchema is the schema of tasks.SyncPayload. It says more than the payload's tags do, and is written by hand.
const syncPayloadSchema = "SyncPayload"

// syncDataSchema names the schema of the same payload in an answer, which has the defaults filled in.
const syncDataSchema = "SyncData"

// payload is the payload of one or more job types.
type payload struct {
	schema string
	jobs   []string
	fields []tasks.Field
}

func isSync(p *payload) bool { return p.schema == syncPayloadSchema }

// payloadsOf returns the payloads of the registry's job types. Job types that share a Go type share a payload.
func payloadsOf(registry *tasks.Registry) []*payload {
	var list []*payload
	known := make(map[reflect.Type]*payload)
	for _, def := range registry.All() {
		goType := reflect.TypeOf(def.NewPayload())
		p := known[goType]
		if p == nil {
			p = &payload{schema: schemaName(def.Name), fields: def.Fields()}
			if goType == reflect.TypeFor[*tasks.SyncPayload]() {
				p.schema = syncPayloadSchema
			}
			known[goType] = p
			list = append(list, p)
		}
		p.jobs = append(p.jobs, def.Name)
	}
	return list
}

// schemaName returns the name of the schema of a job type's payload, such as WelcomeMailPayload.
func schemaName(job string) string {
	var b strings.Builder
	for word := range strings.SplitSeq(job, "-") {
		b.WriteString(strings.ToUpper(word[:1]) + word[1:])
	}
	if b.String()+"Payload" == syncPayloadSchema {
		b.WriteString("Job")
	}
	return b.String() + "Payload"
}

func (p *payload) description() string {
	jobs := "`" + strings.Join(p.jobs, "`, `") + "`"
	if i := strings.LastIndex(jobs, ", "); i >= 0 {
		jobs = jobs[:i] + " and " + jobs[i+2:]
	}
	return "The payload of " + jobs + "."
}

// dataSchema names the schema of the payload in an answer. A body can have more fields, and for a sync less.
func (p *payload) dataSchema() string { return strings.TrimSuffix(p.schema, "Payload") + "Data" }

// required returns the fields that a body must have.
func (p *payload) required() (names []string) {
	for _, f := range p.fields {
		if f.Required {
			names = append(names, f.Name)
		}
	}
	return names
}

// describe returns a schema of the payload's fields, of which some are required, and of more beside them, with what their tags say.
func (p *payload) describe(description string, required []string, more ...tasks.Field) any {
	properties := ordered[any]{}
	for _, f := range slices.Concat(p.fields, more) {
		property := map[string]any{"description": "Must be " + f.Allowed + "."}
		if f.Type != "" {
			property["type"] = f.Type
		}
		if f.Options != nil {
			property["enum"] = append(slices.Clone(f.Options), "") // which stands for the default
		}
		if f.Default != nil {
			property["default"] = f.Default
		}
		properties = append(properties, member[any]{f.Name, property})
	}
	schema := ordered[any]{{"type", "object"}, {"description", description}}
	if len(required) > 0 {
		schema = append(schema, member[any]{"required", required})
	}
	return append(schema, member[any]{"properties", properties}, member[any]{"additionalProperties", false})
}

// withExamplesOf returns the shipped description with examples of the registry's job types: where it lacks a shipped one,
// another takes its place.
func withExamplesOf(registry *tasks.Registry) json.RawMessage {
	var replace []string
	all := registry.All()
	for i, written := range []struct{ name, title string }{
		{"user-sync", "User sync"}, {"project-sync", "Project sync"}, {"issue-sync", "Issue sync"},
	} {
		if _, ok := registry.Lookup(written.name); !ok {
			other := all[min(i, len(all)-1)]
			title := string(must(json.Marshal(other.Title)))
			replace = append(replace, written.name, other.Name, written.title, title[1:len(title)-1])
		}
	}
	if !slices.ContainsFunc(payloadsOf(registry), isSync) {
		replace = append(replace, `"data": {"syncType": "full"}`, `"data": {}`)
	}
	text := strings.NewReplacer(replace...).Replace(shippedOpenAPI)
	for _, def := range all { // with fewer job types than three a list of names has one twice
		name := `\"` + def.Name + `\"`
		for twice := name + " or " + name; strings.Contains(text, twice); {
			text = strings.ReplaceAll(text, twice, name)
		}
	}
	return json.RawMessage(text)
}

// set returns the JSON object with the value at the path; nil removes the member.
func set(object json.RawMessage, value any, path ...string) json.RawMessage {
	var members ordered[json.RawMessage]
	if err := json.Unmarshal(object, &members); err != nil {
		panic(err) // a programming error that every test would show
	}
	i := slices.IndexFunc(members, func(m member[json.RawMessage]) bool { return m.Name == path[0] })
	if i < 0 {
		i = len(members)
		members = append(members, member[json.RawMessage]{Name: path[0]})
	}
	switch {
	case len(path) > 1:
		members[i].Value = set(members[i].Value, value, path[1:]...)
	case value == nil:
		members = slices.Delete(members, i, i+1)
	default:
		members[i].Value = must(json.Marshal(value))
	}
	return must(json.Marshal(members))
}

// must is for the encoding of values that cannot fail to be encoded.
func must(data []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return data
}

func (s *Server) serveOpenAPI(c *gin.Context) {
	description := s.openAPI
	if prefix := prefixOf(c.Request); prefix != "" {
		description = set(description, []map[string]string{{"url": prefix}}, "servers")
	}
	c.Data(http.StatusOK, "application/json; charset=utf-8", description)
}
