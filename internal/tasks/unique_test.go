package tasks_test

import (
	"encoding/json"
	"regexp"
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/internal/tasks"
)

func TestUniqueMustBeRight(t *testing.T) {
	t.Parallel()
	const month = 30 * 24 * time.Hour
	for _, test := range []struct {
		unique tasks.Unique
		err    string
	}{
		{tasks.Unique{}, ""},
		{tasks.Unique{Mode: tasks.UniqueNever}, ""},
		{tasks.Unique{Mode: tasks.UniqueFor, For: 1}, ""},
		{tasks.Unique{Mode: tasks.UniqueFor, For: month}, ""},
		{tasks.Unique{Mode: tasks.UniqueFor}, "the time of UniqueFor was 0s; it must be more than 0 and at most 720h0m0s"},
		{tasks.Unique{Mode: tasks.UniqueFor, For: -1}, "the time of UniqueFor was -1ns; it must be more than 0 and at most 720h0m0s"},
		{
			tasks.Unique{Mode: tasks.UniqueFor, For: month + 1},
			"the time of UniqueFor was 720h0m0.000000001s; it must be more than 0 and at most 720h0m0s",
		},
		{tasks.Unique{For: time.Hour}, "a time of Unique was set without the mode UniqueFor"},
		{tasks.Unique{Mode: tasks.UniqueNever, For: time.Hour}, "a time of Unique was set without the mode UniqueFor"},
		{tasks.Unique{Mode: -1}, "the mode of Unique was -1; it must be UniqueWaiting, UniqueFor or UniqueNever"},
		{tasks.Unique{Mode: 3}, "the mode of Unique was 3; it must be UniqueWaiting, UniqueFor or UniqueNever"},
	} {
		def := codex.UserSync
		def.Unique = test.unique
		got := ""
		if _, err := tasks.NewRegistry(def); err != nil {
			got = err.Error()
		}
		if want := test.err; want != "" && got != `job type "user-sync": `+want || want == "" && got != "" {
			t.Errorf("%+v: %q, want %q", test.unique, got, want)
		}
	}
}

// parcel is a payload whose unique key is made of all of it.
type parcel struct {
	To     string          `json:"to"`
	Weight float64         `json:"weight"`
	Serial int64           `json:"serial"`
	Speed  string          `json:"speed"`
	Notes  json.RawMessage `json:"notes,omitempty"`
	Tags   map[string]any  `json:"tags,omitempty"`
}

func (p *parcel) Validate() error {
	if p.Speed == "" {
		p.Speed = "slow"
	}
	return nil
}

func TestUniqueKeyOfATypedPayload(t *testing.T) {
	t.Parallel()
	decode := func(body string) *tasks.TypedPayload[parcel] {
		t.Helper()
		p := new(tasks.TypedPayload[parcel])
		if err := tasks.Decode([]byte(body), p); err != nil {
			t.Fatal(err)
		}
		return p
	}
	for _, test := range []struct {
		name, a, b string
		same       bool
	}{
		{"the order of fields", `{"to":"a","weight":1}`, `{"weight":1,"to":"a"}`, true},
		{"a default", `{"to":"a"}`, `{"to":"a","speed":"slow"}`, true},
		{"another value", `{"to":"a"}`, `{"to":"b"}`, false},
		{"another value than the default", `{"to":"a"}`, `{"to":"a","speed":"fast"}`, false},
		{"large whole numbers", `{"serial":9007199254740992}`, `{"serial":9007199254740993}`, false},
		{"the order of fields inside", `{"notes":{"x":1,"y":[2]}}`, `{"notes":{"y":[2],"x":1}}`, true},
		{"the order of fields of a map", `{"tags":{"p":1,"q":2}}`, `{"tags":{"q":2,"p":1}}`, true},
		{"the order of a list", `{"notes":[1,2]}`, `{"notes":[2,1]}`, false},
		{"white space inside", `{"notes":{ "x" : 1 }}`, `{"notes":{"x":1}}`, true},
		{"large whole numbers inside", `{"notes":9007199254740992}`, `{"notes":9007199254740993}`, false},
		{"a number and a text", `{"notes":1}`, `{"notes":"1"}`, false},
	} {
		if a, b := decode(test.a).UniqueKey(), decode(test.b).UniqueKey(); (a == b) != test.same {
			t.Errorf("%s: %s and %s", test.name, a, b)
		}
	}
	p := decode(`{"to":"a"}`)
	if key := p.UniqueKey(); !regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(key) {
		t.Errorf("the key is %q", key)
	}
	// Two releases, and two programs, must agree on it.
	if key, want := p.UniqueKey(), "abaf"; key[:4] != want {
		t.Errorf("the key begins with %s, want %s", key[:4], want)
	}
}
