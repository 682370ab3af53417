//go:build compose

package compose_test

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/internal/testbed"
)

const (
	// users are so many that a long run can be handed over, and so few that a busy machine is done with a tick's run long before
	// the next tick.
	users = 2000
	// imageLimit is the largest size of an image.
	imageLimit = 40 << 20
)

// The life of a deployment, with the commands of docs/deploying.md. Each step builds on the one before.
func TestCompose(t *testing.T) {
	s := newSystem(t)
	id := strings.TrimPrefix(s.env["VERSION"], "test-1-")
	for _, step := range []struct {
		name string
		do   func(*testing.T, *system)
	}{
		{"build", func(t *testing.T, s *system) {
			s.setVersion("test-2", id)
			s.run(t, "build")
			s.setVersion("test-1", id)
			s.run(t, "build")
			checkImages(t, s)
		}},
		{"up", up},
		{"runs", runs},
		{"watch", watch},
		{"scale up and down", scale},
		{"kill -9 of a worker and a scheduler", kill},
		{"restart of Redis", restartRedis},
		{"upgrade", func(t *testing.T, s *system) {
			// Chance decides whether a worker has the run when it is replaced.
			handedOver := false
			for version := 2; version <= maxUpgrades && !handedOver && !t.Failed(); version++ {
				s.setVersion(fmt.Sprintf("test-%d", version), id)
				handedOver = upgrade(t, s)
			}
			if !handedOver {
				t.Error("no run was handed from an old worker to a new one")
			}
		}},
		{"scale down to one", scaleDown},
		{"back up, remove and restore", restore},
		{"roll back", func(t *testing.T, s *system) {
			s.setVersion("test-1", id)
			rollBack(t, s)
		}},
		{"remove", remove},
	} {
		started := time.Now()
		ok := t.Run(step.name, func(t *testing.T) { step.do(t, s) })
		t.Logf("%s took %.0f s", step.name, time.Since(started).Seconds())
		if !ok {
			t.FailNow()
		}
	}
	for name, b := range blocks(t) {
		if b.language == "sh" && !s.ran[name] {
			t.Logf("NOT RUN, because mongodump is not in this MONGO_IMAGE: %s", name)
			if !strings.HasSuffix(name, "-mongo") {
				t.Errorf("the commands %s were not run", name)
			}
		}
	}
}

func checkImages(t *testing.T, s *system) {
	for _, name := range deployables {
		size, err := strconv.Atoi(s.inspect(t, "codex-jobs-"+name+":"+s.env["VERSION"], "{{.Size}}"))
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("the image of %s has %.1f MiB", name, float64(size)/(1<<20))
		if size >= imageLimit {
			t.Errorf("the image of %s has %d bytes, want less than %d", name, size, imageLimit)
		}
	}
}

// up starts everything with three workers, and adds the users.
func up(t *testing.T, s *system) {
	started := time.Now()
	s.run(t, "up")
	s.waitUntilHealthy(t, waitLimit, 3)
	t.Logf("%.1f s from nothing to healthy", time.Since(started).Seconds())
	s.since = time.Now()
	s.run(t, "look")
	insert(t, s.collection, messyUsers(users))
	s.before = snapshot(t, s.collection)
	if len(s.before) != users {
		t.Fatalf("%d users, want %d", len(s.before), users)
	}
}

// runs waits for a scheduled run over all users, and triggers a quick one and a long one.
func runs(t *testing.T, s *system) {
	s.log.wait(t, 1, runCompleted, attrs{"syncType": "incremental", "usersUpdated": float64(users)})
	s.wantUpdated(t, waitLimit, s.trigger(t, full))
	started := time.Now()
	id, _ := s.startLong(t)
	s.wantUpdated(t, waitLimit, id)
	t.Logf("a long run takes %.1f s", time.Since(started).Seconds())
	s.wantNothingLost(t)
}

// scale adds workers while long runs follow each other, and removes all but one of them in the middle of a run.
func scale(t *testing.T, s *system) {
	s.startLong(t)
	stop := s.keepTriggering(t)
	s.run(t, "scale-up")
	s.waitUntilHealthy(t, healthLimit, 5)
	stop()
	s.wantNothingLost(t)
	scaleDown(t, s)
	s.run(t, "up") // three again
	s.waitUntilHealthy(t, healthLimit, 3)
}

const (
	// maxRestarts bounds how often the test takes a run from a worker.
	maxRestarts = 5
	// maxScaleDowns bounds how often the test removes a worker to find it at work.
	maxScaleDowns = 6
)

// scaleDown leaves one worker, and removes one that works on a run. On a slow engine the run that a worker has can end before that.
// So long runs follow each other, and if no worker was removed in one, it does all of it again.
func scaleDown(t *testing.T, s *system) {
	for tries := 1; ; tries++ {
		workers := s.containers(t, "worker")
		first := slices.MinFunc(workers, func(a, b string) int { return s.number(t, a) - s.number(t, b) })
		id, worker := s.startLong(t)
		// The first one stays. A worker that is busy wins the next run, too: a restart makes it lose both.
		for restarts := 0; worker == first; restarts++ {
			if restarts == maxRestarts {
				t.Fatalf("worker 1 got all of %d runs", restarts+1)
			}
			s.docker(t, "restart", first)
			s.wantUpdated(t, waitLimit, id)
			id, worker = s.startLong(t)
		}
		stop := s.keepTriggering(t)
		s.run(t, "scale-down")
		stop()
		s.waitUntilHealthy(t, healthLimit, 1)
		if left := s.containers(t, "worker"); len(left) != 1 || left[0] != first {
			t.Errorf("%q are left, want %q", left, first)
		}
		removed := slices.DeleteFunc(workers, func(worker string) bool { return worker == first })
		s.wantStopped(t, removed)
		s.wantNothingLost(t)
		if s.wantResumed(t, removed) {
			return
		}
		if tries == maxScaleDowns {
			t.Fatalf("in %d tries no worker was removed in a run", tries)
		}
		t.Log("no worker was removed in a run")
		s.run(t, "up")
		s.waitUntilHealthy(t, healthLimit, 3)
	}
}

// number is the number that Compose gave the container. Compose removes the highest first.
func (s *system) number(t *testing.T, container string) int {
	t.Helper()
	n, err := strconv.Atoi(s.inspect(t, container, `{{index .Config.Labels "com.docker.compose.container-number"}}`))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// wantResumed checks of each run that one of the workers released that another one went on from its checkpoint, in the same
// attempt. That one can be about to stop, too, and release the run once more. It reports whether there was any.
func (s *system) wantResumed(t *testing.T, workers []string) (any bool) {
	t.Helper()
	for _, released := range s.log.find(runGivenBack, nil) {
		if !slices.Contains(workers, released.container) {
			continue
		}
		of := attrs{"jobId": released.attrs["jobId"]}
		before := slices.IndexFunc(inTime(t, s.log.find(runGivenBack, of)), func(l line) bool { return l.attrs["time"] == released.attrs["time"] })
		starts := inTime(t, s.log.wait(t, before+2, runStarted, of))
		if next := starts[before+1]; next.container == released.container || next.attrs["attempt"] != 1.0 || next.attrs["resumedAfter"] == 0.0 {
			t.Errorf("the run did not go on elsewhere where it got to, in its first attempt: %v", next)
		}
		any = true
	}
	return any
}

// inTime returns lines in the order in which they were written: those of several containers come as they like.
func inTime(t *testing.T, lines []line) []line {
	t.Helper()
	at := func(l line) time.Time {
		text, _ := l.attrs["time"].(string)
		written, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			t.Fatal(err)
		}
		return written
	}
	return slices.SortedFunc(slices.Values(lines), func(a, b line) int { return at(a).Compare(at(b)) })
}

func kill(t *testing.T, s *system) {
	id, worker := s.startLong(t)
	scheduler := s.containers(t, "scheduler")[0]
	s.kill(t, worker)
	s.wantActive(t, id)
	s.kill(t, scheduler)
	killed := time.Now()
	for _, container := range []string{worker, scheduler} {
		testbed.Within(t, waitLimit, "the restart of "+container[:12], func() bool {
			return s.inspect(t, container, "{{.RestartCount}} {{.State.Status}}") == "1 running"
		})
	}
	s.waitUntilHealthy(t, healthLimit, 3)

	// The others go on meanwhile: only this run stands still.
	s.waitForResult(t, waitLimit, s.trigger(t, full))
	if len(s.log.find(runRecovered, attrs{"jobId": id})) > 0 {
		t.Log("the run was recovered before another one was through")
	}
	s.wantUpdated(t, recoveryLimit, id)
	t.Logf("the run ended %.0f s after its worker was killed", time.Since(killed).Seconds())
	s.log.wait(t, 1, runRecovered, attrs{"jobId": id, "recoveries": 1.0})
	s.wantNothingLost(t)
}

func restartRedis(t *testing.T, s *system) {
	history := s.history(t)
	id, _ := s.startLong(t)
	stop := s.keepTriggering(t)
	started := time.Now()
	s.docker(t, "compose", "restart", "redis")
	t.Logf("restarting Redis took %.1f s", time.Since(started).Seconds())
	s.waitUntilHealthy(t, healthLimit, 3)
	accepted, refused := stop()
	t.Logf("%d triggers were accepted meanwhile, %d refused", accepted, refused)
	s.wantUpdated(t, waitLimit, id)
	s.wantHistory(t, history)
	s.wantNothingLost(t)
}

// wantHistory checks that Redis still knows the runs.
func (s *system) wantHistory(t *testing.T, ids []string) {
	t.Helper()
	after := s.history(t)
	for _, id := range ids {
		if !slices.Contains(after, id) {
			t.Errorf("%s is not in the history any more", id)
		}
	}
}

// maxUpgrades bounds how often the test upgrades until a run is handed over. Each upgrade does so in two of three cases.
const maxUpgrades = 7

// upgrade replaces all containers while long runs follow each other, and reports whether one was handed from an old worker
// to a new one.
func upgrade(t *testing.T, s *system) (handedOver bool) {
	s.run(t, "build")
	old := make(map[string][]string)
	for _, name := range deployables {
		old[name] = s.containers(t, name)
	}
	s.startLong(t)
	stop := s.keepTriggering(t)
	given := len(s.log.find(runGivenBack, nil))
	s.run(t, "upgrade")
	s.waitUntilHealthy(t, healthLimit, 3)
	accepted, refused := stop()
	t.Logf("%d triggers were accepted meanwhile, %d refused", accepted, refused)
	for _, name := range deployables {
		containers := s.containers(t, name)
		if len(containers) != len(old[name]) {
			t.Errorf("%d containers of %s, want %d", len(containers), name, len(old[name]))
		}
		for _, container := range containers {
			if slices.Contains(old[name], container) {
				t.Errorf("a container of %s was not replaced", name)
			}
			s.wantVersion(t, container)
		}
		s.wantStopped(t, old[name])
	}
	lines := s.log.find(runGivenBack, nil)[given:]
	for _, line := range lines {
		s.wantReleasedInItsFirstAttempt(t, line.attrs["jobId"].(string))
	}
	s.wantNothingLost(t)
	return len(lines) > 0
}

// wantReleasedInItsFirstAttempt checks that the run was released, and that this cost no attempt.
func (s *system) wantReleasedInItsFirstAttempt(t *testing.T, id string) {
	t.Helper()
	for _, line := range s.log.wait(t, 2, runStarted, attrs{"jobId": id}) {
		if line.attrs["attempt"] != 1.0 {
			t.Errorf("a run that was released was charged an attempt: %v", line.attrs)
		}
	}
}

// wantVersion checks that the container has the present version, and that its program says so.
func (s *system) wantVersion(t *testing.T, container string) {
	t.Helper()
	if image := s.inspect(t, container, "{{.Config.Image}}"); !strings.HasSuffix(image, ":"+s.env["VERSION"]) {
		t.Errorf("a container has the image %s, want version %s", image, s.env["VERSION"])
	}
	lines := s.log.wait(t, 1, "Starting", attrs{"version": s.env["VERSION"]})
	if !slices.ContainsFunc(lines, func(l line) bool { return l.container == container }) {
		t.Errorf("%s does not say that it is of version %s", container, s.env["VERSION"])
	}
}

// restore makes a backup in the middle of a run, removes everything, and restores it with secrets in files.
func restore(t *testing.T, s *system) {
	s.startLong(t)
	promised, history := maps.Clone(s.acked), s.history(t)
	stop := s.keepTriggering(t) // there is a run in progress when Redis is copied
	copied := time.Now()
	s.run(t, "back-up-redis")
	stop()
	s.acked = promised // runs after the copy can be lost
	form := "-files"
	if s.tryRun(t, "back-up-mongo") == nil {
		form = ""
	} else {
		s.ran["back-up-mongo"] = false
		t.Log("NOT RUN: the backup by mongodump, which is not in this MONGO_IMAGE")
		s.run(t, "back-up-mongo"+form)
	}
	s.waitUntilHealthy(t, healthLimit, 1)
	s.wantEveryTick(t)
	s.log.wantSound(t)
	s.run(t, "remove")
	s.wantNothingLeft(t)

	s.run(t, "secrets")
	for line := range strings.Lines(blocks(t)["secrets-settings"].text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		s.env[name] = strings.Trim(value, "'") // which Compose does in a .env
	}
	s.env["WORKERS"] = "2"
	recovered := len(s.log.find(runRecovered, nil))
	s.run(t, "restore-redis")
	s.run(t, "restore-mongo"+form)
	s.run(t, "apply")
	s.waitUntilHealthy(t, waitLimit, 2)
	s.copied, s.since = copied, time.Now()
	s.wantHistory(t, history)
	s.wantUpdated(t, recoveryLimit, s.trigger(t, full))
	s.wantNothingLost(t)
	if len(s.log.find(runRecovered, nil)) == recovered {
		t.Error("no run was restored in progress")
	}
	if s.docker(t, "compose", "exec", "-T", "redis", "redis-cli", "ping") == "PONG" {
		t.Error("Redis asks for no password")
	}
	response, err := http.Get("http://127.0.0.1:" + s.port + "/jobs/status")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusUnauthorized {
		t.Errorf("the API asks for no key: %s", response.Status)
	}
}

// rollBack goes back to the previous version, all services at once, in the middle of a run.
func rollBack(t *testing.T, s *system) {
	s.env["WORKERS"] = "1"
	id, _ := s.startLong(t)
	s.run(t, "roll-back")
	s.waitUntilHealthy(t, healthLimit, 1)
	for _, name := range deployables {
		for _, container := range s.containers(t, name) {
			s.wantVersion(t, container)
		}
	}
	s.wantUpdated(t, waitLimit, id)
	s.wantNothingLost(t)
}

func remove(t *testing.T, s *system) {
	s.run(t, "down")
	volumes := strings.Fields(s.docker(t, "volume", "ls", "-q", "--filter", "label=com.docker.compose.project="+s.name))
	for _, name := range []string{"redis", "mongo", "mongo-config"} {
		if !slices.Contains(volumes, s.name+"_"+name) {
			t.Errorf("the volumes %q are left, and %s is not one of them", volumes, name)
		}
	}
	s.run(t, "remove")
	s.wantNothingLeft(t)
}
