//go:build compose

package compose_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/internal/testbed"
)

// pullLimit is how long a pull of an image may take.
const pullLimit = 3 * time.Minute

// watch starts Prometheus, and Grafana if its image can be pulled, checks that they see the whole system, and removes them.
func watch(t *testing.T, s *system) {
	if config := s.docker(t, "compose", "--profile", "observability", "config"); !strings.Contains(config, "GF_AUTH_ANONYMOUS_ORG_ROLE: Viewer") {
		t.Errorf("the profile has no Grafana for viewers:\n%s", config)
	}
	s.run(t, "own-grafana")
	dashboard, err := os.ReadFile(filepath.Join(s.dir, "codex-jobs.json"))
	if err != nil || !json.Valid(dashboard) || strings.Contains(string(dashboard), `"codex-jobs"}`) || !strings.Contains(string(dashboard), `"UID OF YOURS"}`) {
		t.Errorf("the dashboard for a data source of one's own asks another one: %v\n%s", err, dashboard)
	}

	leftOut := ""
	if err := s.pull(t, services(t)["grafana"].Image); err != nil {
		t.Logf("NOT RUN: Grafana, with its provisioning and its dashboard, because its image cannot be had here: %v", err)
		leftOut = " grafana"
	}
	if err := s.tryRunWithout(t, "watch", leftOut); err != nil {
		t.Fatal(err)
	}
	s.wantWatched(t, map[string]int{"codex-jobs-api": 1, "codex-jobs-scheduler": 2, "codex-jobs-worker": 3})
	if n := s.wantOne(t, "max(codex_jobs_processes{role=\"worker\"})"); n != "3" {
		t.Errorf("Prometheus knows of %s workers, want 3", n)
	}
	s.docker(t, "compose", "up", "-d", "--no-recreate", "--scale", "worker=4")
	s.wantWatched(t, map[string]int{"codex-jobs-api": 1, "codex-jobs-scheduler": 2, "codex-jobs-worker": 4})
	s.docker(t, "compose", "up", "-d", "--no-recreate", "--scale", "worker=3")
	s.wantWatched(t, map[string]int{"codex-jobs-api": 1, "codex-jobs-scheduler": 2, "codex-jobs-worker": 3})
	s.wantReload(t)
	if leftOut == "" {
		s.wantDashboard(t)
	}
	if err := s.tryRunWithout(t, "unwatch", leftOut); err != nil {
		t.Fatal(err)
	}
	s.waitUntilHealthy(t, healthLimit, 3)
	s.wantNothingLost(t)
}

// pull makes sure that an image is there: the default of docker-compose.yml, or the one that the environment names.
func (p *project) pull(t *testing.T, image string) error {
	t.Helper()
	name, image, _ := strings.Cut(strings.Trim(image, "${}"), ":-")
	if other := os.Getenv(name); other != "" {
		image = other
	}
	ctx, cancel := context.WithTimeout(t.Context(), pullLimit)
	defer cancel()
	if p.command(ctx, "docker", "image", "inspect", image).Run() == nil {
		return nil
	}
	if out, err := p.command(ctx, "docker", "pull", "-q", image).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// prometheus asks Prometheus and decodes the answer.
func (s *system) prometheus(t *testing.T, path string, data any) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:"+s.env["PROMETHEUS_PORT"]+"/api/v1/"+path, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	answer := struct {
		Status, Error string
		Data          any
	}{Data: data}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return err
	}
	if answer.Status != "success" {
		return errors.New(answer.Error)
	}
	return nil
}

// wantWatched waits until Prometheus scrapes so many processes of each kind, and no others, and has loaded the rules.
func (s *system) wantWatched(t *testing.T, want map[string]int) {
	t.Helper()
	started := time.Now()
	var said string
	defer func() {
		if t.Failed() {
			t.Log(said)
		}
	}()
	testbed.Within(t, waitLimit, fmt.Sprintf("Prometheus to get answers from %v", want), func() bool {
		var targets struct {
			ActiveTargets []struct {
				Labels                       map[string]string
				Health, LastError, ScrapeURL string
			}
		}
		if err := s.prometheus(t, "targets?state=active", &targets); err != nil {
			said = err.Error()
			return false
		}
		said = fmt.Sprintf("%+v", targets)
		got := make(map[string]int)
		for _, target := range targets.ActiveTargets {
			if target.Health != "up" {
				return false
			}
			got[target.Labels["job"]]++
		}
		return fmt.Sprint(got) == fmt.Sprint(want)
	})
	t.Logf("Prometheus gets answers from %v after %.1f s", want, time.Since(started).Seconds())

	testbed.Within(t, waitLimit, "Prometheus to evaluate its rules", func() bool {
		var rules struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError string }
			}
		}
		if err := s.prometheus(t, "rules", &rules); err != nil {
			said = err.Error()
			return false
		}
		said = fmt.Sprintf("%+v", rules)
		n := 0
		for _, group := range rules.Groups {
			for _, rule := range group.Rules {
				if rule.Health != "ok" {
					return false
				}
				n++
			}
		}
		return n > 0
	})
}

// wantReload changes the configuration, and waits until Prometheus has loaded it, without a restart.
func (s *system) wantReload(t *testing.T) {
	t.Helper()
	file := filepath.Join(s.dir, "deploy", "prometheus", "prometheus.yml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const before, after = "scrape_interval: 15s", "scrape_interval: 14s"
	if err := os.WriteFile(file, []byte(strings.Replace(string(text), before, after, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	s.run(t, "reload")
	testbed.Within(t, waitLimit, "the new configuration to be in use", func() bool {
		var config struct{ YAML string }
		return s.prometheus(t, "status/config", &config) == nil && strings.Contains(config.YAML, after)
	})
	container := s.containers(t, "prometheus")[0]
	testbed.Within(t, waitLimit, "Prometheus to be healthy", func() bool {
		return s.inspect(t, container, "{{.State.Health.Status}} {{.RestartCount}}") == "healthy 0"
	})
}

// wantOne asks a query with one value as its answer, and returns the value.
func (s *system) wantOne(t *testing.T, query string) string {
	t.Helper()
	var data struct {
		Result []struct{ Value [2]any }
	}
	if err := s.prometheus(t, "query?query="+url.QueryEscape(query), &data); err != nil {
		t.Fatal(err)
	}
	if len(data.Result) != 1 {
		t.Fatalf("%s is %v, want one value", query, data.Result)
	}
	return data.Result[0].Value[1].(string)
}

// wantDashboard waits until Grafana shows the dashboard without a login, and checks that no login works.
func (s *system) wantDashboard(t *testing.T) {
	t.Helper()
	base := "http://127.0.0.1:" + s.env["GRAFANA_PORT"]
	status := func(path, user, password string) int {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if user != "" {
			request.SetBasicAuth(user, password)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return 0
		}
		_ = response.Body.Close()
		return response.StatusCode
	}
	testbed.Within(t, waitLimit, "Grafana to have the dashboard", func() bool {
		return status("/api/dashboards/uid/codex-jobs", "", "") == http.StatusOK
	})
	if got := status("/api/admin/settings", "admin", "admin"); got == http.StatusOK {
		t.Error("Grafana's administrator has the usual password")
	}
}
