// Package redistest gives each test a Redis database to itself, on the server that the environment names. It is for tests only.
package redistest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"github.com/codex-api/codex-jobs/internal/redisconn"
)

const (
	// defaultDatabases is the number of databases of a server that does not tell it.
	defaultDatabases = 16
	// lockTTL frees the databases of tests that were killed.
	lockTTL = 15 * time.Minute
	// waitLimit bounds the wait for a free database.
	waitLimit = 4 * time.Minute
)

// Tests take Redis away, and go-redis would log each connection that fails to stderr.
func init() { logging.Disable() }

// Options returns how to reach an empty database that no other test uses until this one ends.
func Options(t testing.TB) redisconn.Options {
	t.Helper()
	o, release, err := Acquire(t.Name())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := release(); err != nil {
			t.Error(err)
		}
	})
	return o
}

// Acquire is Options for code without a testing.TB, such as an Example. The name of the user is the value of the lock in
// Redis.
func Acquire(user string) (o redisconn.Options, release func() error, err error) {
	host, port := os.Getenv("REDIS_HOST"), os.Getenv("REDIS_PORT")
	if host == "" || port == "" {
		return o, nil, errors.New("REDIS_HOST and REDIS_PORT are not set: run the tests with `make test`")
	}
	o = redisconn.Options{Addr: net.JoinHostPort(host, port), Password: os.Getenv("REDIS_PASSWORD")}
	locks := redisconn.New(o, redisconn.Retrying, slog.New(slog.DiscardHandler))
	ctx := context.Background()
	databases := defaultDatabases
	if config, err := locks.ConfigGet(ctx, "databases").Result(); err == nil {
		if n, err := strconv.Atoi(config["databases"]); err == nil {
			databases = n
		}
	}
	for deadline := time.Now().Add(waitLimit); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		for db := 1; db < databases; db++ {
			lock := "redistest:" + strconv.Itoa(db)
			err := locks.SetArgs(ctx, lock, user, redis.SetArgs{Mode: "NX", TTL: lockTTL}).Err()
			if errors.Is(err, redis.Nil) {
				continue
			}
			if err != nil {
				return o, nil, errors.Join(fmt.Errorf("locking a Redis database: %w", err), locks.Close())
			}
			o.DB = db
			empty, err := isEmpty(o)
			if err != nil {
				return o, nil, errors.Join(err, locks.Del(ctx, lock).Err(), locks.Close())
			}
			if !empty { // data that is not the tests'
				if err := locks.Del(ctx, lock).Err(); err != nil {
					return o, nil, errors.Join(fmt.Errorf("unlocking a Redis database: %w", err), locks.Close())
				}
				continue
			}
			release = func() error { return errors.Join(flush(o), locks.Del(ctx, lock).Err(), locks.Close()) }
			return o, release, nil
		}
	}
	return o, nil, errors.Join(fmt.Errorf("no Redis database became free within %s", waitLimit), locks.Close())
}

// Client returns a client of the database, which ends with the test.
func Client(t testing.TB, o redisconn.Options) *redis.Client {
	t.Helper()
	rdb, ok := redisconn.New(o, redisconn.Retrying, slog.New(slog.DiscardHandler)).(*redis.Client)
	if !ok {
		t.Fatal("it is a cluster, which has no databases")
	}
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

func isEmpty(o redisconn.Options) (bool, error) {
	rdb := redisconn.New(o, redisconn.Retrying, slog.New(slog.DiscardHandler))
	defer func() { _ = rdb.Close() }()
	n, err := rdb.DBSize(context.Background()).Result()
	if err != nil {
		return false, fmt.Errorf("looking into a Redis database: %w", err)
	}
	return n == 0, nil
}

func flush(o redisconn.Options) error {
	rdb := redisconn.New(o, redisconn.Retrying, slog.New(slog.DiscardHandler))
	defer func() { _ = rdb.Close() }()
	if err := rdb.FlushDB(context.Background()).Err(); err != nil {
		return fmt.Errorf("emptying a Redis database: %w", err)
	}
	return nil
}
