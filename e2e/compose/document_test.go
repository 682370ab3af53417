package compose_test

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// block is a fenced block of docs/deploying.md: its language and name stand behind the fence.
type block struct{ language, text string }

// The blocks of docs/deploying.md that the test on an engine runs, and the file that it uses; users.acl is used by the
// tests of the processes, with servers of their own.
var documented = []string{
	"apply", "back-up-mongo", "back-up-mongo-files", "back-up-redis", "build", "docker-compose.tls.yml", "down",
	"look", "own-grafana", "reload",
	"remove", "restore-mongo", "restore-mongo-files", "restore-redis", "roll-back", "scale-down", "scale-up", "secrets", "secrets-settings", "unwatch", "up",
	"upgrade", "users.acl", "watch",
}

var fences = regexp.MustCompile("(?ms)^```([a-z]*) ?([^\n]*)\n(.*?)^```$")

// blocks returns the blocks by name.
func blocks(t *testing.T) map[string]block {
	t.Helper()
	found := make(map[string]block)
	for _, m := range fences.FindAllStringSubmatch(read(t, "docs/deploying.md"), -1) {
		b := block{m[1], m[3]}
		if m[2] == "" {
			t.Errorf("a block has no name and so is run by no test:\n%s", b.text)
		}
		if other, twice := found[m[2]]; twice && other != b {
			t.Errorf("two blocks are called %s", m[2])
		}
		found[m[2]] = b
	}
	return found
}

// Each block of the document is run by a test.
func TestEveryCommandOfTheDocumentIsRun(t *testing.T) {
	t.Parallel()
	if got := slices.Sorted(maps.Keys(blocks(t))); !slices.Equal(got, documented) {
		t.Errorf("the document has the blocks\n%q, the test\n%q", got, documented)
	}
}

// The file for TLS, which no engine runs, names services and settings that exist.
func TestDocumentedTLS(t *testing.T) {
	t.Parallel()
	var file struct{ Services map[string]service }
	if err := yaml.Unmarshal([]byte(blocks(t)["docker-compose.tls.yml"].text), &file); err != nil {
		t.Fatal(err)
	}
	api := file.Services["api"]
	if len(file.Services) != 1 || len(api.Environment) != 2 || !slices.Equal(api.Volumes, []string{"./tls:/tls:ro"}) {
		t.Errorf("got %+v", file)
	}
	for _, name := range []string{"TLS_CERT_FILE", "TLS_KEY_FILE"} {
		if !strings.HasPrefix(api.Environment[name], "/tls/") {
			t.Errorf("%s is %s", name, api.Environment[name])
		}
	}
}

// The document's tables name all variables of the Compose file that are not settings.
func TestDocumentNamesEveryVariable(t *testing.T) {
	t.Parallel()
	document := read(t, "docs/deploying.md")
	settings := services(t)["api"].Environment
	for _, m := range regexp.MustCompile(`\$\{([A-Z_]+):-([^}]*)\}`).FindAllStringSubmatch(read(t, "docker-compose.yml"), -1) {
		name, value := m[1], m[2]
		if settings[name] != "" && name != "PORT" {
			continue
		}
		rows := regexp.MustCompile("(?m)^\\| .*`"+name+"`.*\\|$").FindAllString(document, -1)
		if len(rows) != 1 || !strings.Contains(rows[0], "`"+value+"`") {
			t.Errorf("%s, which is %s by default, has the rows %q", name, value, rows)
		}
	}
}
