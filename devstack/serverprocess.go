package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/codex-api/codex-jobs/internal/procs"
	"github.com/codex-api/codex-jobs/internal/testbed/freeport"
)

// logTail is how much of a failed server's log is shown.
const logTail = 2000

// serverProcess is a server that runs as a child process and logs into a file.
type serverProcess struct {
	name    string
	process *procs.Process
	port    *freeport.Port
	logPath string
}

// startServerProcess starts the program at path, and returns once ready reports that this process answers. The arguments are
// a function of the port, a free one of the loopback interface.
func startServerProcess(
	ctx context.Context, name, path, logPath string, arguments func(port string) []string,
	ready func(ctx context.Context, port string, pid int) error,
) (*serverProcess, string, error) {
	port, err := freeport.Reserve()
	if err != nil {
		return nil, "", fmt.Errorf("starting %s: %w", name, err)
	}
	p, err := launch(name, path, logPath, arguments(port.String()))
	if err != nil {
		return nil, "", errors.Join(err, port.Release())
	}
	p.port = port
	err = untilAnswer(ctx, p.process.Done(), func(ctx context.Context) error { return ready(ctx, port.String(), p.process.PID()) })
	if err != nil {
		p.stop()
		return nil, "", fmt.Errorf("starting %s on %s: %w (%s)%s", name, port.Address(), err, p.process.Status(), p.tail())
	}
	return p, port.String(), nil
}

// launch starts the program with its output in the file at logPath.
func launch(name, path, logPath string, args []string) (*serverProcess, error) {
	log, err := os.Create(logPath)
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	defer log.Close() // the process has its own descriptor
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = log, log
	// Out of reach of Ctrl-C, so that COMMAND still has its servers while it ends. It is killed when devstack is.
	process, err := procs.Start(cmd, procs.Options{Name: name})
	if err != nil {
		return nil, err
	}
	return &serverProcess{name: name, process: process, logPath: logPath}, nil
}

func (p *serverProcess) stop() {
	p.process.Stop(serverGrace)
	_ = p.port.Release() // nothing depends on it any more
}

// failure returns an error that says how the server ended by itself.
func (p *serverProcess) failure() error {
	return fmt.Errorf("%s ended by itself (%s)%s", p.name, p.process.Status(), p.tail())
}

// tail returns the end of the server's log, introduced and indented.
func (p *serverProcess) tail() string {
	log, err := os.ReadFile(p.logPath)
	if err != nil {
		return fmt.Sprintf("; reading its log: %v", err)
	}
	text := strings.TrimSpace(string(log))
	if text == "" {
		return "; it logged nothing"
	}
	if len(text) > logTail {
		text = text[len(text)-logTail:]
		if _, whole, found := strings.Cut(text, "\n"); found {
			text = whole
		}
	}
	return "; the end of its log:\n\t" + strings.ReplaceAll(text, "\n", "\n\t")
}
