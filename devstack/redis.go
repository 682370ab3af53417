package main

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
)

// The values of DEVSTACK_REDIS.
const (
	redisExternal = "external"
	redisServer   = "redis-server"
	redisMini     = "miniredis"
)

// ttlStep is how often miniredis' keys age.
const ttlStep = 20 * time.Millisecond

// redisAddress is the address of a Redis, with the password and the database.
type redisAddress struct {
	host, port, password string
	db                   int
}

func (a redisAddress) String() string { return net.JoinHostPort(a.host, a.port) }

// startRedis finds or starts a Redis.
func startRedis(ctx context.Context, set settings, dir string) (*server, error) {
	redis.SetLogger(silence{})
	address, found, err := redisFromEnvironment(set.getenv)
	if err != nil {
		return nil, err
	}
	if found {
		return findRedis(ctx, address)
	}
	path, err := exec.LookPath(redisServer)
	if err == nil {
		return startRedisServer(ctx, path, dir, address.db)
	}
	if set.requireRedisServer {
		return nil, fmt.Errorf("a real Redis is required: neither REDIS_HOST nor REDIS_PORT is set, and %w", err)
	}
	return startMiniredis(address.db)
}

// redisFromEnvironment returns the Redis that the environment names. If it names none, found is false, and only the database
// of the address is set.
func redisFromEnvironment(getenv func(string) string) (address redisAddress, found bool, err error) {
	address.db, err = strconv.Atoi(cmp.Or(getenv("REDIS_DB"), "0"))
	if err != nil {
		return redisAddress{}, false, fmt.Errorf("reading REDIS_DB: %w", err)
	}
	if getenv("REDIS_HOST") == "" && getenv("REDIS_PORT") == "" {
		return address, false, nil
	}
	address.host = cmp.Or(getenv("REDIS_HOST"), "127.0.0.1")
	address.port = cmp.Or(getenv("REDIS_PORT"), "6379")
	address.password = getenv("REDIS_PASSWORD")
	return address, true, nil
}

// findRedis checks that the Redis of the environment answers.
func findRedis(ctx context.Context, address redisAddress) (*server, error) {
	var info redisInfo
	err := untilAnswer(ctx, nil, func(ctx context.Context) (err error) {
		info, err = askRedis(ctx, address)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("using the Redis at %s (from REDIS_HOST and REDIS_PORT): %w", address, err)
	}
	return newRedis(redisExternal, info.version, address), nil
}

// startRedisServer starts the redis-server at path.
func startRedisServer(ctx context.Context, path, dir string, db int) (*server, error) {
	var info redisInfo
	p, port, err := startServerProcess(ctx, redisServer, path, filepath.Join(dir, "redis-server.log"),
		func(port string) []string {
			return []string{
				"--bind", "127.0.0.1", "--port", port, "--dir", dir,
				"--save", "", "--appendonly", "no", "--databases", "64",
			}
		},
		func(ctx context.Context, port string, pid int) (err error) {
			info, err = askRedis(ctx, redisAddress{host: "127.0.0.1", port: port})
			if err == nil && info.pid != pid {
				err = fmt.Errorf("process %d answers on its port", info.pid)
			}
			return err
		})
	if err != nil {
		return nil, err
	}
	s := newRedis(redisServer, info.version, redisAddress{host: "127.0.0.1", port: port, db: db})
	s.ended, s.failure, s.stop = p.process.Done(), p.failure, p.stop
	return s, nil
}

// startMiniredis starts a Redis inside this process.
func startMiniredis(db int) (*server, error) {
	mini := miniredis.NewMiniRedis()
	if err := mini.StartAddr("127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("starting miniredis: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var aging sync.WaitGroup
	aging.Go(func() { ageKeys(ctx, mini) })
	s := newRedis(redisMini, moduleVersion("github.com/alicebob/miniredis/v2"),
		redisAddress{host: mini.Host(), port: mini.Port(), db: db})
	s.stop = func() {
		cancel()
		aging.Wait()
		mini.Close()
	}
	return s, nil
}

// ageKeys lets keys expire, which miniredis does not do by itself.
func ageKeys(ctx context.Context, mini *miniredis.Miniredis) {
	ticker := time.NewTicker(ttlStep)
	defer ticker.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			now := time.Now()
			mini.FastForward(now.Sub(last))
			last = now
		}
	}
}

func newRedis(kind, version string, address redisAddress) *server {
	product, place := "Redis", kind
	if kind == redisMini {
		product, place = "Redis protocol by miniredis", "embedded"
	}
	return &server{
		description: fmt.Sprintf("%s %s (%s, %s)", product, version, place, address),
		environment: []string{
			"REDIS_HOST=" + address.host,
			"REDIS_PORT=" + address.port,
			"REDIS_PASSWORD=" + address.password,
			"REDIS_DB=" + strconv.Itoa(address.db),
			"DEVSTACK_REDIS=" + kind,
		},
	}
}

// redisInfo describes a Redis that answers. Fields that it does not tell are empty.
type redisInfo struct {
	version string
	pid     int
}

// askRedis asks the Redis at address for its description.
func askRedis(ctx context.Context, address redisAddress) (redisInfo, error) {
	client := redis.NewClient(&redis.Options{
		Addr: address.String(), Password: address.password, DB: address.db,
		DialTimeout: attemptTimeout, ContextTimeoutEnabled: true,
		MaxRetries: -1, DisableIdentity: true,
	})
	defer client.Close()
	if err := client.Ping(ctx).Err(); err != nil {
		return redisInfo{}, err
	}
	info := redisInfo{version: "of unknown version"}
	text, _ := client.Info(ctx, "server").Result() // not every server that speaks the protocol has it
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch name {
		case "redis_version":
			info.version = value
		case "process_id":
			info.pid, _ = strconv.Atoi(value) // 0 is no process
		}
	}
	return info, nil
}

// silence is a logger for the Redis client that drops everything: a server that starts need not answer yet.
type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}
