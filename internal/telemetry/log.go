package telemetry

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
)

// NewLogger returns a logger that writes lines of the format, "json" or "text", from the level upwards.
func NewLogger(w io.Writer, level slog.Level, format string) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if format == "text" {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}

// RedisLogger lets go-redis write to a slog logger. It tells of single connections, which is of interest only to who
// debugs them: what matters is logged by package jobs.
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

// AsynqLogger lets asynq write to a slog logger. What asynq calls information or a warning is of interest only to who
// debugs asynq: servers come and go with every lease, and what becomes of a run is logged where it is decided.
type AsynqLogger struct {
	log *slog.Logger
}

// NewAsynqLogger returns an asynq.Logger that writes to log.
func NewAsynqLogger(log *slog.Logger) *AsynqLogger {
	return &AsynqLogger{log.With("component", "asynq")}
}

// Debug logs at debug.
func (l *AsynqLogger) Debug(args ...any) { l.log.Debug(fmt.Sprint(args...)) }

// Info logs at debug.
func (l *AsynqLogger) Info(args ...any) { l.log.Debug(fmt.Sprint(args...)) }

// Warn logs at debug.
func (l *AsynqLogger) Warn(args ...any) { l.log.Debug(fmt.Sprint(args...)) }

// Error logs at warn: asynq tries again.
func (l *AsynqLogger) Error(args ...any) { l.log.Warn(fmt.Sprint(args...)) }

// Fatal logs at error and ends the process, as asynq expects.
func (l *AsynqLogger) Fatal(args ...any) {
	l.log.Error(fmt.Sprint(args...))
	os.Exit(1)
}
