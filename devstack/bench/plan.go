// What is measured, and how much of it, is in one place to be looked up and changed.

package main

import (
	"context"
	"slices"
)

// section is one part of what is measured. Each can be measured by itself.
type section struct {
	name, summary string
	programs      []string
	run           func(*bench, context.Context) error
}

// sections is all of them, in the order in which they are measured and shown.
var sections = []section{
	{"sync", "a full sync against the driver alone, its cost for each user, the worker's memory", []string{workerProgram}, (*bench).measureSync},
	{"settings", "the settings in use against the best of some others", []string{workerProgram}, (*bench).measureSettings},
	{"index", "an incremental sync that finds few due users by the index of SYNC_INDEX, against one without, and what the index costs a full sync", []string{workerProgram}, (*bench).measureIndex},
	{"workers", "one run on 2 and 4 workers against one, when each batch waits for something outside", []string{slowProgram}, (*bench).measureWorkers},
	{"endpoint", "a sync whose endpoint takes 200 ms, and 20 ms, for a batch, against what that allows and the driver alone", []string{workerProgram}, (*bench).measureEndpoint},
	{"mails", "100 small runs that all wait, on three workers, against the time that they take at least", []string{slowProgram}, (*bench).measureMails},
	{"latency", "from a trigger to the start of its handler, and what an idle worker costs, against asynq alone", []string{apiProgram, workerProgram}, (*bench).measureLatency},
	{"status", "GET /jobs/status with many runs waiting against few", []string{apiProgram}, (*bench).measureStatus},
	{"consoles", "what ten open consoles cost the API", []string{apiProgram, slowProgram}, (*bench).measureConsoles},
}

func sectionNames() []string {
	names := make([]string, len(sections))
	for i, s := range sections {
		names[i] = s.name
	}
	return names
}

// programsOf returns what must be in the bin directory.
func programsOf(chosen []section) []string {
	var programs []string
	for _, s := range chosen {
		programs = append(programs, s.programs...)
	}
	slices.Sort(programs)
	return slices.Compact(programs)
}

// plan is how much of everything is measured.
type plan struct {
	// embedded is true on a server that is slow, and lacks much of what MongoDB can.
	embedded bool
	// sizes is the numbers of users for the sync, growing; comparisons is the number for the settings.
	sizes       []int
	comparisons int
	// Of the section workers: its users, how many ranges they are split into, and the records of a batch.
	sharedUsers, ranges, sharedBatch int
	// Of the section endpoint: the users for the slow one, and for the fast one.
	slowUsers, fastUsers int
	// triggers is how often the time to the start of a handler is measured.
	triggers int
	// chunk is how many users are inserted at a time.
	chunk int
}

// newPlan returns the plan for a real MongoDB, or for one that is embedded and slow.
func newPlan(embedded, big bool) plan {
	if embedded {
		return plan{
			embedded: true,
			sizes:    []int{500, 2000}, comparisons: 2000,
			sharedUsers: 1000, ranges: 20, sharedBatch: 2,
			slowUsers: 1500, fastUsers: 4000,
			triggers: 50, chunk: 100,
		}
	}
	p := plan{
		sizes: []int{10_000, 100_000}, comparisons: 100_000,
		sharedUsers: 20_000, ranges: 100, sharedBatch: 25, // so that four workers are not too much for the server
		slowUsers: 20_000, fastUsers: 100_000,
		triggers: 100, chunk: 1000,
	}
	if big {
		p.sizes = append(p.sizes, 1_000_000)
	}
	return p
}
