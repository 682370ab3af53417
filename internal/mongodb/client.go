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
	// DefaultAppName is how the server's own log names these connections.
	DefaultAppName = "codex-jobs"
	// DefaultServerSelectionTimeout is how long an operation waits for a server that can serve it: long enough for most
	// elections, short enough for a caller that retries to say what is going on.
	DefaultServerSelectionTimeout = 5 * time.Second
	// DefaultConnectTimeout is how long one connection may take. The monitor uses it as well, so that it also bounds how
	// soon a server that stopped answering is noticed.
	DefaultConnectTimeout = 5 * time.Second

	pingTimeout  = 5 * time.Second
	closeTimeout = 5 * time.Second
)

// Client is a connection pool to one MongoDB deployment.
type Client struct {
	client *mongo.Client
}

// Connect prepares a client for the deployment that uri names; connections are made when they are needed. What the
// connection string says wins over this package's defaults, and adjust, which may be absent, over both. Writes are
// acknowledged by a majority unless the connection string says otherwise, and always by somebody. The driver's own
// retries are off, even if the connection string wants them. The log hears of servers that become unreachable, and of
// their return.
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
	// The driver tries again whatever may pass, without a pause and for as long as the operation's context has time: a
	// storm on a server in trouble. Here the caller tries again, at its own pace, and all that it does may be done twice.
	opts.SetRetryReads(false).SetRetryWrites(false)
	opts.SetServerMonitor(serverMonitor(log))
	for _, f := range adjust {
		f(opts)
	}
	if !opts.WriteConcern.Acknowledged() {
		return nil, errors.New("connecting to MongoDB: the connection string asks for unacknowledged writes (w=0), which would be counted as failed")
	}
	client, err := mongo.Connect(opts)
	if err != nil {
		return nil, fmt.Errorf("connecting to MongoDB: %w", err)
	}
	return &Client{client: client}, nil
}

// Database returns the named database.
func (c *Client) Database(name string) *mongo.Database { return c.client.Database(name) }

// Ping asks the deployment whether it can serve writes, for at most a few seconds.
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

// availability says whether a server could be reached when it was last heard of.
type availability int

const (
	unheardOf availability = iota
	reachable
	unreachable
)

// serverMonitor logs each change between reachable and unreachable of each server once, however many heartbeats and
// operations notice it. It logs addresses and the driver's reasons, neither of which holds credentials.
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
				return // by the driver itself: an operation failed and it wants to look again, or the client is closing
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
