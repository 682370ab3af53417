package api_test

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/internal/access"
	"github.com/codex-api/codex-jobs/internal/api"
	"github.com/codex-api/codex-jobs/internal/procs"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

// setupKeyed starts an API with keys, behind a proxy that is trusted.
func setupKeyed(t *testing.T) *testBundle {
	t.Helper()
	keys, err := access.ParseKeys("ops:write:" + writeKey)
	if err != nil {
		t.Fatal(err)
	}
	return setup(t, func(o *api.Options) {
		o.Keys, o.TrustedProxies = keys, []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("10.0.0.0/8")}
	})
}

// A client that tries one key after the other must wait. Others need not, and neither must its own right key.
func TestWrongKeysMustWait(t *testing.T) {
	t.Parallel()
	b := setupKeyed(t)
	try := func(client, key string) answer {
		t.Helper()
		return b.request(t, http.MethodGet, "/jobs/status", "", "Authorization", "Bearer "+key, "X-Forwarded-For", client)
	}
	for client, same := range map[string]string{
		"192.0.2.1": "192.0.2.1", "198.51.100.9, 192.0.2.2": "192.0.2.2", "192.0.2.3, 10.1.2.3": "::ffff:192.0.2.3",
		"2001:db8:1:1::1": "2001:db8:1:1:ffff::2", "": "nonsense",
	} {
		for i := range 10 {
			if a := try(client, "a-wrong-key-number-"+strconv.Itoa(i)); a.status != http.StatusUnauthorized {
				t.Errorf("wrong key %d of %q: %d %s", i, client, a.status, a.text)
			}
		}
		a := try(same, "a-wrong-key-number-11")
		wait, err := strconv.Atoi(a.header.Get("Retry-After"))
		if a.status != http.StatusTooManyRequests || err != nil || wait < 1 || wait > 6 {
			t.Errorf("one more of %q: %d %s, Retry-After %q", same, a.status, a.text, a.header.Get("Retry-After"))
		}
		refused(t, a, "too many wrong keys from this address")
		if a := try(client, writeKey); a.status != http.StatusOK {
			t.Errorf("the right key of %q: %d %s", client, a.status, a.text)
		}
	}
	for _, other := range []string{"192.0.2.99", "192.0.2.1, 192.0.2.98", "2001:db8:1:2::1"} {
		if a := try(other, "another-wrong-key-1"); a.status != http.StatusUnauthorized {
			t.Errorf("another client, %q: %d %s", other, a.status, a.text)
		}
	}
}

// Clients cannot fill the log: what they send is cut, and lines of one kind are summed up.
func TestRefusedRequestsDoNotFillTheLog(t *testing.T) {
	t.Parallel()
	b := setupKeyed(t)
	const requests = 100
	for range requests {
		b.request(t, http.MethodGet, "/"+strings.Repeat("é", 3000), "", "Authorization", "Bearer a-wrong-key-1234567", "X-Forwarded-For", "192.0.2.7")
	}
	logged := b.log.Find(procs.Match{Msg: "Request refused", Attrs: procs.Attrs{"level": "INFO", "from": "192.0.2.7"}})
	if len(logged) != api.LinesAtOnce {
		t.Errorf("%d lines, want %d", len(logged), api.LinesAtOnce)
	}
	b.as(writeKey).request(t, "PUT"+strings.Repeat("X", 5000), "/jobs/"+strings.Repeat("x", 5000), "")
	for line := range strings.Lines(b.log.String()) {
		if len(line) > api.LoggedLength*2+500 {
			t.Errorf("a line has %d bytes: %.300s", len(line), line)
		}
	}
	b.server.SumUpLog()
	want := procs.Match{Msg: "More requests were refused", Attrs: procs.Attrs{"lines": float64(requests - api.LinesAtOnce)}}
	if len(b.log.Find(want)) != 1 {
		t.Errorf("the log has no %s", want)
	}
}

// A client that does not wait for its answer is no outage of Redis.
func TestClientThatGoesAway(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{}, 100)
	b := setup(t, func(o *api.Options) { o.Jobs.Redis().AddHook(hangingRedis{asked: asked}) })
	for _, path := range []string{"/jobs/status", "/jobs", "/job-types", "/processes"} {
		ctx, leave := context.WithCancel(t.Context())
		answered := make(chan error)
		go func() {
			_, err := b.try(ctx, http.MethodGet, path, "")
			answered <- err
		}()
		testbed.Receive(t, "Redis to be asked", asked)
		leave()
		if err := <-answered; !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", path, err)
		}
		testbed.Eventually(t, "the API to notice", func() bool {
			return len(b.log.Find(procs.Match{Msg: "Request", Attrs: procs.Attrs{"path": path, "status": 499.0}})) == 1
		})
	}
	if odd := b.log.Find(procs.Match{Msg: "Redis did not serve a request"}); len(odd) > 0 {
		t.Errorf("the log blames Redis: %v", odd)
	}
}

// hangingRedis is a hook in which every command waits for its context.
type hangingRedis struct {
	slowRedis
	asked chan<- struct{}
}

func (h hangingRedis) ProcessHook(redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, _ redis.Cmder) error { return h.hang(ctx) }
}

func (h hangingRedis) ProcessPipelineHook(redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, _ []redis.Cmder) error { return h.hang(ctx) }
}

func (h hangingRedis) hang(ctx context.Context) error {
	select {
	case h.asked <- struct{}{}:
	default:
	}
	<-ctx.Done()
	return ctx.Err()
}
