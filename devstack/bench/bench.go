// This file makes what all sections share, and always cleans it up.

package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/internal/config"
	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/redisconn"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/telemetry"
)

// The values of DEVSTACK_MONGODB and DEVSTACK_REDIS for the servers that are part of devstack.
const (
	embeddedMongoDB = "ferretdb"
	measuredMongoDB = "measuring"
	embeddedRedis   = "miniredis"
)

const (
	// cleanTimeout bounds the cleanup, which must be quick after a Ctrl-C.
	cleanTimeout = 15 * time.Second
	// A comparison is measured usualRounds times; only once when a round takes longRound, and up to maxRounds times for
	// as long as all of them together take less than shortRounds.
	usualRounds = 5
	maxRounds   = 9
	longRound   = time.Minute
	shortRounds = 15 * time.Second
)

// errInterrupted is the error after a Ctrl-C.
var errInterrupted = errors.New("interrupted")

// bench has what all sections need.
type bench struct {
	bin       string
	cfg       config.Config
	userSync  tasks.Definition
	plan      plan
	rdb       redis.UniversalClient
	jobs      *jobs.Jobs
	inspector *asynq.Inspector
	client    *mongo.Client
	users     *users
	compare   version
	progress  *progress
	report    *report
}

// measure measures the sections that the arguments name. The report has all figures so far, even after an error.
func measure(ctx context.Context, a arguments, p *progress) (_ *report, err error) {
	b := &bench{bin: a.bin, progress: p, report: &report{}}
	if err := b.prepare(a); err != nil {
		return b.report, err
	}
	redis.SetLogger(telemetry.NewRedisLogger(quiet()))
	b.rdb = redisconn.New(b.cfg.Redis, redisconn.Retrying, quiet())
	defer func() { err = errors.Join(err, b.rdb.Close()) }()
	b.jobs = jobs.New(b.rdb, b.cfg.Registry, quiet())
	b.inspector = asynq.NewInspectorFromRedisClient(b.rdb)
	if b.client, err = connect(b.cfg.MongoDB.URI); err != nil {
		return b.report, err
	}
	defer func() { err = errors.Join(err, disconnect(b.client)) }()
	if err := b.describe(ctx); err != nil {
		return b.report, err
	}

	release, err := claimRedis(ctx, b.rdb, b.cfg.Redis.DB)
	if err != nil {
		return b.report, err
	}
	defer func() { err = errors.Join(err, b.finally(ctx, release)) }()
	b.cfg.MongoDB.Database += "_bench_" + strings.ToLower(rand.Text()[:8])
	db := b.client.Database(b.cfg.MongoDB.Database)
	b.users = &users{collection: db.Collection("users"), chunk: b.plan.chunk, progress: p}
	defer func() { err = errors.Join(err, b.finally(ctx, db.Drop)) }()

	if a.compare != "" {
		b.progress.say("building %s", a.compare)
		if b.compare, err = checkOut(ctx, b.repository(), a.compare); err != nil {
			return b.report, err
		}
		defer func() { err = errors.Join(err, b.compare.remove()) }()
	}
	for _, s := range b.steps(a) {
		err := s.run(b, ctx)
		if ctx.Err() != nil {
			return b.report, errInterrupted
		}
		if err != nil {
			return b.report, fmt.Errorf("measuring %s: %w", s.name, err)
		}
	}
	return b.report, nil
}

// steps returns the sections to measure. On the server for measurements its calibration is the first.
func (b *bench) steps(a arguments) []section {
	switch {
	case a.check:
		return []section{{name: "the sync", run: (*bench).check}}
	case os.Getenv("DEVSTACK_MONGODB") == measuredMongoDB:
		return append([]section{{name: "what the server costs", run: (*bench).calibrate}}, a.only...)
	}
	return a.only
}

// repository returns the directory of the repository, in which the programs' directory is.
func (b *bench) repository() string { return filepath.Dir(b.bin) }

// prepare reads the settings, and checks that servers and programs are there.
func (b *bench) prepare(a arguments) error {
	for _, name := range []string{"MONGODB_URI", "REDIS_PORT"} {
		if os.Getenv(name) == "" {
			return fmt.Errorf("%s is not set: run the bench with devstack, as make bench does", name)
		}
	}
	embedded := os.Getenv("DEVSTACK_MONGODB") == embeddedMongoDB
	if a.big && embedded {
		return errors.New("-big is not for the embedded FerretDB, which would take hours for a million users: " +
			"install mongod, or name a MongoDB with MONGODB_URI")
	}
	for _, program := range programsOf(a.only) {
		if _, err := exec.LookPath(filepath.Join(b.bin, program)); err != nil {
			return fmt.Errorf("looking for the programs: %w", err)
		}
	}
	// The bin directory has no .env, so all settings come from the environment. The programs run there, too.
	if err := os.Chdir(b.bin); err != nil {
		return fmt.Errorf("entering the programs' directory: %w", err)
	}
	var err error
	if b.cfg, err = config.Load(codex.Registry()); err != nil {
		return fmt.Errorf("reading the settings: %w", err)
	}
	b.userSync, _ = b.cfg.Registry.Lookup(codex.UserSync.Name)
	b.plan = newPlan(embedded, a.big)
	if embedded {
		b.warn("ON THE EMBEDDED FERRETDB: the figures say nothing about MongoDB, and are for far fewer users")
	}
	if os.Getenv("DEVSTACK_REDIS") == embeddedRedis {
		b.warn("ON THE EMBEDDED MINIREDIS: the figures say nothing about Redis")
	}
	return nil
}

func (b *bench) warn(text string) {
	b.report.Warnings = append(b.report.Warnings, text)
	b.progress.say("%s", text)
}

// note adds a measurement that is left out, with the reason.
func (b *bench) note(format string, args ...any) {
	b.report.Notes = append(b.report.Notes, fmt.Sprintf(format, args...))
}

// describe finds out which machine and which servers are measured.
func (b *bench) describe(ctx context.Context) error {
	on := &b.report.MeasuredOn
	var err error
	if on.MongoDB, err = describeMongoDB(ctx, b.client, cmp.Or(os.Getenv("DEVSTACK_MONGODB"), "external")); err != nil {
		return err
	}
	if on.Redis, err = describeRedis(ctx, b.rdb, cmp.Or(os.Getenv("DEVSTACK_REDIS"), "external")); err != nil {
		return err
	}
	on.Product = b.version(ctx)
	on.Cores, on.Platform, on.Go = runtime.NumCPU(), runtime.GOOS+"/"+runtime.GOARCH, runtime.Version()
	for _, s := range []struct {
		name  string
		value int
	}{
		{writersSetting, b.cfg.Sync.Writers}, {batchSizeSetting, b.cfg.Sync.BatchSize},
		{"SYNC_BULK_SIZE", b.cfg.Sync.BulkSize}, {rangeSizeSetting, b.cfg.Sync.RangeSize},
	} {
		on.Settings = append(on.Settings, s.name+"="+strconv.Itoa(s.value))
	}
	return nil
}

// finally calls clean, even after a Ctrl-C.
func (b *bench) finally(ctx context.Context, clean func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTimeout)
	defer cancel()
	if err := clean(ctx); err != nil {
		return fmt.Errorf("cleaning up (database %s of MongoDB, %d of Redis): %w", b.cfg.MongoDB.Database, b.cfg.Redis.DB, err)
	}
	return nil
}

// rounds calls round several times.
func rounds(round func(number int) error) error {
	began := time.Now()
	for i := range maxRounds {
		if i >= usualRounds && time.Since(began) >= shortRounds {
			break
		}
		started := time.Now()
		if err := round(i + 1); err != nil {
			return err
		}
		if time.Since(started) >= longRound {
			break
		}
	}
	return nil
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }
