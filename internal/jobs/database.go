// Which workers take part. Two deployments that share a namespace by mistake would take each other's runs, and run them on the
// wrong database. So the workers of a namespace must agree on the database: that of the live workers who were there first. One
// with another database takes nothing until these have left, as at the end of a rolling update to another database. They must also
// agree on which syncs have an endpoint: a worker without it would only set the dates of records that the endpoint shall see.
//
// Workers of releases before this one say nothing of their database, and are not asked.

package jobs

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"
)

// memberTTL is how long a worker that died still keeps out those with another database. By then its leases have expired.
const memberTTL = LeaseTTL

// databaseTag stands in the place of a job type in the keys of this file, so that one script can touch all of them.
const databaseTag = "database"

// database is what the workers agree on, see Terms.
func (k keys) database() string { return k.ofJob(databaseTag, "identity") }

// members is a sorted set: the workers that take part, by the time (ms) of their last call of TakePart.
func (k keys) members() string { return k.ofJob(databaseTag, "members") }

// excluded is a sorted set like members: the workers that do not take part.
func (k keys) excluded() string { return k.ofJob(databaseTag, "excluded") }

// redisNow begins each script of this file: the time (ms) is by Redis' clock, and now - ARGV[1] is when those died that are dead.
const redisNow = `
local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
`

// KEYS: members, excluded, database. ARGV: TTL (ms), worker, its terms, "1" if it may take the place of workers of which Redis
// remembers nothing. Returns {1 if it takes part, the terms of those who do}.
var takePartScript = redis.NewScript(redisNow + `
for i = 1, 2 do
	redis.call("ZREMRANGEBYSCORE", KEYS[i], "-inf", now - ARGV[1])
end
redis.call("ZREM", KEYS[1], ARGV[2])
local agreed = redis.call("GET", KEYS[3])
if agreed ~= ARGV[3] and (redis.call("ZCARD", KEYS[1]) > 0 or not agreed and ARGV[4] ~= "1") then
	redis.call("ZADD", KEYS[2], now, ARGV[2])
	return {0, agreed or ""}
end
redis.call("SET", KEYS[3], ARGV[3])
redis.call("ZADD", KEYS[1], now, ARGV[2])
redis.call("ZREM", KEYS[2], ARGV[2])
return {1, ARGV[3]}
`)

// KEYS: excluded. ARGV: TTL (ms). It writes nothing, so that a Redis that refuses writes can still be asked.
var excludedScript = redis.NewScript(redisNow + `
return redis.call("ZCOUNT", KEYS[1], "(" .. (now - ARGV[1]), "+inf")
`)

// Terms are what the workers of a namespace must agree on.
type Terms struct {
	// Database is the identity of the database.
	Database string
	// Endpoints are the job types whose work an endpoint does.
	Endpoints []string
}

// endpointsOf stands between the database and the endpoints, where the terms are one text.
const endpointsOf = " with endpoints of "

// String returns the terms as Redis has them.
func (t Terms) String() string {
	if len(t.Endpoints) == 0 {
		return t.Database
	}
	return t.Database + endpointsOf + strings.Join(slices.Sorted(slices.Values(t.Endpoints)), ",")
}

// SameDatabase reports whether the database of the terms is that of others, as String returns them.
func (t Terms) SameDatabase(others string) bool {
	database, _, _ := strings.Cut(others, endpointsOf)
	return database == t.Database
}

// TakePart asks whether the worker with the ID takes part: it does if the live workers that do have the same terms, or if
// there are none. With patient it does not count as none that Redis remembers no workers at all, as after a FLUSHALL. A worker
// must ask every HeartbeatInterval. TakePart also returns the terms of those that take part, or "".
func (j *Jobs) TakePart(ctx context.Context, worker string, own Terms, patient bool) (takesPart bool, agreed string, err error) {
	mayBeFirst := 1
	if patient {
		mayBeFirst = 0
	}
	reply, err := takePartScript.Run(ctx, j.rdb, []string{j.keys.members(), j.keys.excluded(), j.keys.database()},
		memberTTL.Milliseconds(), worker, own.String(), mayBeFirst).Slice()
	if err != nil {
		return false, "", fmt.Errorf("asking whether worker %s takes part: %w", worker, err)
	}
	n, _ := reply[0].(int64) // the script returns these types
	agreed, _ = reply[1].(string)
	if n == 1 {
		j.runsOn.Store(&own.Database)
	}
	return n == 1, agreed, nil
}

// Withdraw records that the worker with the ID takes part no more. Then it must have released all its runs.
func (j *Jobs) Withdraw(ctx context.Context, worker string) error {
	_, err := j.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		p.ZRem(ctx, j.keys.members(), worker)
		p.ZRem(ctx, j.keys.excluded(), worker)
		return nil
	})
	if err != nil {
		return fmt.Errorf("withdrawing worker %s: %w", worker, err)
	}
	return nil
}

// Excluded returns the number of live workers that take nothing, because the others have other terms.
func (j *Jobs) Excluded(ctx context.Context) (int, error) {
	n, err := excludedScript.Run(ctx, j.rdb, []string{j.keys.excluded()}, memberTTL.Milliseconds()).Int()
	if err != nil {
		return 0, fmt.Errorf("counting excluded workers: %w", err)
	}
	return n, nil
}

// databaseOfRuns returns the database with which this process took part last, or "" if it never did.
func (j *Jobs) databaseOfRuns() string {
	if database := j.runsOn.Load(); database != nil {
		return *database
	}
	return ""
}
