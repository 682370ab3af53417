// The formats of the settings' values: each says in words what a value must be, and reads one.

package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/codex-api/codex-jobs/internal/access"
	"github.com/codex-api/codex-jobs/internal/tasks"
)

// format is how the values of a setting are written.
type format[T any] struct {
	// mustBe names the valid values: it ends a sentence that begins with "must be".
	mustBe string
	read   func(string) (T, error)
	// valid reports whether a value that could be read is valid; nil allows all.
	valid func(T) bool
	// secret values are never shown.
	secret bool
	// inFile allows the value in a file, which another setting names.
	inFile bool
}

// parse reads a value. Its error says what the value must be.
func (f format[T]) parse(value string) (T, error) {
	parsed, err := f.read(value)
	if err != nil || f.valid != nil && !f.valid(parsed) {
		return parsed, errors.New("must be " + f.mustBe)
	}
	return parsed, nil
}

// errInvalid is the error of a value that cannot be read. The format adds how it must be.
var errInvalid = errors.New("not valid")

func asIs(value string) (string, error) { return value, nil }

var (
	anyText  = format[string]{mustBe: "any text", read: asIs}
	password = format[string]{mustBe: "any text", read: asIs, secret: true, inFile: true}
	prefix   = format[string]{mustBe: "a path such as /codex, of letters, digits and . _ ~ -, without a slash at its end", read: asIs, valid: access.ValidPrefix}
	path     = format[string]{mustBe: "the path of a file", read: asIs}
	boolean  = format[bool]{mustBe: "true or false", read: strconv.ParseBool}
	port     = wholeNumber(1, 65535)

	// host is a host without a port. A URL in its place is a common mistake.
	host = format[string]{mustBe: "a host name or address", read: asIs, valid: func(value string) bool {
		return !strings.ContainsAny(value, "/@[]?# \t")
	}}

	namespace = format[tasks.Namespace]{
		mustBe: "1 to 30 lower-case letters, digits and hyphens",
		read:   func(value string) (tasks.Namespace, error) { return tasks.Namespace(value), nil },
		valid:  tasks.Namespace.Valid,
	}

	databaseNumber = format[int]{mustBe: "a whole number, 0 or more", read: strconv.Atoi, valid: func(n int) bool { return n >= 0 }}

	// apiKeys have a parser of their own, in package access.
	apiKeys = format[string]{
		mustBe: "name:read:key or name:write:key, several separated by commas", read: asIs, secret: true, inFile: true,
	}

	databaseName = format[string]{
		mustBe: `a database name of at most 63 bytes, without spaces, dots, slashes, quotes and $`,
		read:   asIs,
		valid:  func(value string) bool { return len(value) <= 63 && !strings.ContainsAny(value, "/\\. \"$") },
	}

	logLevel = format[slog.Level]{mustBe: "debug, info, warn or error", read: func(value string) (level slog.Level, err error) {
		if !slices.Contains([]string{"debug", "info", "warn", "error"}, strings.ToLower(value)) {
			return level, errInvalid
		}
		return level, level.UnmarshalText([]byte(value))
	}}

	adminPort = format[int]{mustBe: "off, or " + port.mustBe, read: func(value string) (int, error) {
		if value == "off" {
			return AdminOff, nil
		}
		return port.parse(value)
	}}

	// baseURL is a URL to which a path can be added.
	baseURL = format[string]{mustBe: "a URL, such as http://collector:4318", read: asIs, valid: func(value string) bool {
		u, err := url.Parse(value)
		return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" && u.RawQuery == "" && u.Fragment == ""
	}}

	headers = format[map[string]string]{
		mustBe: "name=value pairs, separated by commas, with percent-encoded values",
		read: func(value string) (map[string]string, error) {
			all := make(map[string]string)
			for pair := range strings.SplitSeq(value, ",") {
				name, encoded, ok := strings.Cut(pair, "=")
				decoded, err := url.PathUnescape(strings.TrimSpace(encoded))
				if name = strings.TrimSpace(name); !ok || err != nil || name == "" || strings.ContainsAny(name, " \t:") {
					return nil, errInvalid
				}
				all[name] = decoded
			}
			return all, nil
		},
		secret: true, inFile: true,
	}

	// interval is 0 for off.
	interval = format[time.Duration]{
		mustBe: "off, or whole seconds that divide a minute, whole minutes that divide an hour or whole hours that divide a day, such as 20m",
		read: func(value string) (time.Duration, error) {
			if value == "off" {
				return 0, nil
			}
			return time.ParseDuration(value)
		},
		valid: func(d time.Duration) bool { return tasks.Schedule{Every: d}.Validate() == nil },
	}

	cronExpression = format[string]{
		mustBe: "five fields: minute, hour, day of month, month, day of week",
		read:   asIs,
		valid:  func(value string) bool { return tasks.Schedule{Cron: value}.Validate() == nil },
	}
)

func wholeNumber(least, most int) format[int] {
	return format[int]{
		mustBe: fmt.Sprintf("a whole number from %d to %d", least, most),
		read:   strconv.Atoi,
		valid:  func(n int) bool { return n >= least && n <= most },
	}
}

func number(least, most float64) format[float64] {
	return format[float64]{
		mustBe: fmt.Sprintf("a number from %g to %g", least, most),
		read:   func(value string) (float64, error) { return strconv.ParseFloat(value, 64) },
		valid:  func(f float64) bool { return f >= least && f <= most },
	}
}

// longest is ten years: longer durations are mistakes.
const longest = 10 * 365 * 24 * time.Hour

func duration(least time.Duration, example string) format[time.Duration] {
	return format[time.Duration]{
		mustBe: fmt.Sprintf("a duration from %s to %s, such as %s", short(least), short(longest), example),
		read:   time.ParseDuration,
		valid:  func(d time.Duration) bool { return d >= least && d <= longest },
	}
}

// short writes 20m0s as 20m.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// oneOf is one of the texts, which mustBe lists.
func oneOf(mustBe string, allowed ...string) format[string] {
	return format[string]{mustBe: mustBe, read: asIs, valid: func(value string) bool { return slices.Contains(allowed, value) }}
}

// networks is a list of addresses and networks.
var networks = format[[]netip.Prefix]{
	mustBe: "IP addresses or networks, separated by commas, such as 10.0.0.0/8,192.168.1.7",
	read: func(value string) (all []netip.Prefix, err error) {
		for text := range strings.SplitSeq(value, ",") {
			network, err := access.ParseNetwork(strings.TrimSpace(text))
			if err != nil {
				return nil, err
			}
			all = append(all, network)
		}
		return all, nil
	},
}

// addresses is a list of host:port.
func addresses(example string) format[[]string] {
	return format[[]string]{
		mustBe: "addresses as host:port, separated by commas, such as " + example,
		read: func(value string) (all []string, err error) {
			for addr := range strings.SplitSeq(value, ",") {
				addr = strings.TrimSpace(addr)
				hostName, portNumber, err := net.SplitHostPort(addr)
				_, badHost := host.parse(hostName)
				_, badPort := port.parse(portNumber)
				if hostName == "" || errors.Join(err, badHost, badPort) != nil {
					return nil, errInvalid
				}
				all = append(all, addr)
			}
			return all, nil
		},
	}
}
