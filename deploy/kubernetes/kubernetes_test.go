// Package kubernetes_test compares the manifests in this folder with the product: each variable that they set is a setting,
// each program starts with them, and each metric that they ask Prometheus for exists. devstack/kubernetes checks that they
// are right for Kubernetes.
package kubernetes_test

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/internal/config"
)

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// container is the part of a Deployment that describes its only container.
type container struct {
	Env   []struct{ Name, Value string }
	Ports []struct {
		Name          string
		ContainerPort int `yaml:"containerPort"`
	}
}

// containerIn returns the container of the Deployment that a file begins with.
func containerIn(t *testing.T, file string) container {
	t.Helper()
	var deployment struct {
		Spec struct {
			Template struct {
				Spec struct{ Containers []container }
			}
		}
	}
	if err := yaml.Unmarshal([]byte(read(t, file)), &deployment); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	if len(deployment.Spec.Template.Spec.Containers) != 1 {
		t.Fatalf("%s has the containers %+v", file, deployment.Spec.Template.Spec.Containers)
	}
	return deployment.Spec.Template.Spec.Containers[0]
}

// settings returns the settings of a program's pod, from settings.env, pod.yaml and its own file.
func settings(t *testing.T, program string) map[string]string {
	t.Helper()
	set := make(map[string]string)
	for line := range strings.Lines(read(t, "base/settings.env")) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(name, "#") {
			set[name] = value
		}
	}
	for _, file := range []string{"base/pod.yaml", "base/" + program + ".yaml"} {
		for _, env := range containerIn(t, file).Env {
			set[env.Name] = env.Value
		}
	}
	return set
}

var programs = []string{"api", "scheduler", "worker"}

func TestSettingsExist(t *testing.T) {
	t.Parallel()
	var names []string
	for _, s := range config.Settings(codex.Registry()) {
		names = append(names, s.Name)
	}
	for _, program := range programs {
		for _, name := range slices.Sorted(maps.Keys(settings(t, program))) {
			if !slices.Contains(names, name) {
				t.Errorf("%s: %s is no setting", program, name)
			}
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^ +- ([A-Z_]+)=`).FindAllStringSubmatch(read(t, "example/kustomization.yaml"), -1) {
		if !slices.Contains(names, m[1]) {
			t.Errorf("the example: %s is no setting", m[1])
		}
	}
}

// The programs accept the settings of their pods, with the secrets as files, and the API asks for keys.
func TestProgramsStart(t *testing.T) {
	secrets := map[string]string{
		"REDIS_PASSWORD": "secret", "MONGODB_URI": "mongodb://mongo.example:27017", "API_KEYS": "ops:write:0123456789abcdef\n",
	}
	dir := t.TempDir()
	for name, value := range secrets {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(value), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, program := range programs {
		t.Run(program, func(t *testing.T) {
			given := settings(t, program)
			t.Chdir(t.TempDir()) // which has no .env
			for _, s := range config.Settings(codex.Registry()) {
				t.Setenv(s.Name, "") // which counts as not set
			}
			for name, value := range given {
				t.Setenv(name, strings.Replace(value, "/etc/codex-jobs", dir, 1))
			}
			c, err := config.Load(codex.Registry())
			if err != nil {
				t.Fatal(err)
			}
			if c.Redis.Password != secrets["REDIS_PASSWORD"] {
				t.Error("the password of Redis is not the secret's")
			}
			if program == "api" && (c.HTTP.AuthDisabled || !slices.Equal(c.HTTP.Keys.Names(), []string{"ops (write)"})) {
				t.Errorf("the API takes the keys %q", c.HTTP.Keys.Names())
			}
			if program != "scheduler" && c.MongoDB.URI != secrets["MONGODB_URI"] {
				t.Errorf("MongoDB is %s", c.MongoDB.URI)
			}
		})
	}
}

// The ports are the programs' default ports.
func TestPorts(t *testing.T) {
	t.Parallel()
	for program, want := range map[string]map[string]int{
		"api":       {"http": 4000, "admin": config.AdminPortAPI},
		"scheduler": {"admin": config.AdminPortScheduler},
		"worker":    {"admin": config.AdminPortWorker},
	} {
		got := make(map[string]int)
		for _, port := range containerIn(t, "base/"+program+".yaml").Ports {
			got[port.Name] = port.ContainerPort
		}
		if !maps.Equal(got, want) {
			t.Errorf("%s has the ports %v, want %v", program, got, want)
		}
	}
}

// KEDA scales the workers by metrics of the API, which docs/metrics.md lists. Another test compares that page with the real
// API.
func TestQueryAsksForAMetric(t *testing.T) {
	t.Parallel()
	asked := regexp.MustCompile(`\b(codex_jobs_[a-z_]+)\{unit="range", state=~"waiting\|active"\}`).FindAllStringSubmatch(read(t, "base/worker.yaml"), -1)
	if len(asked) != 1 {
		t.Fatalf("Prometheus is asked for %q", asked)
	}
	listed := regexp.MustCompile("(?m)^\\| `" + asked[0][1] + "` \\| gauge \\| `job_type`; `unit`: run, range; `state`: waiting, active, ")
	if !listed.MatchString(read(t, "../../docs/metrics.md")) {
		t.Errorf("docs/metrics.md has no %s with these labels", asked[0][1])
	}
}
