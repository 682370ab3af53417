package config_test

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/codex-api/codex-jobs/internal/config"
	"github.com/codex-api/codex-jobs/pkg/tasks"
)

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// The README has one row for each setting, with its default, and none for what is no setting.
func TestReadmeListsEverySetting(t *testing.T) {
	t.Parallel()
	readme := read(t, "../../README.md")
	rows := regexp.MustCompile("(?m)^\\| *`([A-Z_]+)` *\\| *(.*?) *\\|(.*)\\|$").FindAllStringSubmatch(readme, -1)
	defaults := make(map[string]string)
	for _, row := range rows {
		if _, twice := defaults[row[1]]; twice {
			t.Errorf("%s has two rows", row[1])
		}
		defaults[row[1]] = row[2]
		if strings.TrimSpace(row[3]) == "" {
			t.Errorf("%s has no purpose", row[1])
		}
	}
	for _, s := range config.Settings(tasks.Default()) {
		want := "-"
		if s.Default != "" {
			want = "`" + s.Default + "`"
		}
		if got, ok := defaults[s.Name]; !ok {
			t.Errorf("%s has no row, | `%s` | %s | %s |", s.Name, s.Name, want, s.Purpose)
		} else if got != want {
			t.Errorf("the default of %s is %s, want %s", s.Name, got, want)
		}
		delete(defaults, s.Name)
	}
	for name := range defaults {
		t.Errorf("%s is no setting", name)
	}
}

// The example file names each setting once: with its default, or as a comment where there is none.
func TestEnvExampleListsEverySetting(t *testing.T) {
	example := read(t, "../../.env.example")
	lines := regexp.MustCompile(`(?m)^(?:# ?)?([A-Z]+(?:_[A-Z]+)*)=(.*)$`).FindAllStringSubmatch(example, -1)
	named := make(map[string]int)
	for _, line := range lines {
		named[line[1]]++
	}
	for _, s := range config.Settings(tasks.Default()) {
		if named[s.Name] != 1 {
			t.Errorf("%s is named %d times, want once", s.Name, named[s.Name])
		}
		delete(named, s.Name)
		want := regexp.MustCompile(`(?m)^` + s.Name + `=` + regexp.QuoteMeta(s.Default) + `( +#.*)?$`)
		if !want.MatchString(example) && !regexp.MustCompile(`(?m)^# ?`+s.Name+`=`).MatchString(example) {
			t.Errorf("neither %s=%s nor # %s= is there", s.Name, s.Default, s.Name)
		}
	}
	for name := range named {
		t.Errorf("%s is no setting", name)
	}

	// Copying it changes nothing.
	setup(t, "")
	want, wantDefinitions := comparable(load(t))
	setup(t, example)
	got, definitions := comparable(load(t))
	if !reflect.DeepEqual(got, want) || !reflect.DeepEqual(definitions, wantDefinitions) {
		t.Errorf("got %+v %+v, want %+v %+v", got, definitions, want, wantDefinitions)
	}
}
