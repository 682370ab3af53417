// Package ferret runs FerretDB on SQLite inside this process, fast enough for syncs.
//
// FerretDB speaks MongoDB's protocol, so that development and tests need no MongoDB. By itself it is slow at finding
// documents by _id, so the package adds indexes. One limit remains: FerretDB holds one of 100 SQLite connections for each
// update of a command until that command ends, and waits for ever when it needs one more. All clients together must stay
// below 100 updates in unfinished commands. So the URI allows one connection for each client, and clients must limit the
// updates in a command.
package ferret

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"sync"
	"time"

	"github.com/FerretDB/FerretDB/ferretdb"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// starting serialises starts: FerretDB writes to a package variable without a lock.
var starting sync.Mutex

// Server is a FerretDB that answers.
type Server struct {
	dir    string   // of the SQLite files
	uri    *url.URL // for clients
	client *mongo.Client
	log    *slog.Logger

	cancel  context.CancelFunc
	running sync.WaitGroup
}

// Start starts a FerretDB on a free port of the loopback interface. It keeps its files in the directory dir, which must
// exist. Start returns once it answers. Errors with indexes after that go to log.
func Start(ctx context.Context, dir string, log *slog.Logger) (*Server, error) {
	return Listen(ctx, "127.0.0.1:0", dir, log)
}

// Listen is Start with an address of the caller's choice.
func Listen(ctx context.Context, address, dir string, log *slog.Logger) (*Server, error) {
	starting.Lock()
	// Embedded, FerretDB turns its telemetry off by itself. Its log is about connections that come and go.
	db, err := ferretdb.New(&ferretdb.Config{
		Listener: ferretdb.ListenerConfig{TCP: address},
		Logger:   slog.New(slog.DiscardHandler),
		Handler:  "sqlite",
		// Nothing here has to survive a power cut.
		SQLiteURL: "file:" + dir + "/?_pragma=synchronous(off)",
	})
	starting.Unlock()
	if err != nil {
		return nil, err
	}
	running, cancel := context.WithCancel(context.Background())
	s := &Server{dir: dir, log: log, cancel: cancel}
	s.running.Go(func() { _ = db.Run(running) }) // ends with running, and never with an error

	if err := s.connect(ctx, db.MongoDBURI()); err != nil {
		s.Stop(time.Second)
		return nil, err
	}
	s.running.Go(func() { s.keepIndexed(running) })
	return s, nil
}

// connect makes the server's own client, and checks that FerretDB answers.
func (s *Server) connect(ctx context.Context, uri string) (err error) {
	if s.uri, err = url.Parse(uri); err != nil {
		return fmt.Errorf("reading its URI: %w", err)
	}
	s.uri.RawQuery = "maxPoolSize=1"
	if s.client, err = mongo.Connect(options.Client().ApplyURI(s.URI())); err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	if err := s.client.Ping(ctx, nil); err != nil {
		return fmt.Errorf("waiting for an answer on %s: %w", s.Address(), err)
	}
	return nil
}

// URI returns the connection string for clients.
func (s *Server) URI() string { return s.uri.String() }

// Address returns host and port.
func (s *Server) Address() string { return s.uri.Host }

// Stop stops the server. Connected clients have a few seconds to end, of which Stop waits for grace at most. Whatever
// remains ends with this process.
func (s *Server) Stop(grace time.Duration) {
	s.cancel()
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	if s.client != nil {
		_ = s.client.Disconnect(ctx) // only closes sockets
	}
	ended := make(chan struct{})
	go func() {
		s.running.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-ctx.Done():
	}
}
