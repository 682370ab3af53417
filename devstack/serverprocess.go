package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/codex-api/codex-jobs/devstack/process"
)

// logTail is how much of a failed server's log is shown.
const logTail = 2000

// serverProcess is a server that runs as a child process and logs into a file.
type serverProcess struct {
	name    string
	child   *process.Child
	logPath string
}

// startServerProcess starts the program at path, and returns once ready says that this very process answers. The
// arguments are a function of the port, which is a free one of the loopback interface.
func startServerProcess(
	ctx context.Context, name, path, logPath string, arguments func(port string) []string,
	ready func(ctx context.Context, port string, pid int) error,
) (*serverProcess, string, error) {
	var failure error
	for range startAttempts {
		port, err := freePort()
		if err != nil {
			return nil, "", fmt.Errorf("starting %s: %w", name, err)
		}
		p, err := launch(name, path, logPath, arguments(port))
		if err != nil {
			return nil, "", err
		}
		err = untilAnswer(ctx, p.child.Done(), func(ctx context.Context) error { return ready(ctx, port, p.child.PID()) })
		if err == nil {
			return p, port, nil
		}
		p.stop()
		failure = fmt.Errorf("starting %s on 127.0.0.1:%s: %w (%s)%s", name, port, err, p.child.Status(), p.tail())
		if !errors.Is(err, errEnded) {
			break
		}
	}
	return nil, "", failure
}

// launch starts the program with its output in the file at logPath.
func launch(name, path, logPath string, args []string) (*serverProcess, error) {
	log, err := os.Create(logPath)
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	defer log.Close() // the child has its own descriptor
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = log, log
	// Out of reach of Ctrl-C, so that COMMAND still has its servers while it ends; killed when devstack is.
	child, err := process.Start(cmd, process.Options{OwnGroup: true, DeathSignal: syscall.SIGKILL})
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	return &serverProcess{name: name, child: child, logPath: logPath}, nil
}

func (p *serverProcess) stop() { p.child.Stop(serverGrace) }

// failure says how the server ended by itself.
func (p *serverProcess) failure() error {
	return fmt.Errorf("%s ended by itself (%s)%s", p.name, p.child.Status(), p.tail())
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

// freePort returns a port of the loopback interface that nothing listens on now.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("finding a free port: %w", err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}
