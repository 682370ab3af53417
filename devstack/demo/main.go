// Command demo runs the whole of codex-jobs to try it out: it loads made-up users, starts the API, the scheduler, two workers, and
// an endpoint that the syncs ask, and says what to try. Settings such as USER_SYNC_URL make a sync ask another endpoint.
//
// "make run" runs it under devstack, and it takes its Redis and MongoDB from the environment. It is not for production: a worker
// that ends is started again, but when another process ends, all end with it.
//
//	demo -bin DIR
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/codex-api/codex-jobs/devstack/demo/upstream"
	"github.com/codex-api/codex-jobs/internal/procs"
)

// defaults are settings that the environment can override: frequent syncs, and logs for people.
var defaults = map[string]string{
	"HOST":               "127.0.0.1",
	"PORT":               "4000",
	"USER_SYNC_INTERVAL": "15s",
	// The others have no schedule of their own. They are small, so that one of them is the first sync that completes.
	"PROJECT_SYNC_INTERVAL": "15s",
	"ISSUE_SYNC_INTERVAL":   "15s",
	"LOG_FORMAT":            "text",
	"LOG_LEVEL":             "info",
}

// processes are the names of the processes, with their programs in the bin directory.
var processes = []struct{ name, program string }{
	{"api", procs.API},
	{"scheduler", procs.Scheduler},
	{"worker-1", procs.Worker},
	{"worker-2", procs.Worker},
}

// syncs are the product's, with what their settings begin with and the field that the demo's endpoint asks for. They stand here, and a test
// compares them, because the demo and all that it imports are compiled when it is tried for the first time.
var syncs = []struct{ name, prefix, nameField string }{
	{"user-sync", "USER_SYNC", "username"},
	{"project-sync", "PROJECT_SYNC", "name"},
	{"issue-sync", "ISSUE_SYNC", "title"},
}

func main() {
	os.Exit(run(os.Args[1:], newConsole(os.Stdout), os.Stderr))
}

// run runs the demo, and returns the exit status.
func run(args []string, out *console, stderr io.Writer) int {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(stderr)
	bin := flags.String("bin", "", "the directory with the programs api, scheduler and worker")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	if *bin == "" || flags.NArg() > 0 {
		fmt.Fprintln(stderr, "demo: usage: demo -bin DIR")
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer stop()
	if err := demonstrate(ctx, *bin, out); err != nil {
		fmt.Fprintf(stderr, "demo: %v\n", err)
		return 1
	}
	return 0
}

// demonstrate runs the demo until ctx ends, which is its ordinary end, or until something fails.
func demonstrate(ctx context.Context, bin string, out *console) error {
	host, port := setting("HOST"), setting("PORT")
	uri, database := os.Getenv("MONGODB_URI"), os.Getenv("MONGODB_DATABASE")
	if uri == "" || database == "" {
		return errors.New("MONGODB_URI or MONGODB_DATABASE is not set: run the demo with devstack")
	}
	for _, p := range processes {
		if err := executable(filepath.Join(bin, p.program)); err != nil {
			return fmt.Errorf("looking for the programs: %w", err)
		}
	}
	if err := checkFree(host, port); err != nil {
		return err
	}

	count, tempo := userCount, defaults["USER_SYNC_INTERVAL"]
	if os.Getenv("USER_SYNC_URL") != "" {
		count, tempo = fewUsers, "1m"
	}
	tempo = cmp.Or(os.Getenv("USER_SYNC_INTERVAL"), tempo)
	loaded, err := load(ctx, uri, database, count)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	if loaded > 0 {
		out.printf("demo: loaded %d users, %d projects and %d issues\n", loaded, projectCount, issueCount)
	}

	asked, err := upstream.Start()
	if err != nil {
		return err
	}
	serving, end := context.WithCancel(context.WithoutCancel(ctx)) // workers ask it while they stop
	failed := make(chan error, 1)
	var upstreams sync.WaitGroup
	upstreams.Go(func() { failed <- asked.Run(serving, out.sayUpstream) })
	defer upstreams.Wait()
	defer end()
	group := procs.NewGroup()
	defer func() {
		for _, p := range group.Stop(procs.StopGrace) {
			out.printf("demo: %s did not end within %v and was killed\n", p.Name(), procs.StopGrace)
		}
	}()
	d := demo{bin: bin, port: port, out: out, group: group, environ: withDefaults(os.Environ(), os.Getenv, defaults)}
	d.environ = append(d.environ, "USER_SYNC_INTERVAL="+tempo)
	d.environ = append(d.environ, endpoints(os.Getenv, asked)...)
	for i := range processes {
		if err := d.start(i); err != nil {
			return err
		}
	}
	base := "http://" + net.JoinHostPort(reachable(host), port)
	watching, cancel := context.WithCancel(ctx)
	healthy := make(chan error, 1)
	var watcher sync.WaitGroup
	watcher.Go(func() { healthy <- untilHealthy(watching, base+"/health", healthTimeout) })
	defer func() {
		cancel()
		watcher.Wait()
	}()
	again := make(chan int, len(processes)) // the workers that are to be started again
	for {
		select {
		case <-ctx.Done():
			out.printf("demo: stopping\n")
			return nil
		case err := <-failed:
			return err
		case p := <-group.Failed():
			i := d.worker(p)
			if i < 0 || !p.Signalled() && p.ExitCode() != 0 {
				return p.Failure()
			}
			out.printf(killed, p.Name(), p.PID(), p.Status(), restartAfter)
			time.AfterFunc(restartAfter, func() { again <- i })
		case i := <-again:
			if err := d.start(i); err != nil {
				return err
			}
			out.printf("demo: %s runs again, kill -9 %d kills it\n", processes[i].name, d.pids[i])
		case err := <-healthy:
			healthy = nil
			if ctx.Err() != nil {
				continue
			}
			if err != nil {
				return err
			}
			if err := triggerRefused(ctx, base); err != nil {
				out.printf("demo: no job will fail for you to retry: %v\n", err)
			}
			out.printf(welcome, base, metricsOfTheOthers(port), d.pids[2], d.pids[3], tempo, uri, database, count)
		}
	}
}

// triggerRefused triggers the job that fails, because the demo's endpoint refuses it at first.
func triggerRefused(ctx context.Context, base string) error {
	ctx, cancel := context.WithTimeout(ctx, triggerTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/jobs/trigger/issue-sync", strings.NewReader(`{"syncType":"full"}`))
	if err != nil {
		return fmt.Errorf("triggering a sync: %w", err)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("triggering a sync: %w", err)
	}
	_ = response.Body.Close()
	if response.StatusCode >= http.StatusMultipleChoices {
		return fmt.Errorf("triggering a sync: the API answered %s", response.Status)
	}
	return nil
}

// triggerTimeout bounds the trigger of the job that fails.
const triggerTimeout = 5 * time.Second

// restartAfter is how long a worker that was killed is away.
const restartAfter = 5 * time.Second

// endpoints returns the settings that make the syncs ask the demo's endpoint, except those that ask another one by the environment.
func endpoints(getenv func(string) string, asked *upstream.Server) []string {
	var environ []string
	for _, sync := range syncs {
		if getenv(sync.prefix+"_URL") == "" {
			environ = append(environ, sync.prefix+"_URL="+asked.URL()+"/"+sync.name, sync.prefix+"_SECRET="+asked.Secret(), sync.prefix+"_FIELDS="+sync.nameField)
		}
	}
	return environ
}

// sayUpstream says that the demo's endpoint is away, or back, for a time.
func (c *console) sayUpstream(away bool, d time.Duration) {
	if away {
		c.printf("demo: the demo's endpoint is away for %s: runs wait for it, which costs them no attempt\n", d)
	} else {
		c.printf("demo: the demo's endpoint is back, for %s\n", d)
	}
}

const (
	killed = "demo: %s (process %d) has ended: %s. If it had a run, that is put back within 75 s, and goes on from its checkpoint\n" +
		"demo: when its turn comes. That costs no attempt, and the run's page in the console says it. The worker is started again in %s\n"
	rescued = "demo: %s goes on with the run of the worker that was killed, from its checkpoint\n"
)

// demo is the processes of a demo.
type demo struct {
	bin, port string
	out       *console
	group     *procs.Group
	environ   []string
	pids      [4]int // by the place in processes
}

// start starts the process at a place in processes.
func (d *demo) start(i int) error {
	name := processes[i].name
	path, err := filepath.Abs(filepath.Join(d.bin, processes[i].program))
	if err != nil {
		return fmt.Errorf("starting %s: %w", name, err)
	}
	cmd := exec.Command(path)
	cmd.Env = append(slices.Clip(d.environ), "ADMIN_PORT="+adminPort(d.port, i))
	cmd.Dir = filepath.Dir(path) // which has no .env: its settings would not be for the demo
	write := d.out.lines(name, i)
	each := func(e procs.Entry) {
		write(e)
		if strings.Contains(e.Text, "Recovered run from a dead worker") {
			d.out.printf(rescued, name)
		}
	}
	// Out of reach of the terminal's Ctrl-C: a second signal would end a process at once.
	p, err := d.group.Start(cmd, procs.Options{Name: name, Log: &procs.Log{Each: each}})
	if err != nil {
		return err
	}
	d.pids[i] = p.PID()
	return nil
}

// worker returns the place in processes of a worker; -1 for another process.
func (d *demo) worker(p *procs.Process) int {
	for i, known := range processes {
		if known.name == p.Name() && known.program == procs.Worker {
			return i
		}
	}
	return -1
}

const welcome = `
  codex-jobs is running. Open the console: it shows what runs, and has buttons for all that follows.

    Console    %[1]s/

    API        %[1]s/docs
    Health     %[1]s/health
    Jobs       %[1]s/jobs/status
    Dashboard  %[1]s/dashboard
    Metrics    %[1]s/metrics, those of the scheduler and the workers at %[2]s
    MongoDB    %[6]s, the collection users of the database %[7]s

  Or by hand:

    curl -X POST %[1]s/jobs/trigger/user-sync -H 'Content-Type: application/json' -d '{"syncType":"full"}'
    curl %[1]s/jobs/status
    curl -X POST %[1]s/jobs/trigger/issue-sync
    curl -X POST %[1]s/jobs/pause     (and %[1]s/jobs/resume)
    kill -9 %[3]d     or %[4]d: a worker. Another goes on with its run, and it is started again

  %[8]d users are synchronised every %[5]s here, projects and issues every 15s. The worker sends each batch to an endpoint, which
  does the work: the demo's sets the scores of few records, and refuses users whose names have markup in them. It is slow, and at
  times away. For its first minute it refuses full syncs of issues: one was triggered, and fails, for you to retry it.
  The embedded MongoDB is slow, too, most of all where an endpoint sets fields: each user takes it some milliseconds.
  With an endpoint of yours, and 200 users: USER_SYNC_URL=http://localhost:3000/user-sync make run
  Ctrl-C ends all of it.

`

// metricsOfTheOthers names the addresses of the metrics of all processes but the API.
func metricsOfTheOthers(port string) string {
	first, last := adminPort(port, 1), adminPort(port, len(processes)-1)
	if first == last { // off
		return "no port"
	}
	return "the ports " + first + " to " + last
}

// adminPort returns the admin port of a process: each gets one of its own, after the API's port.
func adminPort(port string, process int) string {
	n, err := strconv.Atoi(port)
	if err != nil || n+len(processes) > 65535 { // the API names the error, if there is one
		return "off"
	}
	return strconv.Itoa(n + 1 + process)
}

// setting returns the value of a variable that has a default.
func setting(name string) string { return cmp.Or(os.Getenv(name), defaults[name]) }

// checkFree returns an error unless the API will be able to listen.
func checkFree(host, port string) error {
	l, err := net.Listen("tcp", net.JoinHostPort(host, port))
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("port %s is already in use on %s: stop what uses it, or choose another as in PORT=5000 make run", port, host)
	}
	if err != nil {
		return fmt.Errorf("trying port %s on %s: %w", port, host, err)
	}
	return l.Close()
}

// reachable returns where a server that listens on host is reached from this machine.
func reachable(host string) string {
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		return "127.0.0.1"
	}
	return host
}

// withDefaults returns the environment, and the defaults of the variables that it does not set.
func withDefaults(environ []string, getenv func(string) string, defaults map[string]string) []string {
	environ = append([]string(nil), environ...)
	for name, value := range defaults {
		if getenv(name) == "" {
			environ = append(environ, name+"="+value)
		}
	}
	return environ
}

// executable returns an error unless path is a program.
func executable(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.IsDir() || info.Mode()&0o111 == 0 {
		return fmt.Errorf("%s is not a program", path)
	}
	return nil
}
