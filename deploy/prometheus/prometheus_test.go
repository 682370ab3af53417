// Package prometheus_test compares the files in this folder with each other, with the product and with the documentation.
// promtool tests when the alerts fire, and e2e/observability_test.go that the system has the metrics that they ask for. Both
// are part of `make check`.
package prometheus_test

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/codex-api/codex-jobs/internal/config"
)

func parse(t *testing.T, name string, v any) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(data, v); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

type alert struct {
	Alert               string
	Labels, Annotations map[string]string
}

func alerts(t *testing.T) []alert {
	t.Helper()
	var file struct{ Groups []struct{ Rules []alert } }
	parse(t, "alerts.yml", &file)
	var all []alert
	for _, group := range file.Groups {
		all = append(all, group.Rules...)
	}
	if len(all) == 0 {
		t.Fatal("there are no alerts")
	}
	return all
}

// names returns the names of the alerts, each once.
func names(t *testing.T) []string {
	t.Helper()
	unique := make(map[string]bool)
	for _, a := range alerts(t) {
		unique[a.Alert] = true
	}
	return slices.Sorted(maps.Keys(unique))
}

// Each alert has a case in which it fires, and one in which it does not.
func TestEveryAlertIsTested(t *testing.T) {
	t.Parallel()
	var file struct {
		Tests []struct {
			Cases []struct {
				Name   string `yaml:"alertname"`
				Alerts []any  `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		}
	}
	parse(t, "alerts_test.yml", &file)
	fires, silent := make(map[string]bool), make(map[string]bool)
	for _, test := range file.Tests {
		for _, c := range test.Cases {
			if len(c.Alerts) > 0 {
				fires[c.Name] = true
			} else {
				silent[c.Name] = true
			}
		}
	}
	for what, tested := range map[string]map[string]bool{"fires": fires, "does not fire": silent} {
		if got, want := slices.Sorted(maps.Keys(tested)), names(t); !slices.Equal(got, want) {
			t.Errorf("there are cases in which an alert %s for\n%q, the alerts are\n%q", what, got, want)
		}
	}
}

// Each alert has a severity, a text and a link to the section of its name. No section is about an alert that does not exist.
func TestEveryAlertIsExplained(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	var sections []string
	for _, m := range regexp.MustCompile(`(?m)^### (CodexJobs\w+)$`).FindAllStringSubmatch(string(page), -1) {
		sections = append(sections, m[1])
	}
	slices.Sort(sections)
	if want := names(t); !slices.Equal(sections, want) {
		t.Errorf("docs/operations.md has the sections\n%q, the alerts are\n%q", sections, want)
	}
	for _, a := range alerts(t) {
		if severity := a.Labels["severity"]; severity != "critical" && severity != "warning" {
			t.Errorf("the severity of %s is %q", a.Alert, severity)
		}
		if a.Annotations["summary"] == "" || a.Annotations["description"] == "" {
			t.Errorf("%s says nothing: %q", a.Alert, a.Annotations)
		}
		if got, want := a.Annotations["runbook"], "docs/operations.md#"+strings.ToLower(a.Alert); got != want {
			t.Errorf("the runbook of %s is %q, want %s", a.Alert, got, want)
		}
	}
}

// Prometheus scrapes the admin port of each program.
func TestEveryProgramIsScraped(t *testing.T) {
	t.Parallel()
	type lookup struct {
		Names []string
		Type  string
		Port  int
	}
	var file struct {
		ScrapeConfigs []struct {
			Job string   `yaml:"job_name"`
			DNS []lookup `yaml:"dns_sd_configs"`
		} `yaml:"scrape_configs"`
	}
	parse(t, "prometheus.yml", &file)
	ports := map[string]int{"api": config.AdminPortAPI, "scheduler": config.AdminPortScheduler, "worker": config.AdminPortWorker}
	for _, s := range file.ScrapeConfigs {
		program := strings.TrimPrefix(s.Job, "codex-jobs-")
		if len(s.DNS) != 1 || !slices.Equal(s.DNS[0].Names, []string{program}) || s.DNS[0].Type != "A" || s.DNS[0].Port != ports[program] {
			t.Errorf("%s is looked for at %+v, want port %d of all addresses of %s", s.Job, s.DNS, ports[program], program)
		}
		delete(ports, program)
	}
	if len(ports) > 0 {
		t.Errorf("Prometheus does not look for %v", ports)
	}
}
