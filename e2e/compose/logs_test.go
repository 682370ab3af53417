//go:build compose

package compose_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
)

// attrs are attributes of a line of a log. JSON's numbers are float64.
type attrs map[string]any

// line is a line of a deployable's log.
type line struct {
	container, service string
	attrs              attrs
}

// logs are those of all the project's deployables, of containers that are gone, too: each is read from its start on,
// since its logs go with it.
type logs struct {
	project *project
	reading sync.WaitGroup

	mu     sync.Mutex
	lines  []line
	seen   map[string]bool // a container that starts again is read again
	broken []string
}

// follow reads the logs until the test ends.
func follow(t *testing.T, p *project) *logs {
	t.Helper()
	l := &logs{project: p, seen: make(map[string]bool)}
	ctx, cancel := context.WithCancel(context.Background())
	events := p.command(ctx, "docker", "events", "--filter", "type=container", "--filter", "event=start",
		"--filter", "label=com.docker.compose.project="+p.name,
		"--format", `{{.ID}} {{index .Actor.Attributes "com.docker.compose.service"}}`)
	out, err := events.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := events.Start(); err != nil {
		t.Fatal(err)
	}
	l.reading.Go(func() {
		started := bufio.NewScanner(out)
		for started.Scan() {
			container, service, _ := strings.Cut(started.Text(), " ")
			if slices.Contains(deployables, service) {
				l.reading.Go(func() { l.read(ctx, container, service) })
			}
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
	out, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	go func() { _ = w.CloseWithError(cmd.Run()) }() // the container may be gone already
	lines := bufio.NewReader(out)
	for {
		text, err := lines.ReadString('\n')
		if text != "" {
			l.add(container, service, text)
		}
		if err != nil {
			return
		}
	}
}

func (l *logs) add(container, service, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.seen[container+text] {
		return
	}
	l.seen[container+text] = true
	var a attrs
	if err := json.Unmarshal([]byte(text), &a); err != nil {
		if strings.HasPrefix(strings.ToLower(text), "error") { // docker's own: the container is gone
			return
		}
		l.broken = append(l.broken, service+": "+text)
		return
	}
	l.lines = append(l.lines, line{container, service, a})
}

// find returns the lines with the message and all of the attributes.
func (l *logs) find(msg string, want attrs) []line {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []line
next:
	for _, line := range l.lines {
		if line.attrs["msg"] != msg {
			continue
		}
		for name, value := range want {
			if line.attrs[name] != value {
				continue next
			}
		}
		found = append(found, line)
	}
	return found
}

// wait waits until there are n such lines, and returns them.
func (l *logs) wait(t *testing.T, n int, msg string, want attrs) []line {
	t.Helper()
	var found []line
	within(t, patience, fmt.Sprintf("%d times %q %v in the logs", n, msg, want), func() bool {
		found = l.find(msg, want)
		return len(found) >= n
	})
	return found
}

// of counts the lines of one container with the message.
func (l *logs) of(container, msg string) int {
	n := 0
	for _, line := range l.find(msg, nil) {
		if line.container == container {
			n++
		}
	}
	return n
}

// wantSound checks what no log may have.
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
	for _, line := range l.lines {
		if line.attrs["level"] == "ERROR" {
			t.Errorf("%s: %v", line.service, line.attrs)
		}
	}
	l.broken = nil
}
