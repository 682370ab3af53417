//go:build unix

package telemetry

import (
	"bufio"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"
)

// A reader that does not read costs lines, not time, and learns how many.
func TestReaderThatDoesNotRead(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = r.Close(), w.Close() })
	const timeout = 50 * time.Millisecond
	var lost int
	o := &output{file: w, timeout: timeout, found: func(n int) { lost += n; fmt.Fprintln(w, "found") }}
	log := slog.New(slog.NewJSONHandler(o, nil))
	const lines = 300
	began := time.Now()
	for i := range lines { // 600 KB, ten times what a pipe takes
		log.Info("line", "i", i, "text", strings.Repeat("x", 2000))
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("%d lines took %s", lines, took)
	}
	read := make(chan int)
	go func() {
		n := 0
		for scanner := bufio.NewScanner(r); scanner.Scan(); n++ {
		}
		read <- n
	}()
	for deadline := time.Now().Add(10 * time.Second); lost == 0 && time.Now().Before(deadline); {
		log.Info("again")
	}
	_ = w.Close()
	if n := <-read; lost == 0 || n+lost < lines {
		t.Errorf("%d lines were read and %d lost, of %d and more", n, lost, lines)
	}
}
