// A client of a MongoDB deployment, with the driver's settings that a sync needs.

package mongodb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/event"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/connstring"

	"github.com/codex-api/codex-jobs/internal/syncrun"
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
	// DefaultMaxConnIdleTime is how long a connection may be idle. It is below the time after which usual firewalls and proxies drop
	// idle connections, often without a word.
	DefaultMaxConnIdleTime = 30 * time.Second

	pingTimeout  = 5 * time.Second
	closeTimeout = 5 * time.Second
)

// Client is a connection pool to one MongoDB deployment.
type Client struct {
	// connect makes the driver's client. For a mongodb+srv connection string the driver looks up the host meanwhile.
	connect func() error
	// resolve looks up the host of a mongodb+srv connection string. It is nil for others.
	resolve func(ctx context.Context) error

	lock   chan struct{} // has a value while a goroutine uses the following
	client *mongo.Client // nil until the host was found
	writes bson.Raw      // its write concern, as commands have it
	closed bool
}

// Connect returns a client for the deployment that uri names. It connects when it is used. A mongodb+srv host that cannot be
// looked up is no error: Ping looks again, until it is found. The connection string overrides this package's defaults, and adjust
// overrides both. Unless the connection string says otherwise, a majority acknowledges each write. Connect refuses writes that no
// server acknowledges. The driver's own retries are off, even if the connection string asks for them. The client logs servers
// that become unreachable, and their return.
func Connect(uri string, log *slog.Logger, adjust ...func(*options.ClientOptions)) (*Client, error) {
	c := &Client{
		lock: make(chan struct{}, 1),
	}
	c.connect = func() (err error) {
		c.client, c.writes, err = connect(uri, log, adjust)
		return err
	}
	if rest, isSRV := strings.CutPrefix(uri, connstring.SchemeMongoDBSRV+"://"); isSRV {
		address, query, _ := strings.Cut(rest, "?")
		options, _ := url.ParseQuery(query)
		if options.Get("w") == "0" {
			return nil, errUnacknowledged
		}
		c.resolve = resolver(address, options)
		return c, nil // it asks DNS when it is used: DNS can be away, too
	}
	if err := c.connect(); err != nil {
		return nil, err
	}
	return c, nil
}

var errUnacknowledged = errors.New(
	"connecting to MongoDB: the connection string must not ask for unacknowledged writes (w=0), which would count as failed")

// connect also returns the client's write concern, which the client itself does not tell.
func connect(uri string, log *slog.Logger, adjust []func(*options.ClientOptions)) (*mongo.Client, bson.Raw, error) {
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
	if opts.MaxConnIdleTime == nil {
		opts.SetMaxConnIdleTime(DefaultMaxConnIdleTime)
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
		return nil, nil, errUnacknowledged
	}
	writes, err := encodeWriteConcern(opts.WriteConcern)
	if err != nil {
		return nil, nil, fmt.Errorf("connecting to MongoDB: %w", err)
	}
	client, err := mongo.Connect(opts)
	if err != nil {
		return nil, nil, fmt.Errorf("connecting to MongoDB: %w", err)
	}
	return client, writes, nil
}

// encodeWriteConcern returns a write concern as commands have it.
func encodeWriteConcern(concern *writeconcern.WriteConcern) (bson.Raw, error) {
	var fields bson.D
	if concern.W != nil {
		fields = append(fields, bson.E{Key: "w", Value: concern.W})
	}
	if concern.Journal != nil {
		fields = append(fields, bson.E{Key: "j", Value: *concern.Journal})
	}
	return bson.Marshal(fields)
}

// Database returns the database with the name. Ping must have succeeded once before.
func (c *Client) Database(name string) *mongo.Database { return c.client.Database(name) }

// Collection returns a collection. Unlike Database it needs no Ping before, and can fail while the host of a mongodb+srv connection
// string cannot be looked up.
func (c *Client) Collection(ctx context.Context, database, name string) (*mongo.Collection, error) {
	client, err := c.connected(ctx)
	if err != nil {
		return nil, err
	}
	return client.Database(database).Collection(name), nil
}

// resolver returns a function that looks up the host of a mongodb+srv connection string. The driver itself does that without a
// context.
func resolver(address string, options url.Values) func(context.Context) error {
	host, _, _ := strings.Cut(address[strings.LastIndexByte(address, '@')+1:], "/")
	service := "mongodb"
	for name := range options {
		if strings.EqualFold(name, "srvServiceName") {
			service = options.Get(name)
		}
	}
	return func(ctx context.Context) error {
		_, _, err := net.DefaultResolver.LookupSRV(ctx, service, "tcp", host)
		return err
	}
}

// connected returns the driver's client. It makes it first if the host of a mongodb+srv connection string was not found before.
func (c *Client) connected(ctx context.Context) (*mongo.Client, error) {
	select {
	case c.lock <- struct{}{}:
		defer func() { <-c.lock }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	switch {
	case c.closed:
		return nil, mongo.ErrClientDisconnected
	case c.client != nil:
		return c.client, nil
	}
	err := c.resolve(ctx)
	if err == nil {
		err = c.connect()
	}
	if err != nil {
		return nil, fmt.Errorf("looking up the servers of the connection string: %w: %w", syncrun.ErrUnavailable, err)
	}
	return c.client, nil
}

// Ping returns an error if the deployment cannot serve writes. It takes at most a few seconds.
func (c *Client) Ping(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	client, err := c.connected(bounded)
	if err == nil {
		err = client.Ping(bounded, nil)
	}
	if err != nil {
		return Classify(ctx, "pinging MongoDB", err)
	}
	return nil
}

// Close ends all connections, within a few seconds. The client cannot be used again.
func (c *Client) Close() error {
	c.lock <- struct{}{}
	defer func() { <-c.lock }()
	c.closed = true
	if c.client == nil {
		return nil
	}
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
