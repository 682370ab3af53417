// A client of a MongoDB deployment, with the driver's settings that a sync needs.

package mongodb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/event"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"
)

const (
	// DefaultAppName names these connections in the server's log.
	DefaultAppName = "codex-jobs"
	// DefaultServerSelectionTimeout is how long an operation waits for a server that can serve it. It is long enough for most
	// elections, and short enough for a caller that retries to log its errors in time.
	DefaultServerSelectionTimeout = 5 * time.Second
	// DefaultConnectTimeout is how long one connection may take. The driver's monitor uses it too, so it bounds how long a
	// server that stopped answering stays unnoticed.
	DefaultConnectTimeout = 5 * time.Second

	pingTimeout  = 5 * time.Second
	closeTimeout = 5 * time.Second
)

// Client is a connection pool to one MongoDB deployment.
type Client struct {
	client *mongo.Client
}

// Connect returns a client for the deployment that uri names. It connects when it is used. The connection string overrides this
// package's defaults, and adjust overrides both. Unless the connection string says otherwise, a majority acknowledges each
// write. Connect refuses writes that no server acknowledges. The driver's own retries are off, even if the connection string
// asks for them. The client logs servers that become unreachable, and their return.
func Connect(uri string, log *slog.Logger, adjust ...func(*options.ClientOptions)) (*Client, error) {
	opts := options.Client().ApplyURI(uri)
	if opts.AppName == nil {
		opts.SetAppName(DefaultAppName)
	}
	if opts.ServerSelectionTimeout == nil {
		opts.SetServerSelectionTimeout(DefaultServerSelectionTimeout)
	}
	if opts.ConnectTimeout == nil {
		opts.SetConnectTimeout(DefaultConnectTimeout)
	}
	if opts.WriteConcern == nil {
		opts.SetWriteConcern(writeconcern.Majority())
	}
	// The driver would retry without a wait, for as long as the operation's context lasts. That is a storm on a server in
	// trouble. Our callers retry with waits of their own, and all that they do can be done twice.
	opts.SetRetryReads(false).SetRetryWrites(false)
	opts.SetServerMonitor(serverMonitor(log))
	for _, f := range adjust {
		f(opts)
	}
	if !opts.WriteConcern.Acknowledged() {
		return nil, errors.New("connecting to MongoDB: the connection string must not ask for unacknowledged writes (w=0), which would count as failed")
	}
	client, err := mongo.Connect(opts)
	if err != nil {
		return nil, fmt.Errorf("connecting to MongoDB: %w", err)
	}
	return &Client{client: client}, nil
}

// Database returns the database with the name.
func (c *Client) Database(name string) *mongo.Database { return c.client.Database(name) }

// Ping returns an error if the deployment cannot serve writes. It takes at most a few seconds.
func (c *Client) Ping(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	if err := c.client.Ping(bounded, nil); err != nil {
		return classify(ctx, "pinging MongoDB", err)
	}
	return nil
}

// Close ends all connections, within a few seconds. The client cannot be used again.
func (c *Client) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if err := c.client.Disconnect(ctx); err != nil {
		return fmt.Errorf("disconnecting from MongoDB: %w", err)
	}
	return nil
}

// availability says whether a server could be reached last.
type availability int

const (
	unheardOf availability = iota
	reachable
	unreachable
)

// serverMonitor logs each change of a server between reachable and unreachable once, however many heartbeats and operations
// notice it. It logs addresses and the driver's errors, which hold no credentials.
func serverMonitor(log *slog.Logger) *event.ServerMonitor {
	var mu sync.Mutex
	servers := make(map[string]availability)
	changed := func(server string, to availability) bool {
		mu.Lock()
		defer mu.Unlock()
		from := servers[server]
		servers[server] = to
		return from != to
	}
	return &event.ServerMonitor{
		ServerHeartbeatFailed: func(e *event.ServerHeartbeatFailedEvent) {
			// The connection's name is the address with a number behind it: "localhost:27017[-7]".
			server, _, _ := strings.Cut(e.ConnectionID, "[-")
			if errors.Is(e.Failure, context.Canceled) {
				return // the driver itself cancelled it: to look again after a failed operation, or because the client closes
			}
			if changed(server, unreachable) {
				log.Warn("MongoDB server unreachable", "server", server, "error", e.Failure)
			}
		},
		ServerDescriptionChanged: func(e *event.ServerDescriptionChangedEvent) {
			server := e.Address.String()
			switch known, knew := e.NewDescription.Kind != "Unknown", e.PreviousDescription.Kind != "Unknown"; {
			case known && changed(server, reachable):
				log.Info("MongoDB server reachable", "server", server, "kind", e.NewDescription.Kind)
			case !known && knew && changed(server, unreachable):
				log.Warn("MongoDB server unreachable", "server", server, "error", "an operation found it gone or not serving")
			}
		},
		ServerClosed: func(e *event.ServerClosedEvent) {
			mu.Lock()
			defer mu.Unlock()
			delete(servers, e.Address.String())
		},
	}
}
