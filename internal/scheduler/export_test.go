package scheduler

import "time"

// SetClock makes the scheduler look at another clock. It must be called before Run.
func (s *Scheduler) SetClock(now func() time.Time) { s.now = now }

// Show is for a test of asynq's Scheduler alone.
var Show = show
