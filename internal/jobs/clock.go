// Clocks. Ticks, references and stamps are times of processes' own clocks. So each process compares its clock with Redis', which
// all of them reach, and says so if it differs.

package jobs

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/codex-api/codex-jobs/internal/telemetry"
)

const (
	// clockInterval is the time between two comparisons, and clockRetryInterval that after one that failed.
	clockInterval      = time.Minute
	clockRetryInterval = 5 * time.Second
	// maxClockOffset is how far a clock may be from Redis' before the log warns of it.
	maxClockOffset = 5 * time.Second
)

// RedisTime returns the time of Redis' clock.
func (j *Jobs) RedisTime(ctx context.Context) (time.Time, error) {
	now, err := j.rdb.Time(ctx).Result()
	if err != nil {
		return time.Time{}, fmt.Errorf("asking Redis for its time: %w", err)
	}
	return now.UTC(), nil
}

// WatchClock compares this process's clock with Redis' until ctx ends: at once, and once a minute. It logs a warning when the
// two begin to differ by more than 5 s, and a line when they agree again. The registerer, which can be nil, gets the difference
// as a metric.
func (j *Jobs) WatchClock(ctx context.Context, registerer prometheus.Registerer) {
	j.watchClock(ctx, registerer, clockInterval, func() time.Time { return time.Now().Round(0) })
}

func (j *Jobs) watchClock(ctx context.Context, registerer prometheus.Registerer, interval time.Duration, now func() time.Time) {
	gauge := promauto.With(registerer).NewGauge(prometheus.GaugeOpts{
		Namespace: telemetry.Namespace, Name: "clock_offset_seconds", Help: "How far this process's clock is ahead of Redis' clock.",
	})
	differed := false
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		asked := now()
		redis, err := j.RedisTime(ctx)
		if err != nil { // other code reports a Redis that is away
			timer.Reset(clockRetryInterval)
			continue
		}
		timer.Reset(interval)
		answered := now()
		offset := asked.Add(answered.Sub(asked) / 2).Sub(redis)
		gauge.Set(offset.Seconds())
		// An answer that took long can be off by half of that time.
		differs := max(offset, -offset) > maxClockOffset+max(0, answered.Sub(asked))/2
		switch {
		case differs && !differed:
			j.log.Warn("This process's clock differs from Redis' clock; set the clocks of all machines, such as with NTP",
				"ahead", offset.Round(time.Millisecond).String())
		case !differs && differed:
			j.log.Info("This process's clock agrees with Redis' clock again", "ahead", offset.Round(time.Millisecond).String())
		}
		differed = differs
	}
}
