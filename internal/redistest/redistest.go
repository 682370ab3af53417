// Package redistest gives each test a Redis database of its own, on the server that the environment names, and a way to
// take that server away from it. It is for tests only.
package redistest

import (
	"context"
	"log/slog"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/internal/jobs"
)

const (
	// defaultDatabases is what a server has that does not say.
	defaultDatabases = 16
	// lockTTL frees the databases of tests that were killed.
	lockTTL = 15 * time.Minute
	// patience bounds the wait for a free database.
	patience = 4 * time.Minute
)

// Options returns how to reach an empty database that no other test uses until this one ends.
func Options(t testing.TB) jobs.RedisOptions {
	t.Helper()
	host, port := os.Getenv("REDIS_HOST"), os.Getenv("REDIS_PORT")
	if host == "" || port == "" {
		t.Fatal("REDIS_HOST and REDIS_PORT are not set: run the tests with `make test`")
	}
	o := jobs.RedisOptions{Addr: host + ":" + port, Password: os.Getenv("REDIS_PASSWORD"), Timeout: 3 * time.Second}
	locks := jobs.NewRedis(o, slog.New(slog.DiscardHandler))
	ctx := context.Background()
	databases := defaultDatabases
	if config, err := locks.ConfigGet(ctx, "databases").Result(); err == nil {
		if n, err := strconv.Atoi(config["databases"]); err == nil {
			databases = n
		}
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		for db := 1; db < databases; db++ {
			lock := "redistest:" + strconv.Itoa(db)
			err := locks.SetArgs(ctx, lock, t.Name(), redis.SetArgs{Mode: "NX", TTL: lockTTL}).Err()
			if err == redis.Nil { //nolint:errorlint // go-redis returns this very value
				continue
			}
			if err != nil {
				t.Fatalf("locking a Redis database: %v", err)
			}
			o.DB = db
			t.Cleanup(func() {
				flush(t, o)
				if err := locks.Del(ctx, lock).Err(); err != nil {
					t.Errorf("unlocking a Redis database: %v", err)
				}
				_ = locks.Close() // nothing is sent any more
			})
			flush(t, o)
			return o
		}
		if time.Now().After(deadline) {
			t.Fatalf("no Redis database became free within %s", patience)
		}
	}
}

// Client returns a client of the database, which ends with the test.
func Client(t testing.TB, o jobs.RedisOptions) *redis.Client {
	t.Helper()
	rdb := jobs.NewRedis(o, slog.New(slog.DiscardHandler))
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

func flush(t testing.TB, o jobs.RedisOptions) {
	t.Helper()
	rdb := jobs.NewRedis(o, slog.New(slog.DiscardHandler))
	defer func() { _ = rdb.Close() }()
	if err := rdb.FlushDB(context.Background()).Err(); err != nil {
		t.Fatalf("emptying a Redis database: %v", err)
	}
}
