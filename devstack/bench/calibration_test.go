package main

import "testing"

// Figures within the bounds are those that people would write so, with two decimals.
func TestBounds(t *testing.T) {
	t.Parallel()
	for v, want := range map[float64]bool{0.664: false, 0.6651: true, 0.67: true, 0.69: true, 0.7049: true, 0.706: false} {
		if got := revisionBounds.hold(v); got != want {
			t.Errorf("%v is within %+v: %v", v, revisionBounds, got)
		}
	}
}

func TestStepsBeginWithTheCalibration(t *testing.T) {
	chosen := arguments{only: sections[:1]}
	for kind, want := range map[string]int{measuredMongoDB: 2, embeddedMongoDB: 1} {
		t.Setenv("DEVSTACK_MONGODB", kind)
		if steps := new(bench).steps(chosen); len(steps) != want || steps[want-1].name != sections[0].name {
			t.Errorf("on %s there are %d steps, want %d", kind, len(steps), want)
		}
	}
	if steps := new(bench).steps(arguments{check: true, only: sections}); len(steps) != 1 {
		t.Errorf("the check has %d steps", len(steps))
	}
}
