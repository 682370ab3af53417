package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/codex-api/codex-jobs/devstack/ferret"
	"github.com/codex-api/codex-jobs/devstack/measuring"
)

// The values of DEVSTACK_MONGODB.
const (
	mongodbExternal  = "external"
	mongodbMeasuring = "measuring"
	mongodbServer    = "mongod"
	mongodbFerret    = "ferretdb"
)

// defaultDatabase is the default of MONGODB_DATABASE.
const defaultDatabase = "codex"

// startMongoDB finds or starts a server that speaks MongoDB's protocol.
func startMongoDB(ctx context.Context, set settings, dir string) (*server, error) {
	database := cmp.Or(set.getenv("MONGODB_DATABASE"), defaultDatabase)
	if uri := set.getenv("MONGODB_URI"); uri != "" {
		return findMongoDB(ctx, uri, database)
	}
	if set.measuring {
		return startMeasuring(dir, database)
	}
	if path, err := exec.LookPath(mongodbServer); err == nil {
		return startMongod(ctx, path, dir, database)
	}
	return startFerretDB(ctx, set, dir, database)
}

// findMongoDB checks that the server of the environment answers.
func findMongoDB(ctx context.Context, uri, database string) (*server, error) {
	opts := options.Client().ApplyURI(uri)
	if err := opts.Validate(); err != nil {
		return nil, fmt.Errorf("reading MONGODB_URI: %w", err)
	}
	hosts := strings.Join(opts.Hosts, ",") // show only these: the rest of the URI may have a password
	var info mongodbInfo
	err := untilAnswer(ctx, nil, func(ctx context.Context) (err error) {
		info, err = askMongoDB(ctx, uri)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("using the MongoDB at %s (from MONGODB_URI): %w", hosts, err)
	}
	return &server{
		description: fmt.Sprintf("MongoDB %s (%s, %s)", info.version, mongodbExternal, hosts),
		environment: mongodbEnvironment(mongodbExternal, uri, database),
	}, nil
}

// startMeasuring starts the server for measurements inside this process.
func startMeasuring(dir, database string) (*server, error) {
	s, err := measuring.Start(dir, measuring.Measured)
	if err != nil {
		return nil, err
	}
	return &server{
		description: "a server for measurements with the costs of a MongoDB (" + s.URI() + ")",
		environment: mongodbEnvironment(mongodbMeasuring, s.URI(), database),
		stop:        func() { _ = s.Stop() }, // its files are removed with the directory
	}, nil
}

// startMongod starts the mongod at path.
func startMongod(ctx context.Context, path, dir, database string) (*server, error) {
	data := filepath.Join(dir, mongodbServer)
	if err := os.Mkdir(data, 0o700); err != nil {
		return nil, fmt.Errorf("starting %s: %w", mongodbServer, err)
	}
	var info mongodbInfo
	p, port, err := startServerProcess(ctx, mongodbServer, path, filepath.Join(dir, "mongod.log"),
		func(port string) []string {
			return []string{"--bind_ip", "127.0.0.1", "--port", port, "--dbpath", data, "--nounixsocket"}
		},
		func(ctx context.Context, port string, pid int) (err error) {
			info, err = askMongoDB(ctx, "mongodb://127.0.0.1:"+port)
			if err == nil && info.pid != int64(pid) {
				err = fmt.Errorf("process %d answers on its port", info.pid)
			}
			return err
		})
	if err != nil {
		return nil, err
	}
	return &server{
		description: fmt.Sprintf("MongoDB %s (%s, 127.0.0.1:%s)", info.version, mongodbServer, port),
		environment: mongodbEnvironment(mongodbServer, "mongodb://127.0.0.1:"+port, database),
		ended:       p.process.Done(),
		failure:     p.failure,
		stop:        p.stop,
	}, nil
}

// The settings that keep clients of FerretDB below its limit, together with the pool size in its URI: see package ferret.
const (
	ferretBulkSize = "10" // updates in one command
	ferretWriters  = "1"  // commands of one process at the same time
	// Each range is a scan of the whole collection, so one range is best.
	ferretRangeSize = "1000000"
)

// startFerretDB starts FerretDB inside this process.
func startFerretDB(ctx context.Context, set settings, dir, database string) (*server, error) {
	data := filepath.Join(dir, mongodbFerret)
	if err := os.Mkdir(data, 0o700); err != nil {
		return nil, fmt.Errorf("starting FerretDB: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	f, err := ferret.Start(ctx, data, slog.New(slog.NewTextHandler(set.log, nil)))
	if err != nil {
		return nil, fmt.Errorf("starting FerretDB: %w", err)
	}
	environment := mongodbEnvironment(mongodbFerret, f.URI(), database)
	for _, limit := range [][2]string{{"SYNC_BULK_SIZE", ferretBulkSize}, {"SYNC_WRITERS", ferretWriters}, {"SYNC_RANGE_SIZE", ferretRangeSize}} {
		if name, value := limit[0], limit[1]; set.getenv(name) == "" {
			environment = append(environment, name+"="+value)
		}
	}
	return &server{
		description: fmt.Sprintf("MongoDB wire by FerretDB %s (embedded, %s)",
			moduleVersion("github.com/FerretDB/FerretDB"), f.Address()),
		environment: environment,
		stop:        func() { f.Stop(serverGrace) },
	}, nil
}

func mongodbEnvironment(kind, uri, database string) []string {
	return []string{"MONGODB_URI=" + uri, "MONGODB_DATABASE=" + database, "DEVSTACK_MONGODB=" + kind}
}

// mongodbInfo describes a server that answers.
type mongodbInfo struct {
	version string
	pid     int64
}

// askMongoDB asks the server at uri for its description. The process id is 0 if the user must not ask for it.
func askMongoDB(ctx context.Context, uri string) (mongodbInfo, error) {
	client, err := mongo.Connect(options.Client().ApplyURI(uri).SetServerSelectionTimeout(attemptTimeout))
	if err != nil {
		return mongodbInfo{}, err
	}
	defer func() { _ = client.Disconnect(context.WithoutCancel(ctx)) }() // only closes sockets
	var build struct{ Version string }
	if err := client.Database("admin").RunCommand(ctx, bson.D{{Key: "buildInfo", Value: 1}}).Decode(&build); err != nil {
		return mongodbInfo{}, err
	}
	info := mongodbInfo{version: build.Version}
	var status struct{ PID int64 }
	if err := client.Database("admin").RunCommand(ctx, bson.D{{Key: "serverStatus", Value: 1}}).Decode(&status); err == nil {
		info.pid = status.PID
	}
	return info, nil
}
