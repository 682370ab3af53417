package main

import (
	"reflect"
	"slices"
	"testing"
	"time"
)

const planLength = 3 * time.Minute

func TestThePlanFollowsFromTheSeed(t *testing.T) {
	t.Parallel()
	first, again, other := newPlan(7, planLength, roles), newPlan(7, planLength, roles), newPlan(8, planLength, roles)
	if !reflect.DeepEqual(first, again) {
		t.Error("the same seed gives another plan")
	}
	if reflect.DeepEqual(first, other) {
		t.Error("another seed gives the same plan")
	}
}

// Over many seeds, every kind of fault is made, nothing is broken twice at the same time or beyond the end, and one process
// of each role is there, except when all schedulers are killed.
func TestPlans(t *testing.T) {
	t.Parallel()
	made := make(map[faultKind]int)
	for seed := range uint64(200) {
		plan := newPlan(seed, planLength, roles)
		if len(plan) < 20 {
			t.Errorf("seed %d: %d faults only", seed, len(plan))
		}
		for i, f := range plan {
			made[f.kind]++
			if f.at+f.lasts > planLength {
				t.Errorf("seed %d: %q lasts longer than all", seed, f)
			}
			if f.server != "" && f.lasts > maxOutage {
				t.Errorf("seed %d: %q", seed, f)
			}
			if f.kind == freezeProcess && (f.lasts < minFreeze || f.lasts > maxFreeze) {
				t.Errorf("seed %d: %q", seed, f)
			}
			var away []string
			for j, g := range plan {
				if g.at >= f.end() || f.at >= g.end() {
					continue
				}
				if i != j && slices.ContainsFunc(f.concerns(), func(name string) bool { return slices.Contains(g.concerns(), name) }) {
					t.Errorf("seed %d: %q and %q concern the same", seed, f, g)
				}
				// When f begins.
				if g.at <= f.at && g.takesAway() && g.kind != killSchedulers && g.kind != rollProcesses {
					away = append(away, g.processes...)
				}
			}
			for _, r := range roles {
				left := slices.DeleteFunc(r.names(), func(name string) bool { return slices.Contains(away, name) })
				if len(left) == 0 {
					t.Errorf("seed %d: when %q begins no %s is left", seed, f, r.name)
				}
			}
		}
	}
	for _, d := range deck {
		if made[d.kind] == 0 {
			t.Errorf("never made: %s", d.kind)
		}
	}
}

func TestAShortPlanHasNoFreeze(t *testing.T) {
	t.Parallel()
	for seed := range uint64(50) {
		for _, f := range newPlan(seed, minLength, roles) {
			if f.kind == freezeProcess {
				t.Errorf("seed %d: %q", seed, f)
			}
		}
	}
}
