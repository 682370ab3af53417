// A setting whose name is misspelled would be ignored in silence. So the programs warn of what looks like one of their settings
// and is none.

package config

import (
	"os"
	"regexp"
	"slices"
	"strings"
)

// isStandard reports whether a setting has a name that others gave it: there are many more like it than ours.
func isStandard(name string) bool {
	return strings.HasPrefix(name, "OTEL_") || strings.HasSuffix(name, "_PROXY")
}

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
		if s.Family != "" {
			prefixes = append(prefixes, s.Family+"_")
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

// environmentNames returns the names of the variables in the environment.
func environmentNames() []string {
	var names []string
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(variable, "=")
		names = append(names, name)
	}
	return names
}
