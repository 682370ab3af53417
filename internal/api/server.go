package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/hibiken/asynq"
	"github.com/hibiken/asynqmon"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/codex-api/codex-jobs/internal/access"
	"github.com/codex-api/codex-jobs/internal/console"
	"github.com/codex-api/codex-jobs/internal/history"
	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/notify"
	"github.com/codex-api/codex-jobs/internal/redisconn"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/telemetry"
	"github.com/codex-api/codex-jobs/pkg/client"
)

const (
	// answerTimeout bounds the wait for Redis or MongoDB, so that an answer comes within 2 s.
	answerTimeout = 1500 * time.Millisecond
	// cleanupTimeout bounds a cleanup, which can have thousands of runs to remove. When Redis does not answer, the first
	// command fails long before.
	cleanupTimeout = 25 * time.Second
	// bulkTimeout bounds a change of many jobs, of which there can be thousands. What is left is counted after it.
	bulkTimeout = 20 * time.Second
	// notifyTimeout bounds a test of notifications: a worker must take it, and gives the receiver 10 s.
	notifyTimeout = 15 * time.Second
	// maxBody is the largest request body, in bytes.
	maxBody = 64 << 10
	// maxHeader is about the largest request header, in bytes.
	maxHeader = 16 << 10

	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second
	writeTimeout      = 30 * time.Second
	idleTimeout       = 2 * time.Minute
	shutdownTimeout   = 8 * time.Second
)

// DashboardPath is where asynqmon is mounted.
const DashboardPath = "/dashboard"

// Pinger is a dependency whose Ping returns an error when it does not answer.
type Pinger interface {
	Ping(ctx context.Context) error
}

// Options are what a Server is made of.
type Options struct {
	Jobs *jobs.Jobs
	// Long are the same jobs, by a client with more time for each command. The default is Jobs.
	Long *jobs.Jobs
	// Database is the MongoDB that the workers use, for the health check.
	Database Pinger
	// History is what has ended; nil if it is switched off.
	History *history.Store
	// Dashboard makes asynqmon's clients.
	Dashboard asynq.RedisConnOpt
	// DashboardReadOnly keeps the dashboard from changing anything.
	DashboardReadOnly bool
	// Keys are the keys of the clients. Without keys every client that reaches the API can use it.
	Keys access.Keys
	// AuthDisabled allows requests without keys for any Host.
	AuthDisabled bool
	// Certificate makes the API speak TLS; nil for none.
	Certificate *access.Certificate
	// BasePath is the path below which clients see the API, such as "/codex"; "" for none. Requests without it are served, too.
	BasePath string
	// TrustedProxies are the networks of the proxies whose X-Forwarded headers count.
	TrustedProxies []netip.Prefix
	// Metrics is served at /metrics. New adds the metrics of the API and of the queues.
	Metrics interface {
		prometheus.Registerer
		prometheus.Gatherer
	}
	// Tracing makes the spans; nil for none.
	Tracing trace.TracerProvider
	Log     *slog.Logger
}

// Server is the API. Make one with New.
type Server struct {
	Options
	started         time.Time
	router          *gin.Engine
	dashboard       *asynqmon.HTTPHandler
	dashboardPage   dashboardPage
	dashboardPolicy string
	crossOrigin     http.CrossOriginProtection
	openAPI         []byte
	docs            *docs
	metrics         *metrics
	wrongKeys       *wrongKeys
	refusals        *fewLines
	outages         *fewLines
	notifications   *jobs.Jobs
}

// New returns an API that serves nothing yet. Close must be called.
func New(o Options) *Server {
	gin.SetMode(gin.ReleaseMode)
	if o.Long == nil {
		o.Long = o.Jobs
	}
	s := &Server{
		Options: o, started: time.Now(), router: gin.New(), wrongKeys: newWrongKeys(),
		refusals:      &fewLines{log: o.Log, summary: "More requests were refused"},
		outages:       &fewLines{log: o.Log, summary: "Redis or MongoDB did not serve more requests"},
		notifications: notify.Queue(o.Jobs, o.Log),
	}
	s.dashboard = asynqmon.New(asynqmon.Options{
		RootPath: DashboardPath, RedisConnOpt: ourQueues{o.Dashboard, o.Jobs}, ReadOnly: o.DashboardReadOnly,
	})
	s.dashboardPage = newDashboardPage(s.dashboard)
	s.dashboardPolicy = dashboardPolicy(s.dashboardPage.html)
	s.openAPI = openAPI(o.Jobs.Registry())
	var err error
	if s.docs, err = newDocs(s.openAPI); err != nil {
		panic(err) // a programming error that every test would show
	}
	s.metrics = newMetrics(o.Metrics, o.Jobs.Registry())
	o.Metrics.MustRegister(o.Jobs.Collector())
	r := s.router
	r.RedirectTrailingSlash = false
	r.Use(s.measure)
	s.trace(r)
	r.Use(s.logRequest, s.recoverPanic)
	// For gin, a method that a path does not have is a path that is not there: its own look for others panics where some
	// routes have a parameter in the place of a word of others (gin 1.12).
	r.NoRoute(s.nothingThere)
	reading := []string{http.MethodGet, http.MethodHead}
	r.Match(reading, "/livez", func(c *gin.Context) { c.String(http.StatusOK, "ok\n") })
	r.Match(reading, "/readyz", s.ready)
	r.Match(reading, "/health", s.health)
	r.Match(reading, metricsPath, gin.WrapH(telemetry.MetricsHandler(o.Metrics, o.Log)))
	r.Match(reading, "/jobs/status", s.strict(s.status, "job")...)
	r.Match(reading, "/jobs", s.strict(s.listJobs, "job", "state", "page", "pageSize")...)
	r.Match(reading, "/jobs/:id", s.strict(s.showJob)...)
	r.DELETE("/jobs/:id", s.strict(s.cancelJob)...)
	r.POST("/jobs/:id/retry", s.strict(s.retryJob)...)
	r.Match(reading, historyPath, s.strict(s.listHistory, "job", "state", "kind", "from", "to", "text", "limit", "cursor")...)
	r.Match(reading, historyPath+"/:entry", s.strict(s.showHistory)...)
	r.Match(reading, "/schedules", s.strict(s.listSchedules)...)
	r.Match(reading, jobTypesPath, s.strict(s.listJobTypes)...)
	r.Match(reading, processesPath, s.strict(s.listProcesses)...)
	r.Match(reading, whoamiPath, s.strict(s.whoami)...)
	r.POST("/jobs/trigger/:job", s.strict(s.trigger)...)
	r.POST("/jobs/pause", s.strict(s.pause)...)
	r.POST("/jobs/resume", s.strict(s.resume)...)
	r.POST("/jobs/cleanup", s.strict(s.cleanup)...)
	r.POST("/jobs/retry-failed", s.strict(s.retryFailed)...)
	r.POST("/jobs/cancel-waiting", s.strict(s.cancelWaiting)...)
	r.POST("/notify/test", s.strict(s.testNotification)...)
	r.Match(reading, "/", s.index)
	for _, path := range []string{console.ScriptPath, console.StylePath} {
		r.Match(reading, path, func(c *gin.Context) { console.Serve(c.Writer, c.Request, path) })
	}
	r.Match(reading, openAPIPath, s.serveOpenAPI)
	r.Match(reading, docsPath, s.serveDocs)
	r.Any(DashboardPath, s.ourDashboard)
	r.Any(DashboardPath+"/*page", s.ourDashboard)
	return s
}

// nothingThere answers a request for a path that does not exist, or not with that method.
func (s *Server) nothingThere(c *gin.Context) {
	path := c.Request.URL.Path
	if allowed := s.methodsOf(path); len(allowed) > 0 {
		c.Header("Allow", strings.Join(allowed, ", "))
		fail(c, http.StatusMethodNotAllowed, fmt.Sprintf("the method was %s; it must be %s", c.Request.Method, strings.Join(allowed, " or ")))
		return
	}
	fail(c, http.StatusNotFound, fmt.Sprintf("there is nothing at %[1]s; see GET %[2]s/health, GET %[2]s/jobs/status and %[2]s%[3]s",
		tasks.Describe(path), prefixOf(c.Request), DashboardPath))
}

// methodsOf returns the methods of a path: those of the route with this very path, or else of the routes that it fits.
func (s *Server) methodsOf(path string) []string {
	var exact, fitting []string
	for _, route := range s.router.Routes() {
		switch {
		case route.Path == path:
			exact = append(exact, route.Method)
		case fits(route.Path, path):
			fitting = append(fitting, route.Method)
		}
	}
	if len(exact) == 0 {
		exact = fitting
	}
	slices.Sort(exact)
	return slices.Compact(exact)
}

// fits reports whether a path fits a route with parameters. An :id must have the form of a job's ID.
func fits(route, path string) bool {
	want, got := strings.Split(route, "/"), strings.Split(path, "/")
	if len(want) != len(got) {
		return false
	}
	for i := range want {
		switch {
		case want[i] == ":id":
			if _, err := tasks.ParseRunID(got[i]); err != nil {
				return false
			}
		case strings.HasPrefix(want[i], ":"):
			if got[i] == "" {
				return false
			}
		case want[i] != got[i]:
			return false
		}
	}
	return true
}

// Close closes the dashboard's clients, and logs what is left to be.
func (s *Server) Close() error {
	s.refusals.end()
	s.outages.end()
	return s.dashboard.Close()
}

// ListenAndServe answers requests to the address until ctx ends; then it answers the requests under way and returns.
func (s *Server) ListenAndServe(ctx context.Context, host string, port int) error {
	addr := net.JoinHostPort(host, strconv.Itoa(port))
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("listening on %s: %w", addr, err)
	}
	return s.Serve(ctx, listener)
}

// Serve answers requests on the listener until ctx ends; then it answers the requests under way and returns.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	server := &http.Server{
		Handler: s, ReadHeaderTimeout: readHeaderTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader, ErrorLog: slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
		DisableGeneralOptionsHandler: true, // which would answer without asking for a key
	}
	serve := func() error { return server.Serve(listener) }
	if s.Certificate != nil {
		server.TLSConfig = s.serverTLS()
		serve = func() error { return server.ServeTLS(listener, "", "") }
	}
	served := make(chan error, 1)
	go func() { served <- serve() }()
	s.Log.Info("API ready", "addr", listener.Addr().String(), "dashboard", DashboardPath, "tls", s.Certificate != nil, "url", s.urlAt(listener.Addr()))
	select {
	case err := <-served:
		return fmt.Errorf("serving HTTP on %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	err := server.Shutdown(ending)
	if err != nil {
		err = errors.Join(fmt.Errorf("ending HTTP requests: %w", err), server.Close())
	}
	if failed := <-served; !errors.Is(failed, http.ErrServerClosed) {
		err = errors.Join(err, failed)
	}
	return err
}

// urlAt returns the URL of the API's front page on this machine, for people to click on.
func (s *Server) urlAt(addr net.Addr) string {
	at := url.URL{Scheme: "http", Host: addr.String(), Path: s.BasePath + "/"}
	if s.Certificate != nil {
		at.Scheme = "https"
	}
	if tcp, ok := addr.(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		at.Host = net.JoinHostPort("localhost", strconv.Itoa(tcp.Port))
	}
	return at.String()
}

// logRequest logs each request that changed something, or could have before it failed; at the level debug, each request.
func (s *Server) logRequest(c *gin.Context) {
	start := time.Now()
	c.Next()
	level := slog.LevelDebug
	if status := c.Writer.Status(); !reads(c.Request) && (status < 400 || status >= 500) {
		level = slog.LevelInfo
	}
	s.log(c).Log(c.Request.Context(), level, "Request", "method", cut(c.Request.Method), "path", cut(c.Request.URL.Path), "status", c.Writer.Status(),
		"duration", time.Since(start).Milliseconds())
}

// recoverPanic answers a request whose handler panicked, without telling the client why.
func (s *Server) recoverPanic(c *gin.Context) {
	defer func() {
		switch x := recover(); x {
		case nil:
		case http.ErrAbortHandler: // net/http deals with it
			panic(x)
		default:
			s.log(c).Error("A request handler panicked", "path", cut(c.Request.URL.Path), "panic", x, "stack", string(debug.Stack()))
			fail(c, http.StatusInternalServerError, "internal error; the log says more")
		}
	}()
	c.Next()
}

// fail answers with an error, in the form of every error of this API.
func fail(c *gin.Context, status int, message string) {
	c.AbortWithStatusJSON(status, client.Answer{Message: message})
}

// statusClientGone is the status in log and metrics of a request whose client did not wait for the answer. No client sees it.
const statusClientGone = 499

// unavailable answers a request that failed in package jobs, which fails only when Redis does not serve, or when the client has
// gone away.
func (s *Server) unavailable(c *gin.Context, err error) { s.unavailableAfter(c, "", err) }

// unavailableAfter is unavailable for a request of which something was done before it failed.
func (s *Server) unavailableAfter(c *gin.Context, done string, err error) {
	if c.Request.Context().Err() != nil {
		s.log(c).Debug("The client did not wait for the answer", "path", cut(c.Request.URL.Path), "error", err)
		c.AbortWithStatus(statusClientGone)
		return
	}
	s.outages.line(c.Request.Context(), s.log(c), slog.LevelWarn, "Redis did not serve a request", "path", cut(c.Request.URL.Path), "error", err)
	message := "Redis is not available; try again later"
	if reply, refused := redisconn.Refusal(err); refused {
		message = "Redis refuses this request: " + reply + "; try again later"
	}
	if done != "" {
		message = done + ", before this: " + message
	}
	fail(c, http.StatusServiceUnavailable, message)
}

// lookup returns a job type. Where there is none of the name, it answers with the known names, and returns false.
func (s *Server) lookup(c *gin.Context, name string) (tasks.Definition, bool) {
	def, ok := s.Jobs.Registry().Lookup(name)
	if !ok {
		err := &tasks.FieldError{Field: "the job", Was: tasks.Describe(name), Allowed: quoted(s.Jobs.Registry().Names())}
		fail(c, http.StatusNotFound, err.Error())
	}
	return def, ok
}

func quoted(names []string) string {
	var list []string
	for _, name := range names {
		list = append(list, fmt.Sprintf("%q", name))
	}
	return strings.Join(list, " or ")
}
