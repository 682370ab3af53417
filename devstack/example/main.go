// Command example runs the system in examples/directory to try it out: it adds users that know nothing but their ID, starts the
// directory, the API, the scheduler and two workers, and says what to try.
//
// "make example" runs it under devstack, and it takes its Redis and MongoDB from the environment. When a process ends, all end with
// it.
//
//	example -bin DIR
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/codex-api/codex-jobs/internal/procs"
)

const (
	userCount   = 300
	fillTimeout = time.Minute
)

func main() {
	bin := flag.String("bin", "", "the directory with the example's programs")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	err := run(ctx, *bin)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "example: %v\n", err)
		os.Exit(1)
	}
}

// run runs the example until ctx ends, which is its ordinary end, or until a process ends.
func run(ctx context.Context, bin string) error {
	uri, database := os.Getenv("MONGODB_URI"), os.Getenv("MONGODB_DATABASE")
	if bin == "" || uri == "" || database == "" {
		return errors.New("usage: devstack -- example -bin DIR")
	}
	bin, err := filepath.Abs(bin)
	if err != nil {
		return fmt.Errorf("looking for the programs: %w", err)
	}
	port := cmp.Or(os.Getenv("PORT"), "4000")
	for _, p := range []string{port, directoryPort} {
		if err := checkFree(p); err != nil {
			return err
		}
	}
	if err := fill(ctx, uri, database); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	group := procs.NewGroup()
	defer group.Stop(procs.StopGrace)
	var printing sync.Mutex
	for _, p := range []struct{ name, program string }{
		{"directory", "directory"}, {"api", procs.API}, {"scheduler", procs.Scheduler},
		{"worker-1", procs.Worker}, {"worker-2", procs.Worker},
	} {
		cmd := exec.Command(filepath.Join(bin, p.program))
		cmd.Dir = bin // which has no .env: its settings would not be for the example
		if p.program == "directory" {
			cmd.Args = append(cmd.Args, "-addr", "127.0.0.1:"+directoryPort, "-every", "1m", "-unknown", "u0007", "-broken", "u0042")
		}
		cmd.Env = append(os.Environ(), "PORT="+port, "DIRECTORY_URL=http://127.0.0.1:"+directoryPort, "LOG_FORMAT=text",
			"USER_SYNC_INTERVAL=30s", "ADMIN_PORT=off")
		// Out of reach of the terminal's Ctrl-C: a second signal would end a process at once.
		_, err := group.Start(cmd, procs.Options{Name: p.name, Log: &procs.Log{Each: func(e procs.Entry) {
			printing.Lock()
			defer printing.Unlock()
			fmt.Printf("%-9s| %s\n", p.name, e.Text)
		}}})
		if err != nil {
			return err
		}
	}
	printing.Lock()
	fmt.Printf(welcome, "http://127.0.0.1:"+port, "http://127.0.0.1:"+directoryPort)
	printing.Unlock()
	select {
	case <-ctx.Done():
		return nil
	case p := <-group.Failed():
		return p.Failure()
	}
}

// directoryPort is the port of the directory.
const directoryPort = "4100"

const welcome = `
  The example starts. Every 30 seconds its users become what the directory says of them, which changes every minute. The directory
  does not know u0007, and says nonsense of u0042, so a full run has one error.

    Dashboard  %[1]s/dashboard
    Jobs       %[1]s/jobs/status
    Directory  %[2]s/users/u0001, and what it has counted at %[2]s/stats

  Try:

    curl -X POST %[1]s/jobs/trigger/user-sync -H 'Content-Type: application/json' -d '{"syncType":"full","batchSize":5}'
    curl -X POST '%[2]s/away?for=20s'     while that run is active: it waits
    curl -X POST %[1]s/jobs/trigger/welcome-mail -H 'Content-Type: application/json' -d '{"email":"ada@example.com"}'

  Ctrl-C ends all of it.

`

// checkFree returns an error unless a server will be able to listen on the port.
func checkFree(port string) error {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", port))
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("port %s is already in use: stop what uses it; PORT=5000 make example changes the API's port, 4000", port)
	}
	if err != nil {
		return fmt.Errorf("trying port %s: %w", port, err)
	}
	return l.Close()
}

// fill adds the users.
func fill(ctx context.Context, uri, database string) error {
	ctx, cancel := context.WithTimeout(ctx, fillTimeout)
	defer cancel()
	client, err := mongo.Connect(options.Client().ApplyURI(uri))
	if err != nil {
		return fmt.Errorf("connecting to MongoDB: %w", err)
	}
	defer func() { _ = client.Disconnect(context.WithoutCancel(ctx)) }() // only closes sockets
	users := make([]bson.D, userCount)
	for i := range users {
		users[i] = bson.D{{Key: "_id", Value: fmt.Sprintf("u%04d", i)}}
	}
	if _, err := client.Database(database).Collection("users").InsertMany(ctx, users); err != nil {
		return fmt.Errorf("adding users: %w", err)
	}
	return nil
}
