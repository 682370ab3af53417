// A setting whose name is misspelled would be ignored in silence. So the programs warn of what looks like one of their settings
// and is none.

package config

import (
	"os"
	"regexp"
	"slices"
	"strings"
)

// standard begins the names of OpenTelemetry's settings, of which there are many more than ours.
const standard = "OTEL_"

var (
	// composeOwn are variables that docker-compose.yml reads itself, from the same .env.
	composeOwn = []string{"BASE_IMAGE", "REDIS_IMAGE", "WORKER_CPUS", "WORKER_MEMORY"}
	// injected matches what Kubernetes sets in each container for each Service.
	injected = regexp.MustCompile(`_SERVICE_HOST$|_SERVICE_PORT|_PORT$|_PORT_`)
)

// unknown returns those of the names that begin as a setting does, and are none.
func unknown(settings []Setting, names []string) []string {
	var prefixes, known []string
	for _, s := range settings {
		known = append(known, s.Name)
		if first, _, several := strings.Cut(s.Name, "_"); several && s.Name[:len(first)+1] != standard {
			prefixes = append(prefixes, s.prefix())
		}
	}
	known = append(known, composeOwn...)
	var list []string
	for _, name := range names {
		isOurs := func(prefix string) bool { return strings.HasPrefix(name, prefix) }
		if slices.ContainsFunc(prefixes, isOurs) && !slices.Contains(known, name) && !injected.MatchString(name) {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// prefix returns what the names of the setting's family begin with: the name of its job type, or else its first word.
func (s Setting) prefix() string {
	if s.Theme == schedulesTheme {
		return s.Name[:strings.LastIndex(s.Name, "_")+1]
	}
	first, _, _ := strings.Cut(s.Name, "_")
	return first + "_"
}

// environmentNames returns the names of the variables in the environment.
func environmentNames() []string {
	var names []string
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(variable, "=")
		names = append(names, name)
	}
	return names
}
