// What the Redis user must be allowed to do. A program that lacks a right would run, and fail at a command in a hundred, or leave a
// connection behind with each try to subscribe. So each program tries at its start all that it needs.

package jobs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// rightsTimeout bounds CheckRights. A client that asks little of a Redis that refuses takes some seconds for it.
const rightsTimeout = 15 * time.Second

// neededCommands are the commands that asynq's code and ours need, in scripts too. KEY is a key that nothing else uses. Redis looks
// at the rights before it does anything.
var neededCommands = strings.Split(`set KEY 1 px 1000
setnx KEY 1
get KEY
exists KEY
expire KEY 1
pexpire KEY 1000
incr KEY
incrby KEY 1
del KEY
hset KEY a 1
hsetnx KEY a 1
hget KEY a
hmget KEY a
hexists KEY a
hincrby KEY a 1
hdel KEY a
lpush KEY a
rpush KEY a
llen KEY
lindex KEY 0
lrange KEY 0 0
ltrim KEY 0 -1
rpoplpush KEY KEY
lrem KEY 0 a
zadd KEY 1 a
zcard KEY
zcount KEY 1 1
zscore KEY a
zrange KEY 0 0
zrangebyscore KEY 1 1
zremrangebyscore KEY 1 1
zrem KEY a
sadd KEY a
srem KEY a
smembers KEY
sismember KEY a
scan 0 count 1
time
eval return 1 KEY
evalsha 0000000000000000000000000000000000000000 1 KEY
unlink KEY`, "\n")

// ErrRights is the error of CheckRights for a Redis user that lacks a right.
var ErrRights = errors.New("the Redis user lacks rights")

// CheckRights tries the commands, keys and channels that a program needs; subscribes says whether it subscribes to the channel of
// announcements. If Redis denies any, it returns an ErrRights that says which ACL rules are lacking. It changes nothing. It returns no error if Redis
// does not answer.
func (j *Jobs) CheckRights(ctx context.Context, subscribes bool) error {
	ctx, cancel := context.WithTimeout(ctx, rightsTimeout)
	defer cancel()
	var lacking []string
	lacks := func(err error, key, channel string) {
		if rule := lackingRule(err, key, channel); rule != "" && !slices.Contains(lacking, rule) {
			lacking = append(lacking, rule)
		}
	}
	try := func(key string, commands ...string) {
		pipeline := j.rdb.Pipeline()
		for _, command := range commands {
			var words []any
			for word := range strings.FieldsSeq(command) {
				words = append(words, strings.ReplaceAll(word, "KEY", key))
			}
			pipeline.Do(ctx, words...)
		}
		answers, err := pipeline.Exec(ctx)
		lacks(err, key, "")
		for _, answer := range answers {
			lacks(answer.Err(), key, "")
		}
	}
	first := j.registry.All()[0]
	unused := "rights:" + rand.Text()
	try(j.keys.ofJob(first.Name, unused), neededCommands...)
	try(asynqKey(first.Queue(), unused), neededCommands...)
	// The keys that are of no job type, with commands that change nothing. On a cluster each is on a node of its own.
	try(asynqQueues, "srem KEY "+unused, "sismember KEY "+unused)
	for _, key := range []string{asynqSchedulers, "asynq:servers", "asynq:workers", j.keys.processes(RoleWorker), j.keys.processes(RoleScheduler)} {
		try(key, "zrem KEY "+unused, "zcard KEY")
	}
	lacks(j.rdb.Publish(ctx, j.keys.work(), "").Err(), "", j.keys.work())
	if subscribes {
		subscription := j.rdb.Subscribe(ctx, j.keys.work())
		_, err := subscription.Receive(ctx)
		lacks(err, "", j.keys.work())
		_ = subscription.Close() // it has told what it can
	}
	if len(lacking) > 0 {
		return fmt.Errorf("%w: add %s to its ACL rules; docs/deploying.md has all that are needed", ErrRights, strings.Join(lacking, " "))
	}
	return nil
}

// deniedCommand finds the command in Redis' refusal to run it.
var deniedCommand = regexp.MustCompile(`run the '([^']+)' command`)

// lackingRule returns the ACL rule without which Redis denied a command on the key or the channel. It is "" for any other error.
func lackingRule(err error, key, channel string) string {
	if err == nil || !redis.HasErrorPrefix(err, "NOPERM") {
		return ""
	}
	if denied := deniedCommand.FindStringSubmatch(err.Error()); denied != nil {
		return "+" + denied[1]
	}
	if channel != "" {
		return "&" + channel
	}
	prefix, _, _ := strings.Cut(key, ":")
	return "~" + prefix + ":*"
}
