package jobs

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// WatchClockEvery is WatchClock with another interval and another clock.
func (j *Jobs) WatchClockEvery(ctx context.Context, registerer prometheus.Registerer, interval time.Duration, now func() time.Time) {
	j.watchClock(ctx, registerer, interval, now)
}
