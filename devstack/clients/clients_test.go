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
	folder := install(t, ".", "clients", "*.ts", "*.json", "oapi/*")
	if err := os.MkdirAll(filepath.Join(folder, "gen"), 0o755); err != nil {
		t.Fatal(err)
	}
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

// startAPI starts an API with a key, and with a Redis database of its own unless the settings name one, and returns its URL.
func startAPI(t *testing.T, settings ...string) string {
	t.Helper()
	listening := testbed.FreePort(t)
	if len(settings) == 0 {
		settings = redisOf(t)
	}
	startProgram(t, procs.API, append(settings, "HOST=127.0.0.1", "PORT="+listening, "API_KEYS=clients:write:"+key)...)
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

// redisOf returns settings that name a Redis database of the test's own.
func redisOf(t *testing.T) []string {
	t.Helper()
	redis := redistest.Options(t)
	host, port, err := net.SplitHostPort(redis.Addr)
	if err != nil {
		t.Fatal(err)
	}
	return []string{"REDIS_HOST=" + host, "REDIS_PORT=" + port, "REDIS_PASSWORD=" + redis.Password, "REDIS_DB=" + strconv.Itoa(redis.DB)}
}

// startProgram runs one of the product's programs until the test ends.
func startProgram(t *testing.T, name string, settings ...string) {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", "..", "bin", name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("the programs are not built, run `make build`: %v", err)
	}
	cmd := exec.Command(path)
	cmd.Dir = t.TempDir() // which has no .env
	cmd.Env = append(append(os.Environ(), "ADMIN_PORT=off", "LOG_FORMAT=json"), settings...)
	start(t, cmd)
}

// start runs a command until the test ends.
func start(t *testing.T, cmd *exec.Cmd) *procs.Process {
	t.Helper()
	p, err := procs.Start(cmd, procs.Options{Log: new(procs.Log)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Stop(procs.StopGrace)
		if t.Failed() {
			t.Logf("the end of the log of %s:\n%s", p.Name(), p.Log().Tail(procs.TailLines))
		}
	})
	return p
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

// install copies the files of a folder that the patterns name to a folder of bin, installs the npm packages that they need
// unless they are there already, and returns the folder of bin.
func install(t *testing.T, from, name string, patterns ...string) string {
	t.Helper()
	folder, err := filepath.Abs(filepath.Join("..", "..", "bin", name))
	if err != nil {
		t.Fatal(err)
	}
	for _, generated := range []string{"gen", "dist", "oapi"} {
		if err := os.RemoveAll(filepath.Join(folder, generated)); err != nil {
			t.Fatal(err)
		}
	}
	for _, pattern := range patterns {
		files, err := filepath.Glob(filepath.Join(from, pattern))
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(folder, filepath.Dir(pattern))
		if err := os.MkdirAll(to, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if err := os.WriteFile(filepath.Join(to, filepath.Base(file)), read(t, file), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	// Without it the go command would take Go files of npm packages for packages of the product.
	if err := os.WriteFile(filepath.Join(folder, "go.mod"), []byte("module bin\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	lock := read(t, filepath.Join(from, "package-lock.json"))
	if before, _ := os.ReadFile(filepath.Join(folder, "installed-lock.json")); !bytes.Equal(lock, before) {
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
