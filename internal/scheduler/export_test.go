package scheduler

import "time"

// SetClock gives the scheduler another clock. It must be called before Run.
func (s *Scheduler) SetClock(now func() time.Time) { s.now = now }

// Show is show, for a test of asynq's Scheduler alone.
var Show = show
