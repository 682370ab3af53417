// The admin port of a program: its metrics, and the probes that tell container engines and load balancers whether the
// program is alive and ready. It serves plain HTTP without keys, so it must not be open to the outside.

package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"time"

	"github.com/codex-api/codex-jobs/internal/config"
	"github.com/codex-api/codex-jobs/internal/telemetry"
)

const (
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

// listenAdmin opens the admin port; nil for none. Several processes of a program may share a host: where another one has the
// default port, listenAdmin takes a free one. A port that ADMIN_PORT names must be free, because something will look there.
func (p *Process) listenAdmin(ctx context.Context, settings config.Admin, byDefault int) (net.Listener, error) {
	if settings.Port == config.AdminOff {
		return nil, nil //nolint:nilnil // there is none
	}
	listen := func(port int) (net.Listener, error) {
		return new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(settings.Host, strconv.Itoa(port)))
	}
	listener, err := listen(cmp.Or(settings.Port, byDefault))
	if errors.Is(err, syscall.EADDRINUSE) && settings.Port == 0 {
		p.Log.Warn("The default admin port is in use, taking a free one", "adminPort", byDefault)
		listener, err = listen(0)
	}
	if err != nil {
		return nil, fmt.Errorf("opening the admin port (ADMIN_HOST, ADMIN_PORT): %w", err)
	}
	return listener, nil
}

// serveAdmin serves the admin port until ctx ends. Without a listener it does nothing.
func (p *Process) serveAdmin(ctx context.Context, listener net.Listener, stopping <-chan struct{}) {
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
