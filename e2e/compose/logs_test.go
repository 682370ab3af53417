//go:build compose

package compose_test

import (
	"bufio"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/codex-api/codex-jobs/internal/procs"
)

// attrs are fields of a line of a log. JSON's numbers are float64.
type attrs = procs.Attrs

// line is a line of a deployable's log.
type line struct {
	container, service string
	attrs              attrs
}

// Fields that logs adds to each line.
const (
	containerField = "_container"
	serviceField   = "_service"
)

// logs has the logs of all the project's deployables. It reads each container from its start, because the logs are lost when
// the container is removed.
type logs struct {
	project *project
	reading sync.WaitGroup
	all     procs.Log

	mu     sync.Mutex
	seen   map[string]bool   // a container that starts again is read again
	exits  map[string]string // the status of each container that has ended, by container
	broken []string
}

// follow reads the logs until the test ends.
func follow(t *testing.T, p *project) *logs {
	t.Helper()
	l := &logs{project: p, seen: make(map[string]bool), exits: make(map[string]string)}
	ctx, cancel := context.WithCancel(context.Background())
	events := p.command(ctx, "docker", "events", "--filter", "type=container", "--filter", "event=start", "--filter", "event=die",
		"--filter", "label=com.docker.compose.project="+p.name,
		"--format", `{{.Action}} {{.ID}} {{index .Actor.Attributes "com.docker.compose.service"}} {{index .Actor.Attributes "exitCode"}}`)
	out, err := events.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := events.Start(); err != nil {
		t.Fatal(err)
	}
	l.reading.Go(func() {
		all := bufio.NewScanner(out)
		for all.Scan() {
			event := strings.Split(all.Text(), " ")
			if len(event) < 4 || !slices.Contains(deployables, event[2]) {
				continue
			}
			if event[0] == "die" {
				l.exited(event[1], event[3])
				continue
			}
			l.reading.Go(func() { l.read(ctx, event[1], event[2]) })
		}
		_ = events.Wait() // it was cancelled
	})
	t.Cleanup(func() {
		cancel()
		l.reading.Wait()
	})
	return l
}

func (l *logs) read(ctx context.Context, container, service string) {
	cmd := l.project.command(ctx, "docker", "logs", "--follow", container)
	log := &procs.Log{Each: func(e procs.Entry) { l.add(container, service, e) }}
	cmd.Stdout, cmd.Stderr = log, log
	_ = cmd.Run() // the container may be gone already
	log.End()
}

func (l *logs) exited(container, status string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.exits[container] = status
}

// exit returns the status with which a container has ended, "" before it has.
func (l *logs) exit(container string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.exits[container]
}

func (l *logs) add(container, service string, e procs.Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.seen[container+e.Text]:
		return
	case e.Attrs != nil:
		e.Attrs[containerField], e.Attrs[serviceField] = container, service
		text, err := json.Marshal(e.Attrs)
		if err != nil {
			l.broken = append(l.broken, service+": "+err.Error())
			return
		}
		_, _ = l.all.Write(append(text, '\n')) // it never fails
	case !strings.HasPrefix(strings.ToLower(e.Text), "error"): // docker's own: the container is gone
		l.broken = append(l.broken, service+": "+e.Text)
	}
	l.seen[container+e.Text] = true
}

func lines(entries []procs.Entry) []line {
	var found []line
	for _, e := range entries {
		container, _ := e.Attrs[containerField].(string)
		service, _ := e.Attrs[serviceField].(string)
		found = append(found, line{container, service, e.Attrs})
	}
	return found
}

// find returns the lines with the message and all of the attributes.
func (l *logs) find(msg string, want attrs) []line {
	return lines(l.all.Find(procs.Match{Msg: msg, Attrs: want}))
}

// wait waits until there are n such lines, and returns them.
func (l *logs) wait(t *testing.T, n int, msg string, want attrs) []line {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	match := procs.Match{Msg: msg, Attrs: want}
	found, err := l.all.Wait(ctx, n, match)
	if err != nil {
		t.Fatalf("waiting for %d lines %s in the logs, of which there are %d: %v", n, match, len(found), err)
	}
	return lines(found)
}

// of counts the lines of one container with the message.
func (l *logs) of(container, msg string) int {
	return len(l.find(msg, attrs{containerField: container}))
}

// wantSound checks that the logs have no line that no log may have.
func (l *logs) wantSound(t *testing.T) {
	t.Helper()
	for _, line := range l.find("User sync job failed", nil) {
		t.Errorf("a run has failed: %v", line.attrs)
	}
	for _, line := range l.find("User sync job failed, will be tried again", nil) {
		t.Errorf("an attempt has failed: %v", line.attrs)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, text := range l.broken {
		t.Errorf("a line that is no JSON: %s", text)
	}
	for _, line := range l.find("", attrs{"level": "ERROR"}) {
		t.Errorf("%s: %v", line.service, line.attrs)
	}
	l.broken = nil
}
