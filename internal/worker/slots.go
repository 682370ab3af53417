package worker

import "sync"

// slots counts the runs that the worker may work on at the same time, over all job types.
type slots struct {
	mu      sync.Mutex
	free    int
	changed chan struct{} // closed at the next change
}

func newSlots(n int) *slots { return &slots{free: n, changed: make(chan struct{})} }

// watch returns the number of free slots and a channel that is closed when it changes.
func (s *slots) watch() (free int, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.free, s.changed
}

// take takes a slot if one is free, and reports whether it did.
func (s *slots) take() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.free == 0 {
		return false
	}
	s.add(-1)
	return true
}

func (s *slots) put() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.add(1)
}

func (s *slots) add(n int) {
	s.free += n
	close(s.changed)
	s.changed = make(chan struct{})
}
