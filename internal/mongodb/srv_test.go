package mongodb

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/codex-api/codex-jobs/internal/procs"
	"github.com/codex-api/codex-jobs/internal/syncrun"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

// A mongodb+srv host that DNS does not know yet is a server that is away.
func TestHostThatIsNotFound(t *testing.T) {
	t.Parallel()
	b := setup(t)
	client, err := Connect("mongodb+srv://nowhere.codex.invalid/shop", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Ping(t.Context()); !errors.Is(err, syncrun.ErrUnavailable) {
		t.Errorf("a host that is not found: %v", err)
	}

	// Now DNS is away, then it hangs, then it answers.
	found := make(chan struct{})
	client.resolve = func(context.Context) error {
		select {
		case <-found:
			return nil
		default:
			return &net.DNSError{Err: "no such host", Name: "nowhere", IsNotFound: true}
		}
	}
	client.connect = func() (err error) {
		client.client, client.writes, err = connect(b.uri, slog.New(slog.DiscardHandler), nil)
		return err
	}
	log, logger := testbed.NewLog(t)
	awaited := make(chan error, 1)
	go func() { awaited <- Await(t.Context(), client, logger) }()
	testbed.Await(t, log, 2, procs.Match{Msg: "Waiting for MongoDB"})
	close(found)
	if err := testbed.Receive(t, "the end of the wait", awaited); err != nil {
		t.Errorf("after DNS has answered: %v", err)
	}
	if _, err := client.Database("other").ListCollectionNames(t.Context(), bson.D{}); err != nil {
		t.Error(err)
	}
	if err := client.Close(); err != nil {
		t.Error(err)
	}
	if err := client.Ping(t.Context()); err == nil {
		t.Error("a closed client answers")
	}
}

func TestHostThatHangs(t *testing.T) {
	t.Parallel()
	client, err := Connect("mongodb+srv://nowhere.codex.invalid", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	client.resolve = func(ctx context.Context) error {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		go func() { _ = client.Ping(ctx) }()
		if err := client.Ping(ctx); err == nil {
			t.Error("it answers")
		}
	}
	if err := client.Close(); err != nil {
		t.Error(err)
	}
}

func TestUnacknowledgedWritesAreRefused(t *testing.T) {
	t.Parallel()
	for _, uri := range []string{"mongodb://h/?w=0", "mongodb+srv://h.example.com/?w=0"} {
		if _, err := Connect(uri, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "w=0") {
			t.Errorf("%s: %v", uri, err)
		}
	}
}
