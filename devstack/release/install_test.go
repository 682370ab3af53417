//go:build release

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// These settings make git read the repository from a directory, for each address that begins with origin.
const (
	modulePath = "github.com/codex-api/codex-jobs"
	origin     = "https://" + modulePath
)

// go install builds the programs of the latest tag, of a repository of which it gets nothing but what is committed, and they
// know which version they are.
func TestGoInstall(t *testing.T) {
	t.Parallel()
	const tag = "v1.999.0" // later than each that the repository may have
	temp := t.TempDir()
	repository, bin := filepath.Join(temp, "repository"), filepath.Join(temp, "bin")
	command(t, nil, "git", "clone", "--quiet", "--bare", "../..", repository)
	command(t, nil, "git", "-C", repository, "tag", tag, "HEAD")

	environ := append(os.Environ(),
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=url."+repository+".insteadOf", "GIT_CONFIG_VALUE_0="+origin,
		// The version exists for this test only: its module cache ends with it. All other modules come from the one that there is, which
		// go.sum has checked.
		"GOMODCACHE="+filepath.Join(temp, "modules"), "GOPROXY=file://"+command(t, nil, "go", "env", "GOMODCACHE")+"/cache/download,"+
			command(t, nil, "go", "env", "GOPROXY"), "GOSUMDB=off", "GOPRIVATE="+modulePath,
		"GOBIN="+bin, "CGO_ENABLED=0", "GOFLAGS=-modcacherw -trimpath -tags=nomsgpack")
	command(t, environ, "go", "install", modulePath+"/cmd/...@latest")

	for _, program := range []string{"api", "scheduler", "worker", "codexctl"} {
		if got := command(t, nil, filepath.Join(bin, program), "--version"); !strings.HasSuffix(got, " "+tag) {
			t.Errorf("%s --version says %q, want %s", program, got, tag)
		}
	}
}

// command runs a command, and returns what it prints on standard output.
func command(t *testing.T, environ []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = environ
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, &stderr)
	}
	return strings.TrimSpace(string(out))
}
