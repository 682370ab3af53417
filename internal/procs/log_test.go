package procs_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/internal/procs"
)

// maxLine is where a longer line is broken.
const maxLine = 64 << 10

func write(t *testing.T, l *procs.Log, pieces ...string) {
	t.Helper()
	for _, piece := range pieces {
		if n, err := l.Write([]byte(piece)); n != len(piece) || err != nil {
			t.Errorf("wrote %d of %d bytes, error %v", n, len(piece), err)
		}
	}
}

func TestLines(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", maxLine)
	for _, tt := range []struct {
		name   string
		pieces []string
		want   []string
	}{
		{"nothing", nil, nil},
		{"an empty line", []string{"\n"}, []string{""}},
		{"lines in pieces", []string{"he", "llo\nwor", "ld", "\n"}, []string{"hello", "world"}},
		{"no end", []string{"last words"}, []string{"last words"}},
		{"JSON that is cut off", []string{`{"msg":"one"}` + "\n" + `{"msg":"tw`}, []string{`{"msg":"one"}`}},
		{"ends of another system", []string{"one\r\ntwo\r\n"}, []string{"one", "two"}},
		{"a line that fits", []string{long + "\n"}, []string{long}},
		{"a line that is too long", []string{long, "yz\n"}, []string{long, "yz"}},
		{"one much too long at once", []string{long + long + "yz\n"}, []string{long, long, "yz"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var copied bytes.Buffer
			var got []string
			l := &procs.Log{Copy: &copied, Each: func(e procs.Entry) { got = append(got, e.Text) }}
			write(t, l, tt.pieces...)
			l.End()
			if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", tt.want) {
				t.Errorf("got %.200q, want %.200q", got, tt.want)
			}
			if copied.String() != strings.Join(tt.pieces, "") {
				t.Errorf("copied %.200q", copied.String())
			}
		})
	}
}

func TestFind(t *testing.T) {
	t.Parallel()
	var l procs.Log
	write(t, &l,
		`{"time":"2026-11-24T04:50:26.1Z","msg":"begin","n":1,"of":"this"}`+"\n",
		`{"time":"2026-11-24T04:50:27.123456789Z","msg":"begin","n":2,"of":"that"}`+"\n",
		"panic: oh\n", " \n", `{"msg":"end","of":"that"}`+"\n", `["msg"]`+"\n")
	for _, tt := range []struct {
		match procs.Match
		want  int
		text  string
	}{
		{procs.Match{}, 6, ""},
		{procs.Match{Msg: "begin"}, 2, `"begin"`},
		{procs.Match{Msg: "begin", Attrs: procs.Attrs{"n": 2.0, "of": "that"}}, 1, `"begin" n=2 of=that`},
		{procs.Match{Msg: "begin", Attrs: procs.Attrs{"n": 2.0, "of": "this"}}, 0, `"begin" n=2 of=this`},
		{procs.Match{Attrs: procs.Attrs{"of": "that"}}, 2, "of=that"},
		{procs.Match{Text: "oh"}, 1, `with "oh" in it`},
		{procs.Match{Msg: "begin", Since: time.Date(2026, 11, 24, 4, 50, 27, 0, time.UTC)}, 1, `"begin" since 2026-11-24T04:50:27Z`},
	} {
		if got := l.Find(tt.match); len(got) != tt.want || tt.match.String() != tt.text {
			t.Errorf("%s: %d lines, want %d of %s", tt.match, len(got), tt.want, tt.text)
		}
	}
	if at := l.Find(procs.Match{Attrs: procs.Attrs{"n": 2.0}})[0].Time(); at.Nanosecond() != 123456789 {
		t.Errorf("the time of the second line is %s", at)
	}
	if odd := l.Odd(); fmt.Sprint(odd) != `[panic: oh ["msg"]]` {
		t.Errorf("odd lines: %q", odd)
	}
	if tail := l.Tail(2); tail != `{"msg":"end","of":"that"}`+"\n"+`["msg"]`+"\n" {
		t.Errorf("the end is %q", tail)
	}
	if all := l.String(); strings.Count(all, "\n") != 6 {
		t.Errorf("all of it is %q", all)
	}
}

// Each wait ends with its line, from any writer.
func TestWait(t *testing.T) {
	t.Parallel()
	const waiters, lines = 10, 200
	var l procs.Log
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	var waiting sync.WaitGroup
	for range waiters {
		waiting.Go(func() {
			if found, err := l.Wait(ctx, lines, procs.Match{Msg: "it"}); err != nil || len(found) != lines {
				t.Errorf("%d lines, %v", len(found), err)
			}
		})
	}
	for range lines {
		waiting.Go(func() { write(t, &l, `{"msg":"it"}`+"\n"+`{"msg":"other"}`+"\n") })
	}
	waiting.Wait()
}
