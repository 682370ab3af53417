package procs

import (
	"os"
	"time"
)

// This file knows the product's programs. They log in JSON unless LOG_FORMAT says otherwise.
const (
	API       = "api"
	Scheduler = "scheduler"
	Worker    = "worker"
)

// Ready matches what one of the product's programs logs when it is ready.
func Ready(program string) Match {
	return Match{Msg: map[string]string{API: "API ready", Scheduler: "Scheduler ready", Worker: "Worker ready"}[program]}
}

// StopGrace is how long a program of the product may take to end: the promised 10 s, and some more for a busy machine.
const StopGrace = 12 * time.Second

// Environ returns an environment for one of the product's programs: PATH, HOME and the named settings of this process, and
// on top of them the given ones. An empty value leaves a setting out.
func Environ(settings []string, own map[string]string) []string {
	var environ []string
	add := func(name, value string) {
		if value != "" {
			environ = append(environ, name+"="+value)
		}
	}
	for _, name := range append([]string{"PATH", "HOME"}, settings...) {
		if _, ok := own[name]; !ok {
			add(name, os.Getenv(name))
		}
	}
	for name, value := range own {
		add(name, value)
	}
	return environ
}
