package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/codex-api/codex-jobs/devstack/ferret"
)

// TestMain makes the test binary stand for several programs, by the name that it is called by.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case "devstack":
		os.Exit(run(os.Args[1:], os.Stderr))
	case "probe":
		os.Exit(probe(os.Args[1]))
	case "mongod":
		os.Exit(pretendMongod(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// report is the output of the probe, as COMMAND, about its servers.
type report struct {
	Redis, MongoDB         string // DEVSTACK_REDIS, DEVSTACK_MONGODB
	RedisAddr, MongoDBAddr string
	Database, URI          string
	BulkSize, Writers      string
	RedisPID               int
	Expired                bool // a key with a time to live has gone
	PID                    int
	Signal                 string // that the probe had before this report
}

// probe reports on the servers. With "hold" it then waits for a signal, reports once more a while after it, as a process
// does that stops gracefully, and exits with 42.
func probe(mode string) int {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	r, err := ask()
	if err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		return 99
	}
	_ = json.NewEncoder(os.Stdout).Encode(r)
	if mode != "hold" {
		return 0
	}
	select {
	case sig := <-signals:
		r.Signal = sig.String()
	case <-time.After(time.Minute):
		fmt.Fprintln(os.Stderr, "probe: no signal came")
		return 98
	}
	time.Sleep(300 * time.Millisecond) // until a server would have ended that got the signal by mistake
	signalled := r.Signal
	if r, err = ask(); err != nil {
		fmt.Fprintln(os.Stderr, "probe: after the signal:", err)
		return 97
	}
	r.Signal = signalled
	_ = json.NewEncoder(os.Stdout).Encode(r)
	return 42
}

// ask uses both servers, with the product's client libraries.
func ask() (report, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	r := report{
		Redis: os.Getenv("DEVSTACK_REDIS"), MongoDB: os.Getenv("DEVSTACK_MONGODB"),
		RedisAddr: net.JoinHostPort(os.Getenv("REDIS_HOST"), os.Getenv("REDIS_PORT")),
		URI:       os.Getenv("MONGODB_URI"), Database: os.Getenv("MONGODB_DATABASE"),
		BulkSize: os.Getenv("SYNC_BULK_SIZE"), Writers: os.Getenv("SYNC_WRITERS"),
		PID: os.Getpid(),
	}
	db, err := strconv.Atoi(os.Getenv("REDIS_DB"))
	if err != nil {
		return r, fmt.Errorf("REDIS_DB: %w", err)
	}
	rdb := redis.NewClient(&redis.Options{Addr: r.RedisAddr, DB: db, Password: os.Getenv("REDIS_PASSWORD")})
	defer rdb.Close()
	if err := rdb.Set(ctx, "lease", "x", 100*time.Millisecond).Err(); err != nil {
		return r, fmt.Errorf("writing to Redis: %w", err)
	}
	for !r.Expired && ctx.Err() == nil {
		r.Expired = errors.Is(rdb.Get(ctx, "lease").Err(), redis.Nil)
	}
	if info, err := askRedis(ctx, redisAddress{host: os.Getenv("REDIS_HOST"), port: os.Getenv("REDIS_PORT")}); err == nil {
		r.RedisPID = info.pid
	}

	opts := options.Client().ApplyURI(r.URI)
	r.MongoDBAddr = strings.Join(opts.Hosts, ",")
	client, err := mongo.Connect(opts)
	if err != nil {
		return r, fmt.Errorf("connecting to MongoDB: %w", err)
	}
	defer func() { _ = client.Disconnect(ctx) }()
	coll := client.Database(r.Database).Collection("probe")
	id := bson.NewObjectID()
	if _, err := coll.InsertOne(ctx, bson.D{{Key: "_id", Value: id}}); err != nil {
		return r, fmt.Errorf("writing to MongoDB: %w", err)
	}
	n, err := coll.CountDocuments(ctx, bson.D{{Key: "_id", Value: id}})
	if err != nil {
		return r, fmt.Errorf("reading from MongoDB: %w", err)
	}
	if n != 1 {
		return r, fmt.Errorf("reading from MongoDB: %d documents, want 1", n)
	}
	return r, nil
}

// pretendMongod takes mongod's arguments and serves its protocol.
func pretendMongod(args []string) int {
	flags := flag.NewFlagSet("mongod", flag.ContinueOnError)
	ip, port := flags.String("bind_ip", "", ""), flags.String("port", "", "")
	path, _ := flags.String("dbpath", "", ""), flags.Bool("nounixsocket", false, "")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	s, err := ferret.Listen(context.Background(), net.JoinHostPort(*ip, *port), *path, slog.Default())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	<-signals
	s.Stop(time.Second)
	return 0
}

// testBundle is a machine for devstack, with a PATH and a directory for temporary files.
type testBundle struct {
	bin, tmp string
	environ  []string
}

// setup makes one that has devstack, probe and the given programs.
func setup(t *testing.T, programs ...string) *testBundle {
	t.Helper()
	b := &testBundle{bin: t.TempDir(), tmp: t.TempDir()}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	link := func(name, target string) {
		if err := os.Symlink(target, filepath.Join(b.bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	link("devstack", self)
	link("probe", self)
	for _, name := range programs {
		switch name {
		case redisServer:
			path, err := exec.LookPath(redisServer)
			if err != nil && os.Getenv("REDIS_SERVER_REQUIRED") != "" {
				t.Fatalf("REDIS_SERVER_REQUIRED is set: %v", err)
			}
			if err != nil {
				t.Skipf("LEFT OUT, as `make test` says in its last lines: %v", err)
			}
			link(name, path)
		case mongodbServer:
			link(name, self)
		default:
			t.Fatalf("no such program: %s", name)
		}
	}
	b.environ = []string{"PATH=" + b.bin, "TMPDIR=" + b.tmp}
	return b
}

// script puts a shell script onto the PATH.
func (b *testBundle) script(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(b.bin, name), []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
}

// run is one devstack that runs.
type running struct {
	cmd    *exec.Cmd
	stdout *json.Decoder
	stderr bytes.Buffer // only for after wait
}

// start starts devstack in a process group of its own, as an interactive shell does.
func (b *testBundle) start(t *testing.T, args ...string) *running {
	t.Helper()
	r := &running{cmd: exec.Command(filepath.Join(b.bin, "devstack"), args...)}
	r.cmd.Env = b.environ
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	r.cmd.Stderr = &r.stderr
	r.cmd.WaitDelay = 10 * time.Second
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.cmd.Stdout, r.stdout = in, json.NewDecoder(out)
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = in.Close()
	t.Cleanup(func() {
		_ = syscall.Kill(-r.cmd.Process.Pid, syscall.SIGKILL) // no process is left there unless the test failed
		_ = out.Close()
	})
	if err := out.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return r
}

// report reads a report of the probe.
func (r *running) report(t *testing.T) report {
	t.Helper()
	var rep report
	if err := r.stdout.Decode(&rep); err != nil {
		_ = r.cmd.Process.Kill()
		_ = r.cmd.Wait()
		t.Fatalf("reading the probe's report: %v; stderr:\n%s", err, &r.stderr)
	}
	return rep
}

// wait waits for devstack to end, and returns its exit status and its output.
func (r *running) wait(t *testing.T) (int, string) {
	t.Helper()
	var exit *exec.ExitError
	if err := r.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		t.Fatalf("waiting for devstack: %v; stderr:\n%s", err, &r.stderr)
	}
	return r.cmd.ProcessState.ExitCode(), r.stderr.String()
}

func checkGone(t *testing.T, what, address string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		conn, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			return
		}
		_ = conn.Close()
	}
	t.Errorf("%s at %s is still there", what, address)
}

func (b *testBundle) checkNothingLeft(t *testing.T) {
	t.Helper()
	left, err := os.ReadDir(b.tmp)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range left {
		t.Errorf("devstack left %s behind", file.Name())
	}
}

func TestCommandGetsBothServers(t *testing.T) {
	t.Parallel()
	const loopback = `127\.0\.0\.1:\d+`
	for _, tt := range []struct {
		name          string
		programs      []string
		args, environ []string
		want          report
		says          string
	}{
		{
			name:     "redis-server and FerretDB",
			programs: []string{redisServer},
			args:     []string{"--require-redis-server"},
			want:     report{Redis: redisServer, MongoDB: mongodbFerret, Database: "codex", BulkSize: "10", Writers: "1"},
			says:     `Redis \d+\.\d+\.\d+ \(redis-server, ` + loopback + `\), MongoDB wire by FerretDB \d+\.\d+\.\d+ \(embedded, ` + loopback + `\)`,
		},
		{
			name:    "miniredis and FerretDB",
			environ: []string{"MONGODB_DATABASE=mine", "REDIS_DB=3", "REDIS_PASSWORD=stray", "SYNC_BULK_SIZE=5", "SYNC_WRITERS=2"},
			want:    report{Redis: redisMini, MongoDB: mongodbFerret, Database: "mine", BulkSize: "5", Writers: "2"},
			says:    `Redis protocol by miniredis \d+\.\d+\.\d+ \(embedded, ` + loopback + `\), MongoDB wire by FerretDB \d+\.\d+\.\d+ \(embedded, ` + loopback + `\)`,
		},
		{
			name:     "redis-server and mongod",
			programs: []string{redisServer, mongodbServer},
			environ:  []string{"REDIS_DB=63"},
			want:     report{Redis: redisServer, MongoDB: mongodbServer, Database: "codex"},
			says:     `Redis \d+\.\d+\.\d+ \(redis-server, ` + loopback + `\), MongoDB \d+\.\d+\.\d+ \(mongod, ` + loopback + `\)`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, tt.programs...)
			b.environ = append(b.environ, tt.environ...)
			devstack := b.start(t, append(tt.args, "--", "probe", "once")...)
			got := devstack.report(t)
			code, stderr := devstack.wait(t)
			if code != 0 {
				t.Errorf("exit status %d, want the probe's 0", code)
			}
			if !regexp.MustCompile(`^devstack: ` + tt.says + `\n$`).MatchString(stderr) {
				t.Errorf("devstack said %q, want one line like %q", stderr, tt.says)
			}
			if !got.Expired {
				t.Error("a key outlived its time to live")
			}
			if pooled := strings.Contains(got.URI, "maxPoolSize=1"); pooled != (tt.want.MongoDB == mongodbFerret) {
				t.Errorf("MONGODB_URI is %s", got.URI)
			}
			checkGone(t, "Redis", got.RedisAddr)
			checkGone(t, "MongoDB", got.MongoDBAddr)
			b.checkNothingLeft(t)
			compared := report{Redis: got.Redis, MongoDB: got.MongoDB, Database: got.Database, BulkSize: got.BulkSize, Writers: got.Writers}
			if compared != tt.want {
				t.Errorf("the command got %+v, want %+v", compared, tt.want)
			}
		})
	}
}

func TestServersOfTheEnvironmentAreUsed(t *testing.T) {
	t.Parallel()
	mini := miniredis.NewMiniRedis()
	mini.RequireAuth("s3cret")
	if err := mini.Start(); err != nil {
		t.Fatal(err)
	}
	defer mini.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go ageKeys(ctx, mini)
	mongodb, err := ferret.Start(t.Context(), t.TempDir(), slog.Default())
	if err != nil {
		t.Fatal(err)
	}
	defer mongodb.Stop(5 * time.Second)

	b := setup(t, redisServer, mongodbServer) // which must not be started
	b.environ = append(b.environ, "REDIS_PORT="+mini.Port(), "REDIS_PASSWORD=s3cret", "REDIS_DB=2",
		"MONGODB_URI="+mongodb.URI(), "MONGODB_DATABASE=mine")
	devstack := b.start(t, "--", "probe", "once")
	got := devstack.report(t)
	code, stderr := devstack.wait(t)
	if code != 0 {
		t.Errorf("exit status %d, want the probe's 0; stderr:\n%s", code, stderr)
	}
	if got.Redis != redisExternal || got.RedisAddr != mini.Addr() {
		t.Errorf("the command got Redis %s at %s, want the environment's at %s", got.Redis, got.RedisAddr, mini.Addr())
	}
	if got.MongoDB != mongodbExternal || got.URI != mongodb.URI() || got.Database != "mine" {
		t.Errorf("the command got MongoDB %s at %s with database %s, want the environment's", got.MongoDB, got.URI, got.Database)
	}
	if got.BulkSize != "" || got.Writers != "" {
		t.Errorf("the command got SYNC_BULK_SIZE=%q and SYNC_WRITERS=%q, which are for FerretDB only", got.BulkSize, got.Writers)
	}
	if strings.Contains(stderr, "s3cret") {
		t.Errorf("devstack told the password: %s", stderr)
	}
	for _, address := range []string{mini.Addr(), mongodb.Address()} {
		conn, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			t.Errorf("devstack stopped a server that is not its own: %v", err)
			continue
		}
		_ = conn.Close()
	}
	b.checkNothingLeft(t)
}

func TestExitStatusIsTheCommands(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		args []string
		code int
		says string
	}{
		{"success", []string{"--", "/bin/sh", "-c", "exit 0"}, 0, ""},
		{"failure", []string{"--", "/bin/sh", "-c", "exit 7"}, 7, ""},
		{"without dashes", []string{"/bin/sh", "-c", "exit 8"}, 8, ""},
		{"killed", []string{"--", "/bin/sh", "-c", "kill -KILL $$"}, 137, ""},
		{"arguments with spaces", []string{"--", "/bin/sh", "-c", `test "$1" = "a b"`, "sh", "a b"}, 0, ""},
		{"no such command", []string{"--", "nonesuch"}, 127, "nonesuch"},
		{"no command", nil, 2, "no COMMAND given"},
		{"no such flag", []string{"--nonesuch"}, 2, "nonesuch"},
		{"help", []string{"--help"}, 0, "Usage: devstack [flags] -- COMMAND"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			code, stderr := b.start(t, tt.args...).wait(t)
			if code != tt.code || !strings.Contains(stderr, tt.says) {
				t.Errorf("exit status %d, want %d; want %q in stderr:\n%s", code, tt.code, tt.says, stderr)
			}
			b.checkNothingLeft(t)
		})
	}
}

func TestServersThatFail(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, program, script string
		args, environ         []string
		says                  []string
	}{
		{
			name: "no redis-server where one is required", args: []string{"--require-redis-server"},
			says: []string{"a real Redis is required", "redis-server"},
		},
		{
			name: "a redis-server that ends", program: redisServer, script: "echo the disk is on fire; exit 3",
			says: []string{"starting redis-server", "ended before it answered", "exit status 3", "the disk is on fire"},
		},
		{
			name: "a mongod that ends", program: mongodbServer, script: "echo out of cheese >&2; exit 4",
			says: []string{"starting mongod", "ended before it answered", "exit status 4", "out of cheese"},
		},
		{name: "a REDIS_DB that is none", environ: []string{"REDIS_DB=first"}, says: []string{"REDIS_DB", "first"}},
		{name: "a MONGODB_URI that is none", environ: []string{"MONGODB_URI=postgres://u:s3cret@h/d"}, says: []string{"MONGODB_URI"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.environ = append(b.environ, tt.environ...)
			if tt.program != "" {
				b.script(t, tt.program, tt.script)
			}
			code, stderr := b.start(t, append(tt.args, "--", "/bin/sh", "-c", "echo COMMAND RAN >&2")...).wait(t)
			if code != 1 {
				t.Errorf("exit status %d, want 1", code)
			}
			for _, says := range tt.says {
				if !strings.Contains(stderr, says) {
					t.Errorf("no %q in stderr:\n%s", says, stderr)
				}
			}
			for _, never := range []string{"COMMAND RAN", "s3cret"} {
				if strings.Contains(stderr, never) {
					t.Errorf("%q in stderr:\n%s", never, stderr)
				}
			}
			b.checkNothingLeft(t)
		})
	}
}

func TestServerThatEndsMeanwhileEndsTheCommand(t *testing.T) {
	t.Parallel()
	b := setup(t, redisServer)
	devstack := b.start(t, "--", "/bin/sh", "-c", "probe once; exec /bin/sleep 60")
	got := devstack.report(t)
	if err := syscall.Kill(got.RedisPID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	code, stderr := devstack.wait(t)
	if code != 1 || !strings.Contains(stderr, "redis-server ended by itself (signal: killed)") {
		t.Errorf("exit status %d, want 1 and the reason; stderr:\n%s", code, stderr)
	}
	checkGone(t, "MongoDB", got.MongoDBAddr)
	b.checkNothingLeft(t)
}

func TestSignals(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		signal syscall.Signal
		group  bool // to the whole foreground group, as a terminal does
	}{
		{"Ctrl-C", syscall.SIGINT, true},
		{"SIGTERM", syscall.SIGTERM, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, redisServer, mongodbServer)
			devstack := b.start(t, "--", "probe", "hold")
			devstack.report(t)
			target := devstack.cmd.Process.Pid
			if tt.group {
				target = -target
			}
			if err := syscall.Kill(target, tt.signal); err != nil {
				t.Fatal(err)
			}
			got := devstack.report(t) // which the probe writes only if both servers still answer
			code, stderr := devstack.wait(t)
			if code != 42 {
				t.Errorf("exit status %d, want the probe's 42; stderr:\n%s", code, stderr)
			}
			if got.Signal != tt.signal.String() {
				t.Errorf("the command got signal %q, want %q", got.Signal, tt.signal)
			}
			checkGone(t, "Redis", got.RedisAddr)
			checkGone(t, "MongoDB", got.MongoDBAddr)
			b.checkNothingLeft(t)
		})
	}
}

func TestSignalWhileServersStart(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.script(t, redisServer, "echo $$ > "+b.bin+"/started; exec /bin/sleep 60")
	devstack := b.start(t, "--", "/bin/sh", "-c", "exit 0")
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(b.bin + "/started"); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("redis-server was not started")
		}
	}
	if err := devstack.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code, stderr := devstack.wait(t); code != 143 {
		t.Errorf("exit status %d, want 143; stderr:\n%s", code, stderr)
	}
	b.checkNothingLeft(t)
}

func TestNothingOutlivesAKilledDevstack(t *testing.T) {
	t.Parallel()
	b := setup(t, redisServer, mongodbServer)
	devstack := b.start(t, "--", "probe", "hold")
	got := devstack.report(t)
	if err := devstack.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if code, _ := devstack.wait(t); code != -1 {
		t.Fatalf("exit status %d, want the one of a killed process", code)
	}
	checkGone(t, "Redis", got.RedisAddr)
	checkGone(t, "MongoDB", got.MongoDBAddr)
	for deadline := time.Now().Add(10 * time.Second); syscall.Kill(got.PID, 0) == nil && !zombie(got.PID); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the command, process %d, is still there", got.PID)
		}
	}

	// The next devstack removes its files, once they are old enough.
	locks, err := filepath.Glob(filepath.Join(b.tmp, tempDirPattern, tempDirLock))
	if err != nil || len(locks) != 1 {
		t.Fatalf("locks %q, error %v; want the lock of the killed devstack", locks, err)
	}
	old := time.Now().Add(-2 * abandonedAfter)
	if err := os.Chtimes(locks[0], old, old); err != nil {
		t.Fatal(err)
	}
	if code, stderr := b.start(t, "--", "/bin/sh", "-c", "exit 0").wait(t); code != 0 {
		t.Errorf("exit status %d; stderr:\n%s", code, stderr)
	}
	b.checkNothingLeft(t)
}

// zombie reports whether a process has ended but was not reaped, which its new parent must do.
func zombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && bytes.Contains(stat, []byte(") Z "))
}
