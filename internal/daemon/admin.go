// The admin port of a program: its metrics, and the probes that tell container engines and load balancers whether the
// program is alive and ready. It serves plain HTTP without keys, so it must not be open to the outside.

package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/codex-api/codex-jobs/internal/config"
	"github.com/codex-api/codex-jobs/internal/telemetry"
)

const (
	// listenPause is the wait between two attempts at a port that is in use.
	listenPause = 5 * time.Second
	// readyTimeout bounds the check whether the process is ready.
	readyTimeout = 1500 * time.Millisecond

	adminReadTimeout  = 5 * time.Second
	adminWriteTimeout = 15 * time.Second
	adminIdleTimeout  = 2 * time.Minute
	adminMaxHeader    = 16 << 10
)

// ReadyWhen sets the check whether the process is ready. Without one the process is not ready.
func (p *Process) ReadyWhen(check func(context.Context) error) { p.ready.Store(&check) }

// adminHandler serves the admin port. The process is no longer ready once stopping is closed.
func (p *Process) adminHandler(stopping <-chan struct{}) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", telemetry.MetricsHandler(p.Metrics, p.Log))
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { plain(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
		defer cancel()
		select {
		case <-stopping:
			plain(w, http.StatusServiceUnavailable, "stopping")
			return
		default:
		}
		check := p.ready.Load()
		if check == nil {
			plain(w, http.StatusServiceUnavailable, "starting")
			return
		}
		if err := (*check)(ctx); err != nil {
			p.Log.Debug("Not ready", "error", err)
			plain(w, http.StatusServiceUnavailable, "Redis, or MongoDB for a worker, does not answer or accepts no writes")
			return
		}
		plain(w, http.StatusOK, "ok")
	})
	return mux
}

func plain(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = fmt.Fprintln(w, text) // the client may be gone
}

// serveAdmin serves the admin port until ctx ends. A port that is in use does not end the process: several processes of one
// program may share a host, and the work matters more than the metrics.
func (p *Process) serveAdmin(ctx context.Context, settings config.Admin, port int, stopping <-chan struct{}) {
	switch settings.Port {
	case 0:
	case config.AdminOff:
		return
	default:
		port = settings.Port
	}
	addr := net.JoinHostPort(settings.Host, strconv.Itoa(port))
	listener := p.listen(ctx, addr)
	if listener == nil {
		return
	}
	server := &http.Server{
		Handler: p.adminHandler(stopping), ReadHeaderTimeout: adminReadTimeout, ReadTimeout: adminReadTimeout,
		WriteTimeout: adminWriteTimeout, IdleTimeout: adminIdleTimeout, MaxHeaderBytes: adminMaxHeader,
		ErrorLog: slog.NewLogLogger(p.Log.Handler(), slog.LevelDebug),
	}
	p.Log.Info("Admin port ready", "addr", listener.Addr().String())
	stop := context.AfterFunc(ctx, func() { _ = server.Close() }) // requests in progress get no answer
	defer stop()
	if err := server.Serve(listener); ctx.Err() == nil {
		p.Log.Error("The admin port has failed", "error", err)
	}
}

// listen tries until it listens. It returns nil when ctx ends.
func (p *Process) listen(ctx context.Context, addr string) net.Listener {
	for warned := false; ; warned = true {
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
		if err == nil {
			return listener
		}
		if !warned && ctx.Err() == nil {
			p.Log.Warn("No metrics and no probes, trying again", "error", err, "adminPort", addr)
		}
		select {
		case <-time.After(listenPause):
		case <-ctx.Done():
			return nil
		}
	}
}
