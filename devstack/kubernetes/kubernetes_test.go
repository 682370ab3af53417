//go:build kubernetes

package kubernetes_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const folder = "../../deploy/kubernetes/"

// resources is the number of resources: Deployments, budgets, and one each of ConfigMap, Service and ScaledObject.
const resources = 3 + 3 + 3

// The last folder deploys a team's own system.
var rendered = []string{"base", "example", "../../examples/directory/kubernetes"}

// Kubernetes and KEDA know each field, and no required field is missing.
func TestSchemas(t *testing.T) {
	schemas := t.TempDir()
	writeSchemas(t, schemas)
	for _, name := range rendered {
		t.Run(name, func(t *testing.T) {
			output, err := conform(t, schemas, render(t, name))
			if err != nil {
				t.Fatalf("%v\n%s", err, output)
			}
			if want := fmt.Sprintf("Valid: %d, Invalid: 0, Errors: 0, Skipped: 0", resources); !strings.Contains(output, want) {
				t.Errorf("got %s, want %s", output, want)
			}
		})
	}

	// The check finds mistakes.
	base := render(t, "base")
	for name, mistake := range map[string]struct{ old, new, complaint string }{
		"misspelt in a container":    {"readOnlyRootFilesystem:", "readOnlyRootFileSystem:", "'readOnlyRootFileSystem' not allowed"},
		"misspelt in a pod":          {"enableServiceLinks:", "enableServiceLink:", "'enableServiceLink' not allowed"},
		"misspelt in a probe":        {"failureThreshold: 3\n          httpGet", "failuresThreshold: 3\n          httpGet", "'failuresThreshold' not allowed"},
		"misspelt in a budget":       {"unhealthyPodEvictionPolicy:", "unhealthyPodEviction:", "'unhealthyPodEviction' not allowed"},
		"misspelt for KEDA":          {"minReplicaCount:", "minReplicas:", "'minReplicas' not allowed"},
		"misspelt in KEDA's trigger": {"- metadata:\n      ignore", "- metaData:\n      ignore", "'metaData' not allowed"},
		"misspelt in its metadata":   {"name: codex-jobs-worker\nspec:\n  fallback", "nome: codex-jobs-worker\nspec:\n  fallback", "'nome' not allowed"},
		"not among KEDA's words":     {"currentReplicasIfHigher", "currentReplicasIfMore", "must be one of"},
		"of another type":            {"containerPort: 4001", "containerPort: admin", "got string, want integer"},
		"no amount":                  {"memory: 128Mi", "memory: 128MB", "does not match pattern"},
		"missing":                    {"- containerPort: 4000\n          name", "- name", "missing property 'containerPort'"},
		"of an unknown kind":         {"kind: ScaledObject", "kind: ScaledThing", "could not find schema for ScaledThing"},
		"of a version that is gone":  {"policy/v1", "policy/v1beta1", "could not find schema for PodDisruptionBudget"},
	} {
		t.Run(name, func(t *testing.T) {
			if !strings.Contains(base, mistake.old) {
				t.Fatalf("there is no %q", mistake.old)
			}
			output, err := conform(t, schemas, strings.ReplaceAll(base, mistake.old, mistake.new))
			if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || !strings.Contains(output, mistake.complaint) {
				t.Errorf("got %v, %s, want %s", err, output, mistake.complaint)
			}
		})
	}
}

// The references between resources, which schemas cannot check.
func TestReferences(t *testing.T) {
	for _, name := range rendered {
		t.Run(name, func(t *testing.T) { testReferences(t, render(t, name)) })
	}
}

// resource has the fields of all kinds that the test checks.
type resource struct {
	Kind     string
	Metadata struct {
		Name      string
		Namespace string
		Labels    map[string]string
	}
	Spec struct {
		Replicas       *int
		Selector       map[string]any        // matchLabels, but for a Service
		ScaleTargetRef struct{ Name string } `yaml:"scaleTargetRef"`
		Ports          []struct {
			TargetPort string `yaml:"targetPort"`
		}
		Template struct {
			Metadata struct{ Labels map[string]string }
			Spec     pod
		}
	}
}

type pod struct {
	AutomountServiceAccountToken *bool          `yaml:"automountServiceAccountToken"`
	SecurityContext              map[string]any `yaml:"securityContext"`
	Containers                   []struct {
		Env     []struct{ Name, Value string }
		EnvFrom []struct {
			ConfigMapRef struct{ Name string } `yaml:"configMapRef"`
		} `yaml:"envFrom"`
		Ports []struct {
			Name          string
			ContainerPort int `yaml:"containerPort"`
		}
		LivenessProbe   probe `yaml:"livenessProbe"`
		ReadinessProbe  probe `yaml:"readinessProbe"`
		Resources       struct{ Requests, Limits map[string]string }
		SecurityContext map[string]any `yaml:"securityContext"`
		VolumeMounts    []struct {
			Name      string
			MountPath string `yaml:"mountPath"`
		} `yaml:"volumeMounts"`
	}
	Volumes []struct {
		Name   string
		Secret struct {
			SecretName string `yaml:"secretName"`
			Items      []struct{ Key, Path string }
		}
	}
}

type probe struct {
	HTTPGet struct{ Path, Port string } `yaml:"httpGet"`
}

func testReferences(t *testing.T, text string) {
	all := decode(t, text)
	kind := func(kind string) map[string]resource {
		found := make(map[string]resource)
		for _, r := range all {
			if r.Kind == kind {
				found[r.Metadata.Name] = r
			}
		}
		return found
	}
	deployments := kind("Deployment")
	programs := []string{"codex-jobs-api", "codex-jobs-scheduler", "codex-jobs-worker"}
	if got := slices.Sorted(maps.Keys(deployments)); !slices.Equal(got, programs) {
		t.Fatalf("Deployments %q", got)
	}
	for name, d := range deployments {
		if len(d.Spec.Template.Spec.Containers) != 1 { // pod.yaml has another name for it
			t.Fatalf("%s has %d containers", name, len(d.Spec.Template.Spec.Containers))
		}
		checkPod(t, name, d.Spec.Template.Spec, slices.Collect(maps.Keys(kind("ConfigMap"))))
		if got := chosen(deployments, d.Spec.Selector["matchLabels"]); !slices.Equal(got, []string{name}) {
			t.Errorf("%s selects the pods of %q", name, got)
		}
	}
	for _, name := range programs {
		budget := kind("PodDisruptionBudget")[name]
		if got := chosen(deployments, budget.Spec.Selector["matchLabels"]); !slices.Equal(got, []string{name}) {
			t.Errorf("the budget of %s selects %q", name, got)
		}
	}
	service := kind("Service")["codex-jobs-api"]
	if got := chosen(deployments, service.Spec.Selector); !slices.Equal(got, []string{"codex-jobs-api"}) {
		t.Errorf("the Service selects %q", got)
	}
	for _, port := range service.Spec.Ports {
		if !hasPort(deployments["codex-jobs-api"].Spec.Template.Spec, port.TargetPort) {
			t.Errorf("the Service leads to a port %s", port.TargetPort)
		}
	}
	for name, scaled := range kind("ScaledObject") {
		target, ok := deployments[scaled.Spec.ScaleTargetRef.Name]
		if !ok || target.Spec.Replicas != nil || target.Metadata.Namespace != scaled.Metadata.Namespace {
			t.Errorf("%s scales %q, whose replicas are %v", name, scaled.Spec.ScaleTargetRef.Name, target.Spec.Replicas)
		}
	}
}

// checkPod checks that pod.yaml was merged into the pod.
func checkPod(t *testing.T, name string, p pod, configMaps []string) {
	c := p.Containers[0]
	if len(c.EnvFrom) != 1 || !slices.Contains(configMaps, c.EnvFrom[0].ConfigMapRef.Name) {
		t.Errorf("%s has its settings from %+v, and there is %q", name, c.EnvFrom, configMaps)
	}
	if len(p.Volumes) != 1 || len(c.VolumeMounts) != 1 || p.Volumes[0].Secret.SecretName != "codex-jobs" || c.VolumeMounts[0].Name != p.Volumes[0].Name {
		t.Fatalf("%s has the volumes %+v, mounted as %+v", name, p.Volumes, c.VolumeMounts)
	}
	// Each file has its setting, and each setting its file.
	var files, settings []string
	for _, item := range p.Volumes[0].Secret.Items {
		files = append(files, item.Key+"_FILE="+c.VolumeMounts[0].MountPath+"/"+item.Path)
	}
	for _, env := range c.Env {
		if !strings.HasSuffix(env.Name, "_FILE") {
			continue
		}
		settings = append(settings, env.Name+"="+env.Value)
	}
	slices.Sort(files)
	slices.Sort(settings)
	if len(files) == 0 || !slices.Equal(files, settings) {
		t.Errorf("%s has the secrets %q and the settings %q", name, files, settings)
	}
	for path, probe := range map[string]probe{"/livez": c.LivenessProbe, "/readyz": c.ReadinessProbe} {
		if probe.HTTPGet.Path != path || probe.HTTPGet.Port != "admin" || !hasPort(p, "admin") {
			t.Errorf("%s is asked for %+v, not for %s", name, probe, path)
		}
	}
	for _, resource := range []string{"cpu", "memory"} {
		if c.Resources.Requests[resource] == "" || c.Resources.Limits[resource] == "" {
			t.Errorf("%s may use any %s", name, resource)
		}
	}
	if p.AutomountServiceAccountToken == nil || *p.AutomountServiceAccountToken || p.SecurityContext["runAsNonRoot"] != true ||
		c.SecurityContext["allowPrivilegeEscalation"] != false || c.SecurityContext["readOnlyRootFilesystem"] != true {
		t.Errorf("%s is not contained: %v, %v", name, p.SecurityContext, c.SecurityContext)
	}
}

func hasPort(p pod, name string) bool {
	for _, port := range p.Containers[0].Ports {
		if port.Name == name {
			return true
		}
	}
	return false
}

// chosen returns the Deployments whose pods have the labels.
func chosen(deployments map[string]resource, labels any) (names []string) {
	selector, _ := labels.(map[string]any)
	for name, d := range deployments {
		matches := len(selector) > 0
		for label, value := range selector {
			matches = matches && d.Spec.Template.Metadata.Labels[label] == value
		}
		if matches {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func decode(t *testing.T, text string) (all []resource) {
	t.Helper()
	for decoder := yaml.NewDecoder(strings.NewReader(text)); ; {
		var r resource
		switch err := decoder.Decode(&r); {
		case errors.Is(err, io.EOF):
			return all
		case err != nil:
			t.Fatal(err)
		}
		all = append(all, r)
	}
}

// render returns kustomize's output for a folder.
func render(t *testing.T, name string) string {
	t.Helper()
	build := exec.CommandContext(t.Context(), program(t, "KUSTOMIZE"), "build", folder+name)
	var complaints bytes.Buffer
	build.Stderr = &complaints
	output, err := build.Output()
	if err != nil || complaints.Len() > 0 { // warnings are about deprecated fields
		t.Fatalf("kustomize build %s: %v %s", name, err, complaints.String())
	}
	return string(output)
}

// conform makes kubeconform compare manifests with the schemas in a folder, and returns its output.
func conform(t *testing.T, schemas, manifests string) (string, error) {
	t.Helper()
	compare := exec.CommandContext(t.Context(), program(t, "KUBECONFORM"),
		"-strict", "-summary", "-schema-location", filepath.Join(schemas, schemaLocation), "-")
	compare.Stdin = strings.NewReader(manifests)
	output, err := compare.CombinedOutput()
	return string(output), err
}

func program(t *testing.T, variable string) string {
	t.Helper()
	path := os.Getenv(variable)
	if path == "" {
		t.Fatalf("%s does not say where the program is; make check does", variable)
	}
	return path
}
