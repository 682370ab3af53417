package tasks_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/internal/tasks"
)

func TestDecodeSyncPayload(t *testing.T) {
	t.Parallel()
	number := func(n int) *int { return &n }
	for body, want := range map[string]tasks.SyncPayload{
		"":                            {SyncType: "incremental"},
		" \n\t":                       {SyncType: "incremental"},
		"{}":                          {SyncType: "incremental"},
		"\n { } \n":                   {SyncType: "incremental"},
		`{"syncType": ""}`:            {SyncType: "incremental"},
		`{"syncType": "incremental"}`: {SyncType: "incremental"},
		`{"syncType": "full"}`:        {SyncType: "full"},
		`{"syncType": "\u0066ull"}`:   {SyncType: "full"},
		`{"batchSize": 1}`:            {SyncType: "incremental", BatchSize: number(1)},
		`{"batchSize": 10000, "syncType": "full"}`: {SyncType: "full", BatchSize: number(10000)},
	} {
		got := new(tasks.SyncPayload)
		if err := tasks.Decode([]byte(body), got); err != nil {
			t.Errorf("%q: %v", body, err)
			continue
		}
		if got.SyncType != want.SyncType || (got.BatchSize == nil) != (want.BatchSize == nil) || got.BatchSize != nil && *got.BatchSize != *want.BatchSize {
			t.Errorf("%q: %+v, want %+v", body, got, want)
		}
		if got.UniqueKey() != want.SyncType {
			t.Errorf("%q: its unique key is %q", body, got.UniqueKey())
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	const (
		syncType  = `; it must be "incremental" or "full"`
		batchSize = "; it must be a whole number from 1 to 10000"
	)
	for body, want := range map[string]string{
		`{"syncType": "both"}`:             `syncType was "both"` + syncType,
		`{"syncType": "<b>&"}`:             `syncType was "<b>&"` + syncType,
		`{"syncType": 1}`:                  `syncType was 1` + syncType,
		`{"syncType": null}`:               `syncType was null` + syncType,
		`{"syncType": ["full"]}`:           `syncType was ["full"]` + syncType,
		`{"batchSize": 0}`:                 `batchSize was 0` + batchSize,
		`{"batchSize": 10001}`:             `batchSize was 10001` + batchSize,
		`{"batchSize": 1.5}`:               `batchSize was 1.5` + batchSize,
		`{"batchSize": 1e-1}`:              `batchSize was 1e-1` + batchSize,
		`{"batchSize": 2e4}`:               `batchSize was 20000` + batchSize,
		`{"batchSize": "1.0"}`:             `batchSize was "1.0"` + batchSize,
		`{"batchSize": 1, "batchSize": 1}`: `the field "batchSize" was given more than once; it must be given once`,
		`{"batchSize": 1e400}`:             `batchSize was 1e400` + batchSize,
		`{"batchSize": "1"}`:               `batchSize was "1"` + batchSize,
		`{"batchSize": true}`:              `batchSize was true` + batchSize,
		`{"batchSize": null}`:              `batchSize was null` + batchSize,
		`{"BatchSize": 1}`:                 `the field "BatchSize" was not known; it must be "syncType" ("incremental" or "full") or "batchSize" (a whole number from 1 to 10000)`,
		`[]`:                               `the body was a JSON array; it must be a JSON object`,
		`"full"`:                           `the body was a JSON string; it must be a JSON object`,
		` 7`:                               `the body was a JSON number; it must be a JSON object`,
		`false`:                            `the body was a JSON boolean; it must be a JSON object`,
		`null`:                             `the body was null; it must be a JSON object`,
		`{"syncType"`:                      `the body was not valid JSON: it ends too early; it must be a JSON object`,
		`{} {}`:                            `the body was more than one JSON value; it must be one JSON object`,
		`{} x`:                             `the body was more than one JSON value; it must be one JSON object`,
		`{syncType: full}`:                 `the body was not valid JSON: invalid character 's' looking for beginning of object key string; it must be a JSON object`,
		"{\"syncType\": \"\xff\"}":         `the body was not valid UTF-8; it must be a JSON object in UTF-8`,
	} {
		err := tasks.Decode([]byte(body), new(tasks.SyncPayload))
		if err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", body, err, want)
		}
	}
}

// What a client sends comes back in messages, but not all of it.
func TestDecodeAbbreviates(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ß", 10_000)
	for _, body := range []string{
		`{"syncType": "` + long + `"}`, `{"batchSize": "` + long + `"}`, `{"` + long + `": 1}`, `{"batchSize": ` + strings.Repeat("9", 10_000) + `}`,
	} {
		err := tasks.Decode([]byte(body), new(tasks.SyncPayload))
		if err == nil || len(err.Error()) > 400 || !strings.Contains(err.Error(), "…") {
			t.Errorf("%.30s: %v", body, err)
		}
	}
}

// nested is a payload with objects in it.
type nested struct {
	Mail  struct{ To string } `json:"mail" allowed:"an object with a receiver"`
	Extra map[string]any      `json:"extra" allowed:"an object"`
	Sizes []int               `json:"sizes" allowed:"a list of whole numbers"`
}

// What a payload has inside is read as strictly as the payload itself.
func TestDecodeInside(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		`{"mail": {"to": "a"}, "extra": {"a": {"b": 1}, "b": [{"a": 1}, {"a": 1}]}}`: "",
		`{"mail": {"To": "a", "cc": "b"}}`:                                           `mail was {"To": "a", "cc": "b"}; it must be an object with a receiver`,
		`{"mail": {"to": "a", "to": "b"}}`:                                           `the field "to" was given more than once; it must be given once`,
		`{"extra": {"a": [1, {"b": 1, "b": 2}]}}`:                                    `the field "b" was given more than once; it must be given once`,
		`{"extra": {"a": 1, "\u0061": 2}}`:                                           `the field "a" was given more than once; it must be given once`,
	} {
		err := tasks.Decode([]byte(body), new(nested))
		if err == nil && want != "" || err != nil && err.Error() != want {
			t.Errorf("%s: %v, want %s", body, err, want)
		}
	}
}

// To JSON Schema, and so to the description of the API, 100.0 and 1e2 are integers.
func TestDecodeWholeNumbers(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{"100": 100, "100.0": 100, "1e2": 100, "1E+2": 100, "1000e-1": 100, "1.0": 1, "0.0": 0} {
		var p struct {
			Size int `json:"size" allowed:"a whole number"`
		}
		if err := tasks.Decode([]byte(`{"size": `+text+`}`), &p); err != nil || p.Size != want {
			t.Errorf("%s: %d, %v", text, p.Size, err)
		}
	}
}

// alone is a payload without fields.
type alone struct{}

func TestDecodeWithoutFields(t *testing.T) {
	t.Parallel()
	if err := tasks.Decode([]byte("{}"), new(alone)); err != nil {
		t.Error(err)
	}
	err := tasks.Decode([]byte(`{"a": 1}`), new(alone))
	if want := `the field "a" was not known; it must be left out: this body has no fields`; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestFieldErrorIsFound(t *testing.T) {
	t.Parallel()
	for body, field := range map[string]string{`{"batchSize": 0}`: "batchSize", `{"syncType": 1}`: "syncType"} {
		var wrong *tasks.FieldError
		if err := tasks.Decode([]byte(body), new(tasks.SyncPayload)); !errors.As(err, &wrong) || wrong.Field != field || wrong.Allowed == "" {
			t.Errorf("%s: %+v", body, wrong)
		}
	}
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		value any
		want  string
	}{
		{"a<b>&", `"a<b>&"`}, {`say "x"`, `"say \"x\""`}, {"two\nlines", `"two\nlines"`}, {1.5, "1.5"}, {-3, "-3"}, {nil, "null"}, {true, "true"},
		{func() {}, "not representable"}, {strings.Repeat("x", 59), `"` + strings.Repeat("x", 59) + "…"},
	} {
		if got := tasks.Describe(test.value); got != test.want {
			t.Errorf("%v: %s, want %s", test.value, got, test.want)
		}
	}
}

func ExampleDecode() {
	for _, body := range []string{
		`{"syncType": "full", "batchSize": 500}`, ``, `{"syncType": "some"}`, `{"batchSize": "many"}`, `{"size": 1}`,
	} {
		payload := new(tasks.SyncPayload)
		if err := tasks.Decode([]byte(body), payload); err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println("a", payload.SyncType, "sync")
	}
	// Output:
	// a full sync
	// a incremental sync
	// syncType was "some"; it must be "incremental" or "full"
	// batchSize was "many"; it must be a whole number from 1 to 10000
	// the field "size" was not known; it must be "syncType" ("incremental" or "full") or "batchSize" (a whole number from 1 to 10000)
}

// varied is a payload with a field of each JSON type.
type varied struct {
	Text    string          `json:"text" allowed:"some text"`
	Count   *uint16         `json:"count" allowed:"a count"`
	Share   float64         `json:"share" allowed:"a share"`
	Wanted  bool            `json:"wanted,omitempty" allowed:"true or false"`
	Names   []string        `json:"names" allowed:"names"`
	Bytes   []byte          `json:"bytes" allowed:"base64"`
	Headers map[string]int  `json:"headers" allowed:"headers"`
	Address struct{ A int } `json:"address" allowed:"an address"`
	At      time.Time       `json:"at" allowed:"an instant"`
	Level   slog.LevelVar   `json:"level" allowed:"a level"`
	Any     any             `json:"any" allowed:"anything"`
	Hidden  int             `json:"-"`
}

func (*varied) UniqueKey() string { return "" }
func (*varied) Validate() error   { return nil }

func TestFields(t *testing.T) {
	t.Parallel()
	var types, allowed []string
	for _, f := range (tasks.Definition{NewPayload: func() tasks.Payload { return new(varied) }}).Fields() {
		types = append(types, f.Name+":"+f.Type)
		allowed = append(allowed, f.Allowed)
	}
	want := "text:string count:integer share:number wanted:boolean names:array bytes:string headers:object address:object at: level:string any:"
	if got := strings.Join(types, " "); got != want {
		t.Errorf("the fields are %s, want %s", got, want)
	}
	if allowed[0] != "some text" || allowed[10] != "anything" {
		t.Errorf("they must be %q", allowed)
	}
}

// marked is a payload whose tags say more than what its fields are.
type marked struct {
	To       string  `json:"to" allowed:"an address" required:"true"`
	Language string  `json:"language" options:"en,nl"`
	Tone     *string `json:"tone" allowed:"how to greet" options:"warm,cold"`
	Copies   int     `json:"copies"`
	Urgent   bool    `json:"urgent"`
}

func (*marked) UniqueKey() string { return "" }
func (m *marked) Validate() error {
	if m.Language == "" {
		m.Language = "en"
	}
	if m.Copies == 0 {
		m.Copies = 2
	}
	if m.To == "" {
		return errors.New("to was empty")
	}
	return nil
}

func TestFieldsSayWhatTagsAndDefaultsSay(t *testing.T) {
	t.Parallel()
	got := (tasks.Definition{NewPayload: func() tasks.Payload { return new(marked) }}).Fields()
	want := []tasks.Field{
		{Name: "to", Type: "string", Allowed: "an address", Required: true},
		{Name: "language", Type: "string", Allowed: `"en" or "nl"`, Options: []string{"en", "nl"}, Default: json.RawMessage(`"en"`)},
		{Name: "tone", Type: "string", Allowed: "how to greet", Options: []string{"warm", "cold"}},
		{Name: "copies", Type: "integer", Allowed: "a whole number", Default: json.RawMessage("2")},
		{Name: "urgent", Type: "boolean", Allowed: "true or false"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v, want\n%+v", got, want)
	}
	sync := (tasks.Definition{NewPayload: func() tasks.Payload { return new(tasks.SyncPayload) }}).Fields()
	if want := []tasks.Field{
		{Name: "syncType", Type: "string", Allowed: `"incremental" or "full"`, Options: []string{"incremental", "full"}, Default: json.RawMessage(`"incremental"`)},
		{Name: "batchSize", Type: "integer", Allowed: "a whole number from 1 to 10000"},
	}; !reflect.DeepEqual(sync, want) {
		t.Errorf("of a sync:\n%+v, want\n%+v", sync, want)
	}
}

func TestDecodeKeepsToTheTags(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		`{"to": "a"}`: "",
		`{"to": "a", "language": "nl", "tone": "cold"}`: "",
		`{"to": "a", "language": "", "tone": ""}`:       "", // Validate decides
		`{}`:                            "to was missing; it must be an address",
		``:                              "to was missing; it must be an address",
		`{"to": ""}`:                    "to was empty",
		`{"to": "a", "language": "de"}`: `language was "de"; it must be "en" or "nl"`,
		`{"to": "a", "tone": "Warm"}`:   `tone was "Warm"; it must be how to greet`,
	} {
		err := tasks.Decode([]byte(body), new(marked))
		if err == nil && want != "" || err != nil && err.Error() != want {
			t.Errorf("%s: %v, want %s", body, err, want)
		}
	}
}

// careless is a payload whose Validate cannot bear an empty one.
type careless struct {
	Size *int `json:"size" required:"true"`
}

func (*careless) UniqueKey() string { return "" }
func (c *careless) Validate() error {
	*c.Size++
	return nil
}

func TestFieldsOfACarelessPayload(t *testing.T) {
	t.Parallel()
	got := (tasks.Definition{NewPayload: func() tasks.Payload { return new(careless) }}).Fields()
	if want := []tasks.Field{{Name: "size", Type: "integer", Allowed: "a whole number", Required: true}}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
