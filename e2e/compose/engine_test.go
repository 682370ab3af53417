//go:build compose

package compose_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/internal/config"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

const (
	// waitLimit is the limit of waits that have no other limit, for a busy machine.
	waitLimit = 90 * time.Second
	// commandLimit is how long one command or block of commands may take, such as a build without any cache.
	commandLimit = 10 * time.Minute
	// poll is the pause between two checks.
	poll = 50 * time.Millisecond
)

// project is a deployment of its own: a directory with what a clone of the repository has, and a project of Compose.
type project struct {
	name string
	dir  string
	port string
	path string // PATH with a docker whose `docker compose` works
	env  map[string]string
	// waits is true where `docker compose up` knows --wait.
	waits bool
	log   *logs
	ran   map[string]bool // blocks of the document
}

// newProject copies the files of the deployment, and removes the whole project when the test ends.
func newProject(t *testing.T) *project {
	t.Helper()
	requireEngine(t)
	id := strings.ToLower(rand.Text()[:8])
	p := &project{name: "codexjobs" + id, dir: t.TempDir(), port: testbed.FreePort(t), ran: make(map[string]bool)}
	for _, name := range []string{"docker-compose.yml", "Dockerfile", ".dockerignore", "go.mod", "go.sum"} {
		if err := os.WriteFile(filepath.Join(p.dir, name), []byte(read(t, name)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"cmd", "internal", "pkg", "deploy"} {
		if err := os.CopyFS(filepath.Join(p.dir, name), os.DirFS(filepath.Join(root, name))); err != nil {
			t.Fatal(err)
		}
	}
	p.path, p.waits = pathWithCompose(t)
	p.env = make(map[string]string)
	for _, s := range config.Settings(codex.Registry()) {
		p.env[s.Name] = "" // the environment of the test is not the deployment's
	}
	p.env["COMPOSE_PROJECT_NAME"] = p.name
	p.env["PORT"] = p.port
	p.env["HEALTH_INTERVAL"] = "5s" // the test waits for health again and again
	p.env["PROMETHEUS_PORT"], p.env["GRAFANA_PORT"] = testbed.FreePort(t), testbed.FreePort(t)
	p.setVersion("test-1", id)
	t.Cleanup(func() { p.cleanUp(t, id) })
	return p
}

func (p *project) setVersion(version, id string) { p.env["VERSION"] = version + "-" + id }

func (p *project) cleanUp(t *testing.T, id string) {
	ctx, cancel := context.WithTimeout(context.Background(), commandLimit)
	defer cancel()
	if t.Failed() {
		for _, command := range []string{"docker compose ps", "docker compose --profile observability logs --no-color --tail 150 api scheduler worker redis prometheus grafana"} {
			out, err := p.command(ctx, "sh", "-c", command).CombinedOutput()
			t.Logf("%s: %v\n%s", command, err, out)
		}
	}
	remove := []string{"compose", "--profile", "observability", "down", "-v", "--remove-orphans"}
	if out, err := p.command(ctx, "docker", remove...).CombinedOutput(); err != nil {
		t.Errorf("removing the project: %v\n%s", err, out)
	}
	for _, name := range deployables {
		for version := 1; version <= maxUpgrades; version++ { // they may not be there
			_ = p.command(ctx, "docker", "rmi", fmt.Sprintf("codex-jobs-%s:test-%d-%s", name, version, id)).Run()
		}
	}
}

// requireEngine skips the test when no engine answers, or fails it when one is required.
func requireEngine(t *testing.T) {
	t.Helper()
	out, err := exec.Command("docker", "info", "--format", "{{.ServerVersion}}").CombinedOutput()
	if err == nil {
		t.Logf("the engine is Docker %s", bytes.TrimSpace(out))
		return
	}
	if os.Getenv("COMPOSE_TEST_REQUIRED") != "" {
		t.Fatalf("no Docker engine answers, and COMPOSE_TEST_REQUIRED is set: %v\n%s", err, out)
	}
	t.Skipf("LEFT OUT: no Docker engine answers: %v", err)
}

// pathWithCompose returns a PATH on which `docker compose` is docker-compose where there is no Compose v2, and whether there is.
func pathWithCompose(t *testing.T) (path string, v2 bool) {
	t.Helper()
	path = os.Getenv("PATH")
	if exec.Command("docker", "compose", "version").Run() == nil {
		t.Log("Compose v2")
		return path, true
	}
	docker, err := exec.LookPath("docker")
	if err != nil {
		t.Fatal(err)
	}
	compose, err := exec.LookPath("docker-compose")
	if err != nil {
		t.Fatalf("there is neither `docker compose` nor docker-compose: %v", err)
	}
	dir := t.TempDir()
	script := fmt.Sprintf("#!/bin/sh\nif [ \"$1\" = compose ]; then shift; exec '%s' \"$@\"; fi\nexec '%s' \"$@\"\n", compose, docker)
	if err := os.WriteFile(filepath.Join(dir, "docker"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	out, _ := exec.Command(compose, "version", "--short").Output()
	t.Logf("docker-compose %s", bytes.TrimSpace(out))
	return dir + string(filepath.ListSeparator) + path, false
}

// command prepares a command in the project's directory.
func (p *project) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	// exec looks the name up on the test's PATH, env on the project's.
	cmd := exec.CommandContext(ctx, "/usr/bin/env", append([]string{name}, args...)...)
	cmd.Dir = p.dir
	cmd.Env = append(os.Environ(), "PATH="+p.path, "PWD="+p.dir)
	for name, value := range p.env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	return cmd
}

// docker runs docker and returns its output.
func (p *project) docker(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), commandLimit)
	defer cancel()
	var errOut bytes.Buffer
	cmd := p.command(ctx, "docker", args...)
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("docker %s: %v\n%s%s", strings.Join(args, " "), err, out, errOut.Bytes())
	}
	return strings.TrimSpace(string(out))
}

// run runs a block of the document, unchanged.
func (p *project) run(t *testing.T, name string) {
	t.Helper()
	if err := p.tryRun(t, name); err != nil {
		t.Fatal(err)
	}
}

func (p *project) tryRun(t *testing.T, name string) error {
	t.Helper()
	return p.tryRunWithout(t, name, "")
}

// tryRunWithout leaves something out of the block.
func (p *project) tryRunWithout(t *testing.T, name, leftOut string) error {
	t.Helper()
	b, ok := blocks(t)[name]
	if !ok || b.language != "sh" {
		t.Fatalf("docs/deploying.md has no commands called %s", name)
	}
	p.ran[name] = true
	text := strings.ReplaceAll(b.text, leftOut, "")
	if !p.waits {
		text = strings.ReplaceAll(text, " --wait", "") // as the document says
	}
	ctx, cancel := context.WithTimeout(t.Context(), commandLimit)
	defer cancel()
	started := time.Now()
	out, err := p.command(ctx, "sh", "-ec", text).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s\n%s", name, err, text, out)
	}
	t.Logf("%s: %.1f s", name, time.Since(started).Seconds())
	return nil
}

// containers returns the IDs of a service's containers, including stopped ones.
func (p *project) containers(t *testing.T, service string) []string {
	t.Helper()
	return strings.Fields(p.docker(t, "ps", "-aq", "--no-trunc", "--filter", "label=com.docker.compose.project="+p.name,
		"--filter", "label=com.docker.compose.service="+service))
}

func (p *project) inspect(t *testing.T, container, format string) string {
	t.Helper()
	return p.docker(t, "inspect", "--format", format, container)
}

// kill ends the container's process with SIGKILL, as a crash would: not with `docker kill`, after which the engine does
// not start it again.
func (p *project) kill(t *testing.T, container string) {
	t.Helper()
	image := p.inspect(t, p.containers(t, "redis")[0], "{{.Config.Image}}") // any that has a shell
	p.docker(t, "run", "--rm", "--pid=host", "--network=none", "--entrypoint", "sh", image, "-c",
		"kill -9 "+p.inspect(t, container, "{{.State.Pid}}"))
}

// dial connects to a port of the service's container, wherever that is now.
func (p *project) dial(ctx context.Context, service, port string) (net.Conn, error) {
	id, err := p.command(ctx, "docker", "ps", "-q", "--filter", "label=com.docker.compose.project="+p.name,
		"--filter", "label=com.docker.compose.service="+service).Output()
	if err != nil {
		return nil, fmt.Errorf("looking for %s: %w", service, err)
	}
	ip, err := p.command(ctx, "docker", "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}",
		string(bytes.TrimSpace(id))).Output()
	if err != nil {
		return nil, fmt.Errorf("looking for the address of %s: %w", service, err)
	}
	return new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(string(bytes.TrimSpace(ip)), port))
}

// wantNothingLeft checks that no container, network or volume of the project is there.
func (p *project) wantNothingLeft(t *testing.T) {
	t.Helper()
	of := "label=com.docker.compose.project=" + p.name
	for _, list := range [][]string{
		{"ps", "-aq", "--filter", of}, {"network", "ls", "-q", "--filter", of}, {"volume", "ls", "-q", "--filter", of},
	} {
		if left := p.docker(t, list...); left != "" {
			t.Errorf("docker %s still lists %s", strings.Join(list, " "), left)
		}
	}
}
