// What one client, or many, cannot do to the API: try keys without end, and fill the log.

package api

import (
	"context"
	"log/slog"
	"math"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"
)

const (
	// wrongKeysAtOnce is how many wrong keys a client can send at once. After that it can send one each wrongKeyPause.
	wrongKeysAtOnce = 10
	wrongKeyPause   = 6 * time.Second
	// limitedClients bounds the memory for clients that have sent wrong keys: the longest ago are forgotten first.
	limitedClients = 10_000

	// linesAtOnce is how many lines of one kind are logged in quietTime. The others are summed up in one line.
	linesAtOnce = 20
	quietTime   = time.Minute

	// loggedLength is how much of what a client sent is logged, in bytes.
	loggedLength = 200
)

// wrongKeys limits how many wrong keys a client can try.
type wrongKeys struct {
	atOnce  int
	clients *lru.Cache[netip.Prefix, *rate.Limiter]
}

func newWrongKeys() *wrongKeys {
	clients, err := lru.New[netip.Prefix, *rate.Limiter](limitedClients)
	if err != nil {
		panic(err) // the size is not positive
	}
	return &wrongKeys{wrongKeysAtOnce, clients}
}

// wait counts a wrong key of the client, and returns how long the client must wait before the next one is looked at; 0 if the key
// need not wait itself.
func (w *wrongKeys) wait(client netip.Addr) time.Duration {
	bits := client.BitLen()
	if client.Is6() {
		bits = 64 // a client can have all addresses of such a network
	}
	network, _ := client.Prefix(bits) // the zero Prefix for no address, which all of those share
	limiter, ok := w.clients.Get(network)
	if !ok {
		limiter = rate.NewLimiter(rate.Every(wrongKeyPause), w.atOnce)
		w.clients.Add(network, limiter)
	}
	reservation := limiter.Reserve()
	delay := reservation.Delay()
	if delay > 0 {
		reservation.Cancel()
	}
	return delay
}

// retryAfter returns a duration as the header Retry-After has it, in whole seconds.
func retryAfter(d time.Duration) int { return int(math.Ceil(d.Seconds())) }

// clientAddr returns the address of a request's client; the zero Addr where it is not known. Behind trusted proxies it is the
// last one in X-Forwarded-For that is no such proxy.
func (s *Server) clientAddr(r *http.Request) netip.Addr {
	addr := remoteAddr(r)
	forwarded := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(forwarded) - 1; i >= 0 && s.isProxy(addr); i-- {
		next, err := netip.ParseAddr(strings.TrimSpace(forwarded[i]))
		if err != nil {
			break
		}
		addr = next.Unmap().WithZone("")
	}
	return addr
}

// fewLines logs lines of one kind, of which clients can cause any number. Those that are too many are logged at debug, and summed
// up.
type fewLines struct {
	log *slog.Logger
	// summary is the message of the line that sums up.
	summary string

	mu     sync.Mutex
	logged int
	left   int
	ending *time.Timer // of the time in which lines are counted; nil for none
}

// line logs a line, or counts it.
func (f *fewLines) line(ctx context.Context, log *slog.Logger, level slog.Level, message string, args ...any) {
	if !log.Enabled(ctx, level) {
		return
	}
	if level > slog.LevelDebug && f.isTooMuch() {
		level = slog.LevelDebug
	}
	log.Log(ctx, level, message, args...)
}

func (f *fewLines) isTooMuch() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ending == nil {
		f.ending = time.AfterFunc(quietTime, f.end)
	}
	if f.logged < linesAtOnce {
		f.logged++
		return false
	}
	f.left++
	return true
}

// end logs how many lines were not, and begins anew.
func (f *fewLines) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ending != nil {
		f.ending.Stop()
	}
	if f.left > 0 {
		f.log.Warn(f.summary, "lines", f.left)
	}
	f.ending, f.logged, f.left = nil, 0, 0
}

// cut returns the beginning of what a client sent, as much as the log takes.
func cut(text string) string {
	if len(text) <= loggedLength {
		return text
	}
	return strings.ToValidUTF8(text[:loggedLength], "") + "…"
}
