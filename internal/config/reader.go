// One call of read adds a setting to the list and returns its value. So the list that help texts and documents show is the
// list that is read.

package config

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
)

// The programs, by the names of their commands.
const (
	api       = "api"
	scheduler = "scheduler"
	worker    = "worker"
)

// Setting is one environment variable, as help texts and documents show it.
type Setting struct {
	// Name is the variable's name.
	Name string
	// Default is the value that applies when the variable is not set; "" when there is none.
	Default string
	// MustBe says in words which values are valid: the end of a sentence that begins with "must be".
	MustBe string
	// Purpose describes the setting.
	Purpose string
	// Theme is the title of a group of settings, which follow each other in the list.
	Theme string
	// Family is what the names of related settings begin with: the name of a job type, or else a setting's first word. It is ""
	// for settings whose names are not ours.
	Family string
	// Programs are the commands that use it, of api, scheduler and worker.
	Programs []string
}

// reader reads settings, and collects the list of them and all that is wrong with their values.
type reader struct {
	// get returns what a variable is set to.
	get      func(name string) string
	settings []Setting
	wrong    []error
}

// group is a reader of settings with the same theme and the same programs.
type group struct {
	*reader
	theme    string
	family   string // if it is not the first word of each name
	programs []string
}

func (r *reader) group(theme string, programs ...string) group { return group{r, theme, "", programs} }

// of returns the group for the settings of a job type.
func (g group) of(family string) group {
	g.family = family
	return g
}

// read returns the value of a setting, or else its default. It refuses an invalid value, and returns T's zero.
func read[T any](g group, name, byDefault string, f format[T], purpose string) (value T) {
	g.add(Setting{Name: name, Default: byDefault, MustBe: f.mustBe, Purpose: purpose})
	if set := lookUp(g, name, byDefault, f); set != nil {
		value = *set
	}
	return value
}

// readSet returns the value of a setting; nil when it is not set, or is refused.
func readSet[T any](g group, name, byDefault string, f format[T], purpose string) *T {
	g.add(Setting{Name: name, Default: byDefault, MustBe: f.mustBe, Purpose: purpose})
	return lookUp(g, name, "", f)
}

func (g group) add(s Setting) {
	s.Theme, s.Programs, s.Family = g.theme, g.programs, g.family
	if first, _, several := strings.Cut(s.Name, "_"); s.Family == "" && several && !isStandard(s.Name) {
		s.Family = first
	}
	g.settings = append(g.settings, s)
}

// lookUp returns the value of a setting, or else the fallback. It returns nil when there is neither, and for a value that it
// refuses.
func lookUp[T any](g group, name, fallback string, f format[T]) *T {
	text := g.text(name)
	if f.inFile {
		text = g.fromFile(name, text)
	}
	if text = cmp.Or(text, fallback); text == "" {
		return nil
	}
	value, err := f.parse(text)
	switch {
	case err == nil:
		return &value
	case f.secret:
		g.refuse("%s %w", name, err)
	default:
		g.refuse("%s %w, was %q", name, err, redactURI(text))
	}
	return nil
}

// text returns the value of a variable. Blanks count as not set.
func (r *reader) text(name string) string { return strings.TrimSpace(r.get(name)) }

// isSet reports whether any of the variables is set, even to an invalid value.
func (r *reader) isSet(names ...string) bool {
	return slices.ContainsFunc(names, func(name string) bool { return r.text(name) != "" })
}

func (r *reader) refuse(format string, args ...any) {
	r.wrong = append(r.wrong, fmt.Errorf(format, args...))
}

// refuseEach refuses for each line of the error.
func (r *reader) refuseEach(what string, err error) {
	for line := range strings.SplitSeq(err.Error(), "\n") {
		r.refuse("%s: %s", what, line)
	}
}

// fromFile adds the setting that names a file with the value of another one. It returns that value; without a file, the
// value that is set.
func (g group) fromFile(of, set string) string {
	name := of + "_FILE"
	file := read(g, name, "", path, "a file with the value of "+of+", to set instead of it")
	switch {
	case file == "":
		return set
	case set != "":
		g.refuse("%s and %s are both set; set one of them", of, name)
		return set
	}
	data, err := os.ReadFile(file)
	value := strings.TrimSpace(string(data))
	switch {
	case err != nil:
		g.refuse("%s: %w", name, err)
	case value == "":
		g.refuse("%s: %s is empty", name, file)
	}
	return value
}
