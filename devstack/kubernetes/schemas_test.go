//go:build kubernetes

package kubernetes_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// The sources of the schemas. Kubernetes is the oldest maintained release: newer ones understand the same manifests.
const (
	kubernetesModule = "k8s.io/kubernetes@v1.35.4"
	kedaModule       = "github.com/kedacore/keda/v2@v2.21.0"
)

// schema is a JSON schema, or a part of one.
type schema = map[string]any

// The prefix of these types in swagger.json.
const machinery = "io.k8s.apimachinery.pkg."

// definitionsFile holds all types of Kubernetes; the other files refer to it.
const definitionsFile = "definitions.json"

// writeSchemas makes a file for each kind, where kubeconform looks for it: kind-group-version.json in the folder.
func writeSchemas(t *testing.T, dir string) {
	t.Helper()
	var api struct{ Definitions map[string]schema }
	parse(t, json.Unmarshal, filepath.Join(moduleDir(t, kubernetesModule), "api/openapi-spec/swagger.json"), &api)
	for name, definition := range api.Definitions {
		seal(definition)
		kinds, _ := definition["x-kubernetes-group-version-kind"].([]any)
		if len(kinds) != 1 { // not a kind; or one of each group, such as DeleteOptions, and nothing to apply
			continue
		}
		id := kinds[0].(schema)
		write(t, dir, fileName(id["kind"].(string), id["group"].(string), id["version"].(string)), reference(name))
	}
	// swagger.json does not say which JSON they are.
	api.Definitions[machinery+"util.intstr.IntOrString"] = schema{"type": []string{"integer", "string"}}
	api.Definitions[machinery+"api.resource.Quantity"] = schema{
		"type": []string{"number", "string"}, "pattern": `^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]+)?$`,
	}
	write(t, dir, definitionsFile, schema{"definitions": api.Definitions})

	files, err := filepath.Glob(filepath.Join(moduleDir(t, kedaModule), "config/crd/bases/*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatal("KEDA has no resources", err)
	}
	for _, file := range files {
		var crd struct {
			Spec struct {
				Group    string
				Names    struct{ Kind string }
				Versions []struct {
					Name   string
					Schema struct {
						OpenAPI schema `yaml:"openAPIV3Schema"`
					}
				}
			}
		}
		parse(t, yaml.Unmarshal, file, &crd)
		for _, version := range crd.Spec.Versions {
			s := version.Schema.OpenAPI
			seal(s)
			s["properties"].(schema)["metadata"] = reference(machinery + "apis.meta.v1.ObjectMeta")
			write(t, dir, fileName(crd.Spec.Names.Kind, crd.Spec.Group, version.Name), s)
		}
	}
}

// fileName is how kubeconform finds the schema of a kind with the template schemaLocation.
func fileName(kind, group, version string) string {
	group, _, _ = strings.Cut(group, ".")
	if group != "" {
		group += "-"
	}
	return strings.ToLower(kind + "-" + group + version + ".json")
}

// schemaLocation is the template of fileName, for a folder.
const schemaLocation = "{{.ResourceKind}}{{.KindSuffix}}.json"

func reference(name string) schema { return schema{"$ref": definitionsFile + "#/definitions/" + name} }

// seal makes a schema, and all within it, refuse the fields that it does not name, where it names any.
func seal(s schema) {
	properties, named := s["properties"].(schema)
	for _, property := range properties {
		seal(property.(schema))
	}
	if more, ok := s["additionalProperties"].(schema); ok {
		seal(more)
	} else if named && s["x-kubernetes-preserve-unknown-fields"] != true {
		s["additionalProperties"] = false
	}
	if items, ok := s["items"].(schema); ok {
		seal(items)
	}
}

// moduleDir downloads a module, unless it is there, and returns its folder.
func moduleDir(t *testing.T, module string) string {
	t.Helper()
	download := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", module)
	download.Dir = t.TempDir() // outside of our own module, whose go.sum does not have it
	download.Stderr = os.Stderr
	output, err := download.Output()
	var answer struct{ Dir string }
	if err == nil {
		err = json.Unmarshal(output, &answer)
	}
	if err != nil {
		t.Fatalf("downloading %s: %v %s", module, err, output)
	}
	return answer.Dir
}

func parse(t *testing.T, unmarshal func([]byte, any) error, file string, into any) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err == nil {
		err = unmarshal(data, into)
	}
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

func write(t *testing.T, dir, name string, s schema) {
	t.Helper()
	data, err := json.Marshal(s)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name), data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}
