package compose_test

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/codex-api/codex-jobs/internal/config"
	"github.com/codex-api/codex-jobs/pkg/tasks"
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
		if got, want := services(t)[name].Image, "codex-jobs-"+name+":${VERSION:-dev}"; got != want {
			t.Errorf("%s has the image %s, want %s", name, got, want)
		}
	}
}

// A setting in the environment or in .env reaches every deployable. The exceptions: the file itself sets where the servers
// are, an override file sets paths of secrets, only the API gets its own settings, and admin ports stay where Prometheus
// looks for them.
func TestEverySettingIsPassedOn(t *testing.T) {
	t.Parallel()
	servers := []string{"REDIS_HOST", "REDIS_PORT", "HOST", "PORT", "ADMIN_HOST"}
	for _, name := range deployables {
		environment := services(t)[name].Environment
		for _, s := range config.Settings(tasks.Default()) {
			value, ok := environment[s.Name]
			delete(environment, s.Name)
			switch {
			case s.MustBe == "the path of a file" || s.Name == "ADMIN_PORT" || name != "api" && slices.Equal(s.Programs, []string{"api"}):
				if ok {
					t.Errorf("%s is given %s", name, s.Name)
				}
			case slices.Contains(servers, s.Name):
				if value == "" || strings.Contains(value, "$") {
					t.Errorf("%s has %s=%s", name, s.Name, value)
				}
			case !strings.HasPrefix(value, "${"+s.Name+":-") || !strings.HasSuffix(value, "}"):
				t.Errorf("%s has %s=%s, which must be the value of the environment", name, s.Name, value)
			}
		}
		for other := range environment {
			t.Errorf("%s is given %s, which is no setting", name, other)
		}
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
