// The endpoints: for each sync without work of its own, the URL that its batches go to, and how to ask there.

package config

import (
	"cmp"
	"encoding/base64"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpproxy"

	"github.com/codex-api/codex-jobs/internal/endpoint"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/version"
	"github.com/codex-api/codex-jobs/internal/webhook"
)

const (
	// signsRequests and trustsAuthorities are the purposes of settings that a notification's receiver has, too.
	signsRequests     = "signs the requests, as Standard Webhooks says; two, separated by a comma, while it is being changed"
	trustsAuthorities = "the certificate authorities to trust with an https URL, in PEM; by default the system's"
)

// Endpoint is the endpoint of a job type.
type Endpoint struct {
	endpoint.Options
	// Concurrency is how many requests one attempt sends at the same time. 0 means as many as Sync.Writers.
	Concurrency int
}

// readEndpoints returns the endpoints by job type, and the registry with the changes that their settings make. A job type whose
// URL is not set has none.
func readEndpoints(r *reader, registry *tasks.Registry) (map[string]Endpoint, *tasks.Registry) {
	var all map[string]Endpoint
	registry = registry.Resolve(func(d *tasks.Definition) {
		if !d.Endpoint {
			return
		}
		if e := readEndpoint(r, d); e.URL != "" {
			if all == nil {
				all = make(map[string]Endpoint)
			}
			all[d.Name] = e
		}
	})
	return all, registry
}

// readEndpoint returns the endpoint of a job type, and sets its rate limit.
func readEndpoint(r *reader, d *tasks.Definition) Endpoint {
	prefix := SettingPrefix(d.Name)
	g := r.group("Endpoints", worker).of(prefix)
	e := Endpoint{
		Options: endpoint.Options{
			Options: webhook.Options{
				URL: read(g, prefix+"_URL", "", endpointURL, "the endpoint that does the work of "+d.Name+": each batch is posted there; "+
					"without it "+d.Name+" only sets the two dates"),
				Version: version.String(),
			},
			Fields: read(g, prefix+"_FIELDS", "", fieldNames, "the fields of a record that are posted besides its _id; * means all"),
		},
	}
	e.Secrets = read(g, prefix+"_SECRET", "", webhookSecrets, signsRequests)
	e.Timeout = read(g, prefix+"_TIMEOUT", "30s", duration(time.Millisecond, "30s"), "how long a request may take, the answer included")
	e.Authorities = readAuthorities(g, prefix+"_CA_FILE", trustsAuthorities)
	e.Concurrency = read(g, prefix+"_CONCURRENCY", "", wholeNumber(1, 1000),
		"how many requests a run, or a range of a large run, sends at the same time; by default SYNC_WRITERS")
	if rate := readSet(g, prefix+"_RATE", "", rateLimit, "how many requests may be sent in a time, over all workers"); rate != nil {
		d.Rate = *rate
	}
	url := prefix + "_URL"
	g.refuseWithout(url, g.isSet(url), prefix+"_FIELDS", prefix+"_SECRET", prefix+"_SECRET_FILE", prefix+"_CA_FILE", prefix+"_CONCURRENCY",
		prefix+"_RATE")
	if e.Authorities != nil && strings.HasPrefix(e.URL, "http:") {
		g.refuse("%[1]s_CA_FILE is set and %[1]s_URL is not https; set it to an https URL", prefix)
	}
	return e
}

// readProxy returns the proxy of endpoints and notifications, which the usual variables name; nil for none. Without either of them, which
// are used, the variables are for other programs.
func readProxy(r *reader, used bool) func(*url.URL) (*url.URL, error) {
	g, proxy := r.group("Proxy", worker), proxyURL
	if !used {
		proxy.valid = nil
	}
	usual := func(name string, f format[string], purpose string) string {
		return cmp.Or(read(g, name, "", f, purpose), os.Getenv(strings.ToLower(name)))
	}
	c := httpproxy.Config{
		HTTPSProxy: usual("HTTPS_PROXY", proxy, "the proxy for endpoints and notifications whose URL begins with https; https_proxy counts, too, if this is not set"),
		HTTPProxy:  usual("HTTP_PROXY", proxy, "the proxy for those whose URL begins with http; likewise"),
		NoProxy: usual("NO_PROXY", anyText,
			"the hosts, domains and networks, separated by commas, that are asked without a proxy; likewise; this machine always is"),
	}
	if c.HTTPSProxy == "" && c.HTTPProxy == "" {
		return nil
	}
	return c.ProxyFunc()
}

// SettingPrefix returns what the names of a job type's settings begin with, such as USER_SYNC.
func SettingPrefix(jobType string) string {
	return strings.ToUpper(strings.ReplaceAll(jobType, "-", "_"))
}

// validHTTP reports whether a value is a URL of HTTP.
func validHTTP(value string) bool {
	u, err := url.Parse(value)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" && u.Fragment == ""
}

// validProxy reports whether a value names a proxy: by a URL, or by a host with or without a port.
func validProxy(value string) bool {
	if !strings.Contains(value, "://") {
		value = "http://" + value
	}
	u, err := url.Parse(value)
	return err == nil && slices.Contains([]string{"http", "https", "socks5", "socks5h"}, u.Scheme) && u.Hostname() != ""
}

var (
	endpointURL = format[string]{mustBe: "a URL, such as http://app:3000/user-sync", read: asIs, valid: validHTTP, secret: true}
	// proxyURL takes what other programs take of these variables: machines have them for those, too.
	proxyURL = format[string]{mustBe: "the URL of a proxy, such as http://proxy:3128", read: asIs, valid: validProxy}

	fieldNames = format[[]string]{
		mustBe: "* for all fields, or names and dotted paths separated by commas, such as email,profile.name",
		read: func(value string) (names []string, err error) {
			for name := range strings.SplitSeq(value, ",") {
				name = strings.TrimSpace(name)
				wrong := func(part string) bool { return part == "" || part[0] == '$' || part == "*" && value != "*" }
				if slices.ContainsFunc(strings.Split(name, "."), wrong) {
					return nil, errInvalid
				}
				names = append(names, name)
			}
			return names, nil
		},
	}

	webhookSecrets = format[[]string]{
		mustBe: "whsec_ and then 24 to 64 bytes in base64, or two such separated by a comma",
		read: func(value string) (secrets []string, err error) {
			for secret := range strings.SplitSeq(value, ",") {
				secret = strings.TrimSpace(secret)
				encoded, prefixed := strings.CutPrefix(secret, "whsec_")
				key, err := base64.StdEncoding.DecodeString(encoded)
				if !prefixed || err != nil || len(key) < 24 || len(key) > 64 {
					return nil, errInvalid
				}
				secrets = append(secrets, secret)
			}
			return secrets, nil
		},
		valid:  func(secrets []string) bool { return len(secrets) <= 2 },
		secret: true, inFile: true,
	}

	// ratePeriods are the times that a rate can be for.
	ratePeriods = map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour}

	rateLimit = format[tasks.Rate]{
		mustBe: "a number of requests for a second, a minute or an hour, such as 10/s, 480/m or 1000/h",
		read: func(value string) (rate tasks.Rate, err error) {
			calls, period, _ := strings.Cut(value, "/")
			if rate.Calls, err = strconv.Atoi(strings.TrimSpace(calls)); err != nil {
				return rate, errInvalid
			}
			rate.Per = ratePeriods[strings.TrimSpace(period)]
			return rate, nil
		},
		valid: func(r tasks.Rate) bool { return r.Calls >= 1 && r.Calls <= 100_000 && r.Per > 0 },
	}
)
