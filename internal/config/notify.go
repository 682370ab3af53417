// Notifications: where a worker posts them, and which it does beyond those that are always sent.

package config

import (
	"log/slog"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/codex-api/codex-jobs/internal/version"
	"github.com/codex-api/codex-jobs/internal/webhook"
)

// notifyTimeout is how long one request to the receiver may take.
const notifyTimeout = 10 * time.Second

// Notify is the receiver of notifications. Without a URL there are none.
type Notify struct {
	webhook.Options
	// ErrorRate is the share of a run's records from which on their failing is an event, from 0 to 1. 0 means never.
	ErrorRate float64
}

// LogValue implements slog.LogValuer. It shows the host only: many services for messages have their secret in the path.
func (n Notify) LogValue() slog.Value {
	u, err := url.Parse(n.URL)
	if err != nil || n.URL == "" {
		return slog.StringValue("")
	}
	return slog.StringValue((&url.URL{Scheme: u.Scheme, Host: u.Host}).String())
}

func readNotify(r *reader) Notify {
	g := r.group("Notifications", worker)
	n := Notify{Options: webhook.Options{
		URL: read(g, "NOTIFY_URL", "", receiverURL, "takes a POST for each event: a run that failed for good, the next that succeeded, many failed "+
			"records, missed ticks; all workers must have the same"),
		Secrets: read(g, "NOTIFY_SECRET", "", webhookSecrets, signsRequests),
	}}
	if n.URL != "" {
		n.Timeout, n.Version = notifyTimeout, version.String()
	}
	n.ErrorRate = read(g, "NOTIFY_ERROR_RATE", "", share,
		"the share of a run's records from which on it is an event that they failed; without it that is none")
	n.Authorities = readAuthorities(g, "NOTIFY_CA_FILE", trustsAuthorities)
	g.refuseWithout("NOTIFY_URL", g.isSet("NOTIFY_URL"), "NOTIFY_SECRET", "NOTIFY_SECRET_FILE", "NOTIFY_ERROR_RATE", "NOTIFY_CA_FILE")
	if n.Authorities != nil && strings.HasPrefix(n.URL, "http:") {
		g.refuse("NOTIFY_CA_FILE is set and NOTIFY_URL is not https; set it to an https URL")
	}
	return n
}

var (
	receiverURL = format[string]{mustBe: "a URL, such as https://alerts.example.com/codex", read: asIs, valid: validHTTP, secret: true}

	share = format[float64]{
		mustBe: "a share above 0, at most 1 or 100%, such as 0.1 or 10%",
		read: func(value string) (float64, error) {
			number, isPercent := strings.CutSuffix(value, "%")
			f, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
			if isPercent {
				f /= 100
			}
			return f, err
		},
		valid: func(f float64) bool { return f > 0 && f <= 1 },
	}
)
