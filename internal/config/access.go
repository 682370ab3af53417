// The settings that say who can use the API, and the check that they fit each other. Without keys only this machine can use
// the API, unless AUTH_DISABLED says otherwise.

package config

import (
	"net"
	"strings"

	"github.com/codex-api/codex-jobs/internal/access"
)

// The values of AUTH_DISABLED besides false.
const (
	authDisabled = "true"
	// authUnlessKeys is for files that cannot know whether there are keys, such as docker-compose.yml.
	authUnlessKeys = "unless-keys"
)

func readHTTP(r *reader) HTTP {
	g := r.group("API", api)
	c := HTTP{
		Host:     read(g, "HOST", "127.0.0.1", host, "the address that the API listens on"),
		Port:     read(g, "PORT", "4000", port, "the port that the API listens on"),
		BasePath: read(g, "BASE_PATH", "", prefix, "the path below which a proxy shows the API; the proxy may pass it on or strip it"),
		TrustedProxies: read(g, "TRUSTED_PROXIES", "", networks,
			"the proxies whose X-Forwarded-Prefix and X-Forwarded-For the API believes; they must set both, or remove them"),
		DashboardReadOnly: read(g, "DASHBOARD_READ_ONLY", "true", boolean, "whether the dashboard only shows and changes nothing"),
	}
	readAccess(g, &c)
	readCertificate(g, &c)
	return c
}

func readAccess(g group, c *HTTP) {
	keys := read(g, "API_KEYS", "", apiKeys, "the keys of the API's clients")
	disabled := read(g, "AUTH_DISABLED", "false", oneOf("true, false or unless-keys", authDisabled, "false", authUnlessKeys),
		"whether the API is open to all who can reach it; with unless-keys it is, while there are no keys")
	c.AuthDisabled = disabled == authDisabled
	switch {
	case keys != "" && c.AuthDisabled:
		g.refuse("API_KEYS and AUTH_DISABLED=true are both set; set one of them")
	case !g.isSet("API_KEYS", "API_KEYS_FILE") && disabled == "false" && c.Host != "" && !loopback(c.Host):
		g.refuse("HOST must be an address that only this machine reaches, such as 127.0.0.1, while the API has no keys, was %q; "+
			"set API_KEYS, or AUTH_DISABLED=true if all who can reach the API may use it", c.Host)
	}
	if keys == "" {
		return
	}
	var err error
	if c.Keys, err = access.ParseKeys(keys); err != nil {
		g.refuseEach("API_KEYS", err)
	}
}

func readCertificate(g group, c *HTTP) {
	certFile := read(g, "TLS_CERT_FILE", "", path, "the API's certificate and its intermediates, in PEM; with it the API speaks HTTPS")
	keyFile := read(g, "TLS_KEY_FILE", "", path, "the private key of TLS_CERT_FILE, in PEM")
	switch {
	case certFile != "" && keyFile != "":
		var err error
		if c.Certificate, err = access.LoadCertificate(certFile, keyFile); err != nil {
			g.refuseEach("TLS_CERT_FILE, TLS_KEY_FILE", err)
		}
	case certFile != "" || keyFile != "":
		g.refuse("one of TLS_CERT_FILE and TLS_KEY_FILE is set; set both or none")
	}
}

// loopback reports whether only this machine reaches the host.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}
