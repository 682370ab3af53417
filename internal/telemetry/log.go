package telemetry

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"
)

// NewLogger returns a logger that writes lines at or above the level. The format is "json" or "text".
func NewLogger(w io.Writer, level slog.Level, format string) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if format == "text" {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}

// RedisLogger lets go-redis write to a slog logger, at debug: its lines are about single connections. Package redisconn logs
// the loss and the return of Redis.
type RedisLogger struct {
	log *slog.Logger
}

// NewRedisLogger returns a logger for redis.SetLogger.
func NewRedisLogger(log *slog.Logger) *RedisLogger {
	return &RedisLogger{log.With("component", "redis")}
}

// Printf logs at debug.
func (l *RedisLogger) Printf(ctx context.Context, format string, v ...any) {
	l.log.DebugContext(ctx, fmt.Sprintf(format, v...))
}

// AsynqLogger lets asynq write to a slog logger. Its information and warnings are logged at debug: an asynq Server comes and
// goes with every lease, and our own code logs how a run ends.
type AsynqLogger struct {
	log *slog.Logger

	mu     sync.Mutex
	logged map[string]time.Time // by the beginning of the message
}

// quietTime is how long an error of the same kind is not logged again: while Redis is away asynq logs several a second.
const quietTime = time.Minute

// NewAsynqLogger returns an asynq.Logger that writes to log.
func NewAsynqLogger(log *slog.Logger) *AsynqLogger {
	return &AsynqLogger{log: log.With("component", "asynq"), logged: make(map[string]time.Time)}
}

// Debug logs at debug.
func (l *AsynqLogger) Debug(args ...any) { l.log.Debug(fmt.Sprint(args...)) }

// Info logs at debug.
func (l *AsynqLogger) Info(args ...any) { l.log.Debug(fmt.Sprint(args...)) }

// Warn logs at debug.
func (l *AsynqLogger) Warn(args ...any) { l.log.Debug(fmt.Sprint(args...)) }

// Error logs at warn, because asynq tries again. It logs a repetition within a minute at debug.
func (l *AsynqLogger) Error(args ...any) {
	message := fmt.Sprint(args...)
	kind, _, _ := strings.Cut(message, ":")
	l.mu.Lock()
	repeated := time.Since(l.logged[kind]) < quietTime
	if !repeated {
		l.logged[kind] = time.Now()
	}
	l.mu.Unlock()
	if repeated {
		l.log.Debug(message)
		return
	}
	l.log.Warn(message)
}

// Fatal logs at error and ends the process, as asynq expects.
func (l *AsynqLogger) Fatal(args ...any) {
	l.log.Error(fmt.Sprint(args...))
	os.Exit(1)
}
