// Who may use the API: the settings that only make sense together, and what is refused of them. The API is open to
// whoever reaches it only where that is this machine, or where a setting says so in so many words.

package config

import (
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/codex-api/codex-jobs/internal/access"
)

// accessSettings are as they were set.
type accessSettings struct {
	keys, keysFile, disabled, certFile, keyFile string
}

// What AUTH_DISABLED may be besides false.
const (
	authDisabled = "true"
	// authUnlessKeys is for files that cannot know whether there will be keys, such as docker-compose.yml.
	authUnlessKeys = "unless-keys"
)

func (l *loader) addAccess() {
	a := &l.access
	l.addSecret("API_KEYS", anyText, "keys of the API's clients: name:read:key or name:write:key, with commas between them", text(&a.keys))
	l.settings[len(l.settings)-1].set = text(&a.keysFile)
	l.add("AUTH_DISABLED", "false", "true, false or unless-keys",
		"true lets everybody who reaches the API use it, unless-keys only while there are no keys", oneOf(&a.disabled, authDisabled, "false", authUnlessKeys))
	l.add("TLS_CERT_FILE", "", "the path of a file", "the API's certificate in PEM, with those that vouch for it; makes it speak HTTPS", text(&a.certFile))
	l.add("TLS_KEY_FILE", "", "the path of a file", "the private key of that certificate, in PEM", text(&a.keyFile))
}

// finishAccess reads the keys and the certificate, and returns what is wrong with all of it together.
func (l *loader) finishAccess() (wrong []error) {
	a, c := l.access, &l.config.HTTP
	c.AuthDisabled = a.disabled == authDisabled
	var err error
	if a.keys != "" {
		if c.Keys, err = access.ParseKeys(a.keys); err != nil {
			for line := range strings.SplitSeq(err.Error(), "\n") {
				wrong = append(wrong, fmt.Errorf("API_KEYS: %s", line))
			}
		}
	}
	switch {
	case a.keys != "" && c.AuthDisabled:
		wrong = append(wrong, errors.New("API_KEYS and AUTH_DISABLED=true are both set; set one of them"))
	case a.keys == "" && a.keysFile == "" && a.disabled == "false" && !loopback(c.Host) && host(new(string))(c.Host):
		wrong = append(wrong, fmt.Errorf("HOST was %q, where others than this machine reach the API, which asks nobody for a key; "+
			"set API_KEYS, or AUTH_DISABLED=true if everybody who reaches it may use it", c.Host))
	}
	switch {
	case a.certFile != "" && a.keyFile != "":
		if c.Certificate, err = access.LoadCertificate(a.certFile, a.keyFile); err != nil {
			for line := range strings.SplitSeq(err.Error(), "\n") {
				wrong = append(wrong, fmt.Errorf("TLS_CERT_FILE, TLS_KEY_FILE: %s", line))
			}
		}
	case a.certFile != "" || a.keyFile != "":
		wrong = append(wrong, errors.New("one of TLS_CERT_FILE and TLS_KEY_FILE is set; set both or none"))
	}
	return wrong
}

// loopback says whether what listens on the host is reached from this machine only.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}
