// Rate limits over all workers.
//
// The limit holds as the one who is called counts: in no window of the limit's length do more than its number of calls arrive. A
// call arrives between its grant and its end, and the worker does not know when. So a call takes up its permit from the grant until one
// window after its end. When a call is granted, all but Calls-1 of the earlier ones have ended a whole window ago, and so arrived
// before any window in which this one arrives.
//
// All times are the Redis server's, so the clocks of workers do not matter.

package jobs

import (
	"context"
	"crypto/rand"
	mathrand "math/rand/v2"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/internal/tasks"
)

const (
	// permitTTL is how long a permit lasts that is not renewed: the worker that has it died.
	permitTTL = 30 * time.Second
	// permitTimeout bounds one command about a permit.
	permitTimeout = 2 * time.Second
	// minRateWait and maxRateWait bound the time between two tries to get a permit.
	minRateWait = 5 * time.Millisecond
	maxRateWait = time.Second
)

// The permits are a sorted set: an ID, by the time (ms) when the call ended, or will have if nothing is heard of it any more.

// KEYS: permits. ARGV: ID, calls, window (ms), time (ms) that the permit lasts. Returns 0 if the permit is granted, otherwise in
// how many ms the next one can be.
var takePermitScript = redis.NewScript(`
local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call("ZREMRANGEBYSCORE", KEYS[1], "-inf", now - ARGV[3])
local excess = redis.call("ZCARD", KEYS[1]) - ARGV[2]
if excess < 0 then
	redis.call("ZADD", KEYS[1], now + ARGV[4], ARGV[1])
	redis.call("PEXPIRE", KEYS[1], ARGV[3] + 2 * ARGV[4])
	return 0
end
return redis.call("ZRANGE", KEYS[1], excess, excess, "WITHSCORES")[2] + ARGV[3] - now
`)

// KEYS: permits. ARGV: ID, time (ms) from now at which the permit's call counts as ended. A call that has ended has done so at
// most now, rounded up.
var movePermitScript = redis.NewScript(`
local time = redis.call("TIME")
return redis.call("ZADD", KEYS[1], "XX", math.ceil(time[1] * 1000 + time[2] / 1000) + ARGV[2], ARGV[1])
`)

// TakePermit waits until one more call of the job type is within its rate limit. Then it returns a function that the caller must
// call when the call has ended. It returns ctx's cause when ctx ends before. While Redis does not answer, it waits. A job type
// without a limit needs no permit.
func (j *Jobs) TakePermit(ctx context.Context, def tasks.Definition) (end func(), err error) {
	if def.Rate.Calls == 0 {
		return func() {}, nil
	}
	key, id, window := j.keys.rate(def.Name), rand.Text()[:12], def.Rate.Per.Milliseconds()
	for {
		wait := maxRateWait
		trying, cancel := context.WithTimeout(ctx, permitTimeout)
		ms, err := takePermitScript.Run(trying, j.rdb, []string{key}, id, def.Rate.Calls, window, permitTTL.Milliseconds()).Int64()
		cancel()
		switch {
		case err == nil && ms <= 0:
			return j.holdPermit(ctx, key, id), nil
		case err == nil:
			wait = min(max(time.Duration(ms)*time.Millisecond, minRateWait), maxRateWait)
		case ctx.Err() == nil:
			j.log.Debug("Could not ask for a call within the rate limit", "job", def.Name, "error", err)
		}
		// All who wait are told the same time: a little chance decides who comes first.
		timer := time.NewTimer(wait + mathrand.N(minRateWait))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, context.Cause(ctx)
		}
	}
}

// holdPermit renews a permit until the returned function says that its call has ended.
func (j *Jobs) holdPermit(ctx context.Context, key, id string) (end func()) {
	ctx = context.WithoutCancel(ctx)
	move := func(to time.Duration) {
		moving, cancel := context.WithTimeout(ctx, permitTimeout)
		defer cancel()
		if err := movePermitScript.Run(moving, j.rdb, []string{key}, id, to.Milliseconds()).Err(); err != nil {
			j.log.Debug("Could not tell the rate limit of a call", "error", err) // the permit lasts up to its TTL
		}
	}
	ended := make(chan struct{})
	var renewing sync.WaitGroup
	renewing.Go(func() {
		ticker := time.NewTicker(permitTTL / 3)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				move(permitTTL)
			case <-ended:
				return
			}
		}
	})
	return func() {
		close(ended)
		renewing.Wait()
		move(0)
	}
}
