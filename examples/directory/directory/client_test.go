package directory_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"example.com/directory/directory"
	"example.com/directory/standin"
)

// serve starts a server, and returns a client of it.
func serve(t *testing.T, handler http.Handler) *directory.Client {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return directory.New(server.URL)
}

// More users than a page has are asked for page by page.
func TestUsers(t *testing.T) {
	t.Parallel()
	ids := []string{"gone", "odd"}
	for i := range 2 * directory.PageSize {
		ids = append(ids, fmt.Sprintf("u%04d", i))
	}
	entries, err := serve(t, standin.New(standin.Options{Unknown: ids[:1], Broken: ids[1:2]})).Users(t.Context(), ids)
	if err != nil {
		t.Fatal(err)
	}
	if _, known := entries["gone"]; known || len(entries) != len(ids)-1 {
		t.Errorf("%d entries, want one for each of %d users but the unknown one", len(entries), len(ids))
	}
	if entries["odd"].Err == nil {
		t.Error("nonsense was read as a user")
	}
	for _, id := range ids[2:] {
		if got := entries[id]; got.Err != nil || got.User != standin.Made(id, 0) {
			t.Errorf("%s: %+v", id, got)
		}
	}
}

// What can succeed later is Unavailable, with the time that the directory says.
func TestUnavailable(t *testing.T) {
	t.Parallel()
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	says := func(status int, retryAfter string) *directory.Client {
		return serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", retryAfter)
			w.WriteHeader(status)
			fmt.Fprint(w, "<html>")
		}))
	}
	for _, tt := range []struct {
		name   string
		client *directory.Client
		away   bool
		after  time.Duration
	}{
		{"too many calls", says(http.StatusTooManyRequests, "3"), true, 3 * time.Second},
		{"too many calls, no time", says(http.StatusTooManyRequests, "soon"), true, 0},
		{"away", says(http.StatusServiceUnavailable, ""), true, 0},
		{"refused connection", directory.New(closed.URL), true, 0},
		{"cut off", serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })), true, 0},
		{"nonsense", says(http.StatusOK, ""), false, 0},
		{"no right", says(http.StatusForbidden, ""), false, 0},
		{"no URL", directory.New("directory\n"), false, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := tt.client.Users(t.Context(), []string{"u0001"})
			away := new(directory.Unavailable)
			if err == nil || errors.As(err, &away) != tt.away || away.After != tt.after {
				t.Errorf("error %v, after %s; want it to be unavailable: %v, after %s", err, away.After, tt.away, tt.after)
			}
		})
	}
}

// A caller who does not wait any longer is told so, and not that the directory is away.
func TestCallerLeaves(t *testing.T) {
	t.Parallel()
	client := serve(t, standin.New(standin.Options{Latency: time.Minute}))
	leaves := errors.New("leaves")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(10*time.Millisecond, func() { cancel(leaves) })
	_, err := client.Users(ctx, []string{"u0001"})
	if away := new(directory.Unavailable); !errors.Is(err, leaves) || errors.As(err, &away) {
		t.Errorf("error %v", err)
	}
}
