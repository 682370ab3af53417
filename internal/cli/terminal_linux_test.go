package cli_test

import (
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/codex-api/codex-jobs/internal/testbed"
)

// openTerminal returns both ends of a pseudo-terminal of so many columns.
func openTerminal(t *testing.T, columns uint16) (user, program *os.File) {
	t.Helper()
	user, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = user.Close() })
	fd := int(user.Fd())
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns})
	}
	if err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return user, program
}

// onTerminal runs the binary with a terminal as its stdout and stderr and returns the exit status and what it wrote.
func onTerminal(t *testing.T, columns uint16, args ...string) (status int, written string) {
	t.Helper()
	user, program := openTerminal(t, columns)
	cmd, _, _ := command(t, nil, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = program, program, program
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = program.Close()
	var text strings.Builder
	var reading sync.WaitGroup
	reading.Go(func() { _, _ = io.Copy(&text, user) }) // ends with an error when the last writer has
	status = exitOf(t, cmd.Wait())
	reading.Wait()
	return status, text.String()
}

var escape = regexp.MustCompile(`\x1b\[[0-9;?]*[A-Za-z]`)

// drawn returns all that was drawn, without the control sequences.
func drawn(written string) []string {
	return strings.FieldsFunc(escape.ReplaceAllString(written, ""), func(r rune) bool { return r == '\r' || r == '\n' })
}

// On a terminal there is a bar, in one line, with the rate and the time left.
func TestBar(t *testing.T) {
	t.Parallel()
	for _, columns := range []uint16{120, 80, 40} {
		t.Run(strconv.Itoa(int(columns)), func(t *testing.T) {
			t.Parallel()
			f := newSystem(t)
			f.follow(waits, active0, active42, noRedis, active43, delayed, active60, completed)
			status, written := onTerminal(t, columns, "trigger", "user-sync", "--full", "--wait", "--server", f.URL)
			rows := drawn(written)
			if status != 0 {
				t.Errorf("the exit status is %d: %q", status, rows)
			}
			for _, row := range rows {
				if strings.Contains(row, "%") && strings.Contains(row, "|") && len([]rune(strings.TrimRight(row, " "))) > int(columns) {
					t.Errorf("a row does not fit: %q", row)
				}
			}
			all := strings.Join(rows, "\n")
			for _, want := range []string{`(?m)^ +0% \|.*waiting`, `(?m)^ +42% \|.*█.*active`, `503: Redis is not available; try again later; trying again`, `the server is back`, `(?m)^ +100% \|`, `State +completed`} {
				if !regexp.MustCompile(want).MatchString(all) {
					t.Errorf("nothing is like %s in\n%s", want, all)
				}
			}
			if pace := regexp.MustCompile(`, [0-9.]+ %/s, [0-9a-z.]+ left`); columns >= 80 && !pace.MatchString(all) {
				t.Errorf("there is no pace in\n%s", all)
			}
		})
	}
}

// The watch is redrawn in its place.
func TestWatchOnATerminal(t *testing.T) {
	t.Parallel()
	f := newSystem(t)
	start := time.Now()
	user, program := openTerminal(t, 100)
	cmd, _, _ := command(t, nil, "status", "--watch", "--interval", "100ms", "--server", f.URL)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = program, program, program
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = program.Close()
	var text strings.Builder
	var reading sync.WaitGroup
	reading.Go(func() { _, _ = io.Copy(&text, user) })
	// A look asks six times. Once the third one asks, two are drawn.
	testbed.Eventually(t, "a third look", func() bool { return len(f.seen()) > 12 })
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	status := exitOf(t, cmd.Wait())
	reading.Wait()
	if homes := strings.Count(text.String(), "\x1b[H"); status != 130 || homes < 2 || !strings.Contains(text.String(), "every 100ms; Ctrl-C ends it") {
		t.Errorf("after %s the exit status is %d, it was redrawn %d times: %q", time.Since(start), status, homes, text.String())
	}
}
