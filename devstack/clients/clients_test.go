//go:build clients

package clients_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/internal/procs"
	"github.com/codex-api/codex-jobs/internal/redistest"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

const key = "a-key-for-generated-clients"

// seen is what each program prints.
type seen struct {
	ID        string
	Coalesced bool
	Listed    []string
	State     string
	SyncType  string
	Updated   int
	Cancelled string
	Paused    string
}

func TestGeneratedClients(t *testing.T) {
	url := startAPI(t)
	folder := prepare(t)
	description := filepath.Join(folder, "openapi.json")
	if err := os.WriteFile(description, ask(t, url+"/openapi.json"), 0o644); err != nil {
		t.Fatal(err)
	}
	generate := [][]string{
		{"npx", "openapi-typescript", "openapi.json", "-o", "gen/openapi-typescript.d.ts"},
		{"npx", "orval", "--input", "./openapi.json", "--output", "./gen/orval.ts", "--client", "fetch"},
		{"npx", "openapi-ts", "-i", "openapi.json", "-o", "gen/hey-api", "-c", "@hey-api/client-fetch"},
		{"npx", "tsc"},
		{"go", "-C", "oapi", "tool", "oapi-codegen", "-config", "oapi.yaml", "../openapi.json"},
		{"go", "-C", "oapi", "build", "-mod=mod", "-tags=", "-o", "../dist/use-oapi-codegen", "."},
	}
	for _, arguments := range generate {
		run(t, folder, nil, arguments...)
	}
	for _, program := range [][]string{
		{"node", "dist/use-openapi-typescript.js"}, {"node", "dist/use-orval.js"}, {"node", "dist/use-hey-api.js"}, {"dist/use-oapi-codegen"},
	} {
		var got seen
		printed := run(t, folder, []string{"BASE_URL=" + url, "API_KEY=" + key}, program...)
		if err := json.Unmarshal(printed, &got); err != nil {
			t.Errorf("%v printed %s: %v", program, printed, err)
			continue
		}
		if got.ID == "" || got.Coalesced || !slices.Contains(got.Listed, got.ID) || len(got.Listed) != 2 || got.State != "waiting" ||
			got.SyncType != "full" || got.Updated != 0 || got.Cancelled != "removed" || got.Paused != "Issue sync jobs paused" {
			t.Errorf("%v has seen %+v", program, got)
		}
	}
}

// startAPI starts an API with a key, and with a Redis database of its own, and returns its URL.
func startAPI(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", "..", "bin", "api"))
	if err != nil {
		t.Fatal(err)
	}
	redis := redistest.Options(t)
	host, port, err := net.SplitHostPort(redis.Addr)
	if err != nil {
		t.Fatal(err)
	}
	listening := testbed.FreePort(t)
	cmd := exec.Command(path)
	cmd.Dir = t.TempDir() // which has no .env
	cmd.Env = append(os.Environ(),
		"REDIS_HOST="+host, "REDIS_PORT="+port, "REDIS_PASSWORD="+redis.Password, "REDIS_DB="+strconv.Itoa(redis.DB),
		"HOST=127.0.0.1", "PORT="+listening, "ADMIN_PORT=off", "LOG_FORMAT=json", "API_KEYS=clients:write:"+key)
	p, err := procs.Start(cmd, procs.Options{Log: new(procs.Log)})
	if err != nil {
		t.Fatalf("the programs are not built, run `make build`: %v", err)
	}
	t.Cleanup(func() {
		p.Stop(procs.StopGrace)
		if t.Failed() {
			t.Logf("the end of the API's log:\n%s", p.Log().Tail(procs.TailLines))
		}
	})
	url := "http://127.0.0.1:" + listening
	testbed.Eventually(t, "the API to be ready", func() bool {
		response, err := http.Get(url + "/readyz")
		if err != nil {
			return false
		}
		_ = response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
	return url
}

func ask(t *testing.T, url string) []byte {
	t.Helper()
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+key)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", url, response.Status, err)
	}
	return body
}

// prepare copies the programs to bin/clients, installs what they need unless it is there already, and returns that folder.
func prepare(t *testing.T) string {
	t.Helper()
	folder, err := filepath.Abs(filepath.Join("..", "..", "bin", "clients"))
	if err != nil {
		t.Fatal(err)
	}
	for _, generated := range []string{"gen", "dist", "oapi"} {
		if err := os.RemoveAll(filepath.Join(folder, generated)); err != nil {
			t.Fatal(err)
		}
	}
	for _, made := range []string{"gen", "oapi"} {
		if err := os.MkdirAll(filepath.Join(folder, made), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// Without it the go command would take Go files of npm packages for packages of the product.
	if err := os.WriteFile(filepath.Join(folder, "go.mod"), []byte("module bin\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	lock := read(t, "package-lock.json")
	before, _ := os.ReadFile(filepath.Join(folder, "installed-lock.json"))
	for _, pattern := range []string{"*.ts", "*.json", "oapi/*"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			if err := os.WriteFile(filepath.Join(folder, name), read(t, name), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !bytes.Equal(lock, before) {
		run(t, folder, nil, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
		if err := os.WriteFile(filepath.Join(folder, "installed-lock.json"), lock, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// run runs a command, which must succeed, and returns what it printed.
func run(t *testing.T, folder string, env []string, arguments ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), arguments[0], arguments[1:]...)
	if strings.HasPrefix(arguments[0], "dist/") {
		cmd.Path = filepath.Join(folder, arguments[0])
	}
	var out, errOut bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = folder, &out, &errOut
	cmd.Env = append(append(os.Environ(), "GOFLAGS=", "NO_UPDATE_NOTIFIER=1", "SCARF_ANALYTICS=false"), env...)
	began := time.Now()
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %v\n%s%s", arguments, err, out.Bytes(), errOut.Bytes())
	}
	t.Logf("%s took %s", strings.Join(arguments, " "), time.Since(began).Round(time.Millisecond))
	return out.Bytes()
}
