package config_test

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/codex-api/codex-jobs/internal/access/accesstest"
	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/internal/config"
)

// secretKey is a client's key; no name can have its capital letters.
const secretKey = "S3CR3T-key-of-somebody"

func TestKeys(t *testing.T) {
	const keys = "viewer:read:0123456789abcdef"
	for name, environment := range map[string][]string{
		"in the environment":  {"API_KEYS=" + keys + ", ops:write:" + secretKey},
		"in a file":           {"API_KEYS_FILE=" + file(t, keys+"\n\nops:write:"+secretKey+"\n")},
		"on any address":      {"API_KEYS=" + keys + ",ops:write:" + secretKey, "HOST=0.0.0.0"},
		"where open if none":  {"API_KEYS=" + keys + ",ops:write:" + secretKey, "HOST=0.0.0.0", "AUTH_DISABLED=unless-keys"},
		"file, open if none":  {"API_KEYS_FILE=" + file(t, keys+",ops:write:"+secretKey), "HOST=0.0.0.0", "AUTH_DISABLED=unless-keys"},
		"and disabled: false": {"API_KEYS=" + keys + ",ops:write:" + secretKey, "AUTH_DISABLED=false"},
	} {
		setup(t, "", environment...)
		c := load(t)
		if got := c.HTTP.Keys.Names(); !slices.Equal(got, []string{"viewer (read)", "ops (write)"}) || c.HTTP.AuthDisabled {
			t.Errorf("%s: %q, disabled: %v", name, got, c.HTTP.AuthDisabled)
		}
		if k, ok := c.HTTP.Keys.Find(secretKey); !ok || k.Name != "ops" {
			t.Errorf("%s: the key is not found: %v", name, k)
		}
		var text, asJSON strings.Builder
		slog.New(slog.NewTextHandler(&text, nil)).Info("Starting", "settings", c)
		slog.New(slog.NewJSONHandler(&asJSON, nil)).Info("Starting", "settings", c)
		for _, shown := range []string{text.String(), asJSON.String(), fmt.Sprintf("%v %+v", c.HTTP, c.HTTP)} {
			if strings.Contains(shown, "S3CR3T") || !strings.Contains(shown, "ops (write)") {
				t.Errorf("%s: shown as %s", name, shown)
			}
		}
	}
}

// The API is open only to this machine, or where a setting says so.
func TestOpenAPI(t *testing.T) {
	for _, host := range []string{"0.0.0.0", "::", "10.0.0.1", "api.example", "127.0.0.1.example", "localhost.example"} {
		setup(t, "", "HOST="+host)
		_, err := config.Load(codex.Registry())
		want := fmt.Sprintf("HOST must be an address that only this machine reaches, such as 127.0.0.1, while the API has no keys, was %q; "+
			"set API_KEYS, or AUTH_DISABLED=true if all who can reach the API may use it", host)
		if err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", host, err, want)
		}
		for disabled, is := range map[string]bool{"true": true, "unless-keys": false} {
			setup(t, "", "HOST="+host, "AUTH_DISABLED="+disabled)
			if c := load(t); c.HTTP.AuthDisabled != is || c.HTTP.Keys != nil {
				t.Errorf("%s, AUTH_DISABLED=%s: %+v", host, disabled, c.HTTP)
			}
		}
	}
	for _, host := range []string{"127.0.0.1", "127.9.9.9", "::1", "localhost", "LOCALHOST"} {
		setup(t, "", "HOST="+host)
		load(t)
	}
}

func TestRefusedAccess(t *testing.T) {
	good, other := accesstest.NewFiles(t, "good"), accesstest.NewFiles(t, "other")
	for name, test := range map[string]struct {
		environment []string
		want        string // the whole error, or its beginning
	}{
		"both":            {[]string{"API_KEYS=ops:write:" + secretKey, "AUTH_DISABLED=true"}, "API_KEYS and AUTH_DISABLED=true are both set; set one of them"},
		"both, in a file": {[]string{"API_KEYS_FILE=" + file(t, "ops:write:"+secretKey), "AUTH_DISABLED=true"}, "API_KEYS and AUTH_DISABLED=true are both set; set one of them"},
		"yes":             {[]string{"AUTH_DISABLED=yes", "HOST=0.0.0.0"}, `AUTH_DISABLED must be true, false or unless-keys, was "yes"`},
		"1":               {[]string{"AUTH_DISABLED=1"}, `AUTH_DISABLED must be true, false or unless-keys, was "1"`},
		"no key":          {[]string{"API_KEYS=" + secretKey, "HOST=0.0.0.0"}, "API_KEYS: entry 1 is not of the form name:read:key or name:write:key"},
		"several":         {[]string{"API_KEYS=" + secretKey + ":write:ops,ops:admin:" + secretKey + ",a:read:x", "AUTH_DISABLED=unless-keys"}, "API_KEYS: entry 1 has a name that is not allowed; it must have only lower-case letters, digits and hyphens, 64 at most\nAPI_KEYS: entry 1 has a key of 3 characters; it must have 16 or more\nAPI_KEYS: entry 2 is of a kind that is not known; it must be read or write\nAPI_KEYS: entry 3 has a key of 1 characters; it must have 16 or more"},
		"no entry":        {[]string{"API_KEYS=,", "AUTH_DISABLED=unless-keys"}, "API_KEYS: there is no entry; it must be name:read:key or name:write:key"},
		"two places":      {[]string{"API_KEYS=ops:write:" + secretKey, "API_KEYS_FILE=" + file(t, "x")}, "API_KEYS and API_KEYS_FILE are both set; set one of them"},
		"no file":         {[]string{"API_KEYS_FILE=/not/there", "HOST=0.0.0.0", "AUTH_DISABLED=unless-keys"}, "API_KEYS_FILE: open /not/there: "},
		"an empty file":   {[]string{"API_KEYS_FILE=" + file(t, " \n"), "HOST=0.0.0.0"}, "API_KEYS_FILE: "},
		"no TLS key":      {[]string{"TLS_CERT_FILE=" + good.Cert}, "one of TLS_CERT_FILE and TLS_KEY_FILE is set; set both or none"},
		"no certificate":  {[]string{"TLS_KEY_FILE=" + good.Key}, "one of TLS_CERT_FILE and TLS_KEY_FILE is set; set both or none"},
		"TLS not there":   {[]string{"TLS_CERT_FILE=/not/there", "TLS_KEY_FILE=/nor/this"}, "TLS_CERT_FILE, TLS_KEY_FILE: open /not/there: no such file or directory\nTLS_CERT_FILE, TLS_KEY_FILE: open /nor/this: no such file or directory"},
		"TLS mixed":       {[]string{"TLS_CERT_FILE=" + good.Cert, "TLS_KEY_FILE=" + other.Key}, "TLS_CERT_FILE, TLS_KEY_FILE: " + good.Cert + " and " + other.Key + ": tls: private key does not match public key"},
	} {
		t.Run(name, func(t *testing.T) {
			setup(t, "", test.environment...)
			_, err := config.Load(codex.Registry())
			if err == nil || !strings.HasPrefix(err.Error(), test.want) || strings.Count(err.Error(), "\n") != strings.Count(test.want, "\n") {
				t.Fatalf("got\n%v\nwant\n%s", err, test.want)
			}
			if strings.Contains(err.Error(), "S3CR3T") || strings.Contains(err.Error(), "PRIVATE") {
				t.Errorf("got %v, which shows too much", err)
			}
		})
	}
}

func TestCertificate(t *testing.T) {
	files := accesstest.NewFiles(t, "jobs.example")
	setup(t, "", "TLS_CERT_FILE="+files.Cert, "TLS_KEY_FILE="+files.Key)
	if c := load(t); c.HTTP.Certificate.Leaf().Subject.CommonName != "jobs.example" {
		t.Errorf("the certificate is for %s", c.HTTP.Certificate.Leaf().Subject)
	}
}
