package compose_test

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/internal/config"
)

const root = "../.."

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(root + "/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// service has the fields of a service in docker-compose.yml that the tests check.
type service struct {
	Image, Restart  string
	Environment     map[string]string
	Ports           []string
	Volumes         []string
	ReadOnly        bool              `yaml:"read_only"`
	SecurityOpt     []string          `yaml:"security_opt"`
	CapDrop         []string          `yaml:"cap_drop"`
	StopGracePeriod string            `yaml:"stop_grace_period"`
	MemLimit        string            `yaml:"mem_limit"`
	CPUs            string            `yaml:"cpus"`
	Profiles        []string          `yaml:"profiles"`
	Healthcheck     map[string]any    `yaml:"healthcheck"`
	Build           map[string]any    `yaml:"build"`
	Logging         map[string]any    `yaml:"logging"`
	DependsOn       map[string]waited `yaml:"depends_on"`
	WorkingDir      string            `yaml:"working_dir"`
	Secrets         []secret          `yaml:"secrets"`
}

// secret is a file that a container gets. The file's short form is only a source.
type secret struct{ Source, Target string }

func (s *secret) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind == yaml.ScalarNode {
		return node.Decode(&s.Source)
	}
	type long secret
	return node.Decode((*long)(s))
}

type waited struct{ Condition string }

var deployables = []string{"api", "scheduler", "worker"}

// watchers are of the profile observability.
var watchers = []string{"grafana", "prometheus"}

func services(t *testing.T) map[string]service {
	t.Helper()
	var file struct{ Services map[string]service }
	if err := yaml.Unmarshal([]byte(read(t, "docker-compose.yml")), &file); err != nil {
		t.Fatal(err)
	}
	want := slices.Sorted(slices.Values(slices.Concat(deployables, watchers, []string{"mongo", "redis"})))
	if got := slices.Sorted(maps.Keys(file.Services)); !slices.Equal(got, want) {
		t.Fatalf("services %q, want %q", got, want)
	}
	return file.Services
}

func TestEveryServiceIsContained(t *testing.T) {
	t.Parallel()
	for name, s := range services(t) {
		if !s.ReadOnly || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s may write to its file system or get more privileges", name)
		}
		if s.MemLimit == "" || s.CPUs == "" || s.StopGracePeriod == "" || s.Restart != "unless-stopped" || s.Logging == nil {
			t.Errorf("%s misses a limit, a grace period, a restart policy or the log's rotation: %+v", name, s)
		}
		if published := name == "api" || slices.Contains(watchers, name); published != (len(s.Ports) == 1) ||
			published && !strings.HasPrefix(s.Ports[0], "127.0.0.1:") {
			t.Errorf("%s publishes %q", name, s.Ports)
		}
		if optional := slices.Contains(watchers, name); optional != slices.Equal(s.Profiles, []string{"observability"}) {
			t.Errorf("%s is of the profiles %q", name, s.Profiles)
		}
	}
	for _, name := range slices.Concat(deployables, watchers) {
		if !slices.Equal(services(t)[name].CapDrop, []string{"ALL"}) {
			t.Errorf("%s has capabilities", name)
		}
	}
	for _, name := range deployables {
		s := services(t)[name]
		for _, server := range []string{"redis", "mongo"} {
			if s.DependsOn[server].Condition != "service_healthy" {
				t.Errorf("%s does not wait for %s", name, server)
			}
		}
		if s.Build["target"] != name || s.Volumes != nil {
			t.Errorf("%s: %+v", name, s)
		}
	}
	for name, server := range services(t) {
		if !slices.Contains(deployables, name) && (server.Healthcheck == nil || len(server.Volumes) == 0 || server.Build != nil) {
			t.Errorf("%s has no health check or no volume: %+v", name, server)
		}
	}
}

// The tests have the build tags of what is shipped.
func TestBuildTags(t *testing.T) {
	t.Parallel()
	shipped := regexp.MustCompile(`-tags=(\S+)"`).FindStringSubmatch(read(t, "Dockerfile"))
	tested := regexp.MustCompile(`(?m)^TAGS\s*:= (\S+)$`).FindStringSubmatch(read(t, "Makefile"))
	if shipped == nil || tested == nil || shipped[1] != tested[1] {
		t.Errorf("the Dockerfile's tags are %q, the Makefile's %q", shipped, tested)
	}
}

// Images are pinned, to the same versions in all files.
func TestImagesArePinned(t *testing.T) {
	t.Parallel()
	images := make(map[string]string) // defaults
	for _, s := range services(t) {
		images[s.Image] = ""
	}
	for _, text := range []string{read(t, "docker-compose.yml"), read(t, "Dockerfile")} {
		for _, m := range regexp.MustCompile(`(?:ARG|\$\{)\s*([A-Z]+_IMAGE)(?:=|:-)([^}\s]+)`).FindAllStringSubmatch(text, -1) {
			if other, twice := images[m[1]]; twice && other != m[2] {
				t.Errorf("%s is %s here and %s there", m[1], other, m[2])
			}
			images[m[1]] = m[2]
		}
	}
	for _, name := range []string{"GO_IMAGE", "BASE_IMAGE", "REDIS_IMAGE", "MONGO_IMAGE", "PROMETHEUS_IMAGE", "GRAFANA_IMAGE"} {
		if image := images[name]; !regexp.MustCompile(`^[a-z0-9./-]+:[a-z0-9.-]+$`).MatchString(image) || strings.HasSuffix(image, ":latest") {
			t.Errorf("%s is %q, which is not pinned", name, image)
		}
	}
	var workflow struct {
		Jobs map[string]struct{ Services map[string]service }
	}
	if err := yaml.Unmarshal([]byte(read(t, ".github/workflows/ci.yml")), &workflow); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"redis", "mongo"} {
		if got, want := workflow.Jobs["test-services"].Services[name].Image, images[strings.ToUpper(name)+"_IMAGE"]; got != want {
			t.Errorf("the workflow tests with %q, want %s", got, want)
		}
	}
	for _, name := range []string{"GO_IMAGE", "BASE_IMAGE", "REDIS_IMAGE", "MONGO_IMAGE", "PROMETHEUS_IMAGE"} {
		if !strings.Contains(read(t, ".ci/run"), images[name]) {
			t.Errorf(".ci/run does not prepare %s, %s", name, images[name])
		}
	}
	for _, name := range deployables {
		if got, want := services(t)[name].Image, "${IMAGES:-codex-jobs}-"+name+":${VERSION:-dev}"; got != want {
			t.Errorf("%s has the image %s, want %s", name, got, want)
		}
	}
}

// A setting in the environment or in .env reaches the programs that use it, and so does a file that it names. What
// docker-compose.yml sets itself, and what has another default there, .env.example says.
func TestEverySettingIsPassedOn(t *testing.T) {
	t.Parallel()
	var file struct {
		Secrets map[string]struct{ File string }
	}
	if err := yaml.Unmarshal([]byte(read(t, "docker-compose.yml")), &file); err != nil {
		t.Fatal(err)
	}
	example := read(t, ".env.example")
	note := func(s config.Setting) string {
		before, _, _ := strings.Cut(example, "\n# "+s.Name+"=")
		return before[strings.LastIndex(before, "\n")+1:]
	}
	own := []string{"HOST", "PORT", "ADMIN_HOST"}
	otherDefault := map[string]string{"REDIS_HOST": "redis", "MONGODB_URI": "mongodb://mongo:27017", "AUTH_DISABLED": "unless-keys"}
	for _, name := range deployables {
		service := services(t)[name]
		if service.WorkingDir != "/run/secrets" {
			t.Errorf("%s works in %s, where the paths of secrets do not lead to them", name, service.WorkingDir)
		}
		for _, s := range config.Settings(codex.Registry()) {
			value, ok := service.Environment[s.Name]
			delete(service.Environment, s.Name)
			source := strings.ToLower(s.Name)
			mounted := slices.Contains(service.Secrets, secret{source, "${" + s.Name + ":-" + source + "}"})
			switch {
			case name != "api" && slices.Equal(s.Programs, []string{"api"}):
				if ok || mounted {
					t.Errorf("%s is given %s", name, s.Name)
				}
			case s.Name == "ADMIN_PORT":
				if ok || !strings.Contains(note(s), "With Docker Compose it is the default") {
					t.Errorf("%s is given %s, or .env.example says %s", name, s.Name, note(s))
				}
			case slices.Contains(own, s.Name):
				if value == "" || strings.Contains(value, "$") || !strings.Contains(note(s), "With Docker Compose it is ") {
					t.Errorf("%s has %s=%s, and .env.example says %s", name, s.Name, value, note(s))
				}
			case value != "${"+s.Name+":-"+otherDefault[s.Name]+"}":
				t.Errorf("%s has %s=%s, which must be the value of the environment", name, s.Name, value)
			case s.MustBe == "the path of a file":
				if !mounted || file.Secrets[source].File != "${"+s.Name+":-./deploy/no-secret}" || !strings.Contains(note(s), "as a secret") {
					t.Errorf("%s does not get the file of %s, or .env.example says %s", name, s.Name, note(s))
				}
			case otherDefault[s.Name] != "":
				if want := "# The default is " + s.Default + ", with Docker Compose " + otherDefault[s.Name] + "."; note(s) != want ||
					!strings.Contains(example, "\n# "+s.Name+"=\n") {
					t.Errorf("of %s .env.example says %s, want %s and no value", s.Name, note(s), want)
				}
			}
		}
		for other := range service.Environment {
			t.Errorf("%s is given %s, which is no setting", name, other)
		}
	}
}

// A health check starts a process: none may be frequent.
func TestHealthChecksAreSeldom(t *testing.T) {
	t.Parallel()
	for name, s := range services(t) {
		least := 30 * time.Second
		if name == "redis" || name == "mongo" { // the others wait for these
			least = 10 * time.Second
		}
		text, _ := s.Healthcheck["interval"].(string)
		text = strings.TrimSuffix(strings.TrimPrefix(text, "${HEALTH_INTERVAL:-"), "}")
		if interval, err := time.ParseDuration(text); err != nil || interval < least {
			t.Errorf("%s is asked every %q, want %s or more (%v)", name, text, least, err)
		}
	}
	if checks := regexp.MustCompile(`HEALTHCHECK --interval=30s `).FindAllString(read(t, "Dockerfile"), -1); len(checks) != len(deployables) {
		t.Errorf("of the images, %d are asked every 30 s", len(checks))
	}
}

// The API needs no keys, because only this machine reaches it. As soon as keys are set, it needs them.
func TestAPINeedsNoKeysOnThisMachineOnly(t *testing.T) {
	t.Parallel()
	api := services(t)["api"]
	if len(api.Ports) != 1 || !strings.HasPrefix(api.Ports[0], "127.0.0.1:") || api.Environment["AUTH_DISABLED"] != "${AUTH_DISABLED:-unless-keys}" {
		t.Errorf("the API publishes %q with AUTH_DISABLED=%s", api.Ports, api.Environment["AUTH_DISABLED"])
	}
}

func TestRedisKeepsEverything(t *testing.T) {
	t.Parallel()
	compose := read(t, "docker-compose.yml")
	for _, option := range []string{`--appendonly, "yes"`, "--maxmemory-policy, noeviction"} {
		if !strings.Contains(compose, option) {
			t.Errorf("redis is not started with %s", option)
		}
	}
}
