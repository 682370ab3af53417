package config_test

import (
	"bytes"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/internal/config"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/version"
)

const (
	webhookSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	otherSecret   = "whsec_plJ3nmyCDGBKInavdOK15jsl9CS9Y2M3"
)

func TestEndpointSettings(t *testing.T) {
	setup(t, "", "USER_SYNC_URL=https://u:"+secret+"@app:3000/user-sync?token="+secret, "USER_SYNC_FIELDS=email, profile.name", "USER_SYNC_TIMEOUT=5s",
		"USER_SYNC_SECRET="+webhookSecret+", "+otherSecret, "USER_SYNC_RATE=480/m", "USER_SYNC_CONCURRENCY=8",
		"PROJECT_SYNC_URL=http://app/projects", "PROJECT_SYNC_FIELDS=*", "PROJECT_SYNC_SECRET_FILE="+file(t, otherSecret))
	c := load(t)
	user, project := c.Endpoints["user-sync"], c.Endpoints["project-sync"]
	if len(c.Endpoints) != 2 || user.URL != "https://u:"+secret+"@app:3000/user-sync?token="+secret || user.Timeout != 5*time.Second ||
		!reflect.DeepEqual(user.Fields, []string{"email", "profile.name"}) || !reflect.DeepEqual(user.Secrets, []string{webhookSecret, otherSecret}) ||
		user.Concurrency != 8 || user.Version != version.String() {
		t.Errorf("got %+v", c.Endpoints)
	}
	if !reflect.DeepEqual(project.Fields, []string{"*"}) || !reflect.DeepEqual(project.Secrets, []string{otherSecret}) ||
		project.Timeout != 30*time.Second || project.Concurrency != 0 || project.Proxy != nil {
		t.Errorf("got %+v", project)
	}
	if d := definition(t, c, "user-sync"); d.Rate != (tasks.Rate{Calls: 480, Per: time.Minute}) {
		t.Errorf("the rate is %+v", d.Rate)
	}
	if d := definition(t, c, "project-sync"); d.Rate != (tasks.Rate{}) {
		t.Errorf("the other rate is %+v", d.Rate)
	}
	var shown bytes.Buffer
	slog.New(slog.NewTextHandler(&shown, nil)).Info("", "settings", c)
	if text := shown.String(); !strings.Contains(text, "settings.endpoints.user-sync=https://app:3000/user-sync ") || strings.Contains(text, secret) ||
		strings.Contains(text, webhookSecret[6:]) {
		t.Errorf("the log shows %s", text)
	}
}

func TestProxyOfEndpoints(t *testing.T) {
	// The file counts, too, and not only the environment, where the usual functions look.
	setup(t, "HTTPS_PROXY=http://proxy:3128\nNO_PROXY=near.example,10.0.0.0/8\n", "USER_SYNC_URL=https://app/user-sync")
	proxy := load(t).Endpoints["user-sync"].Proxy
	for to, want := range map[string]string{
		"https://app/user-sync": "http://proxy:3128", "https://near.example/": "", "https://10.1.2.3/": "", "https://127.0.0.1/": "", "http://app/": "",
	} {
		u, _ := url.Parse(to)
		got, err := proxy(u)
		if err != nil || got == nil && want != "" || got != nil && got.String() != want {
			t.Errorf("%s: %v, %v, want %q", to, got, err, want)
		}
	}
}

// Machines have these variables for other programs, too, with what those take.
func TestProxyAsOtherProgramsTakeIt(t *testing.T) {
	for set, want := range map[string]string{"proxy:3128": "http://proxy:3128", "proxy": "http://proxy", "socks5://proxy:1080": "socks5://proxy:1080"} {
		setup(t, "", "HTTP_PROXY="+set, "USER_SYNC_URL=http://app/user-sync")
		u, _ := url.Parse("http://app/user-sync")
		if got, err := load(t).Endpoints["user-sync"].Proxy(u); err != nil || got.String() != want {
			t.Errorf("%s: %v, %v", set, got, err)
		}
	}
}

// Machines have these variables for other programs, too.
func TestProxyWithoutEndpoints(t *testing.T) {
	setup(t, "", "HTTPS_PROXY=what is that?")
	load(t)
	setup(t, "", "USER_SYNC_URL=http://app/user-sync")
	t.Setenv("http_proxy", "proxy:3128")
	to, _ := url.Parse("http://app/user-sync")
	if got, err := load(t).Endpoints["user-sync"].Proxy(to); err != nil || got == nil || got.Host != "proxy:3128" {
		t.Errorf("with http_proxy: %v, %v", got, err)
	}
}

func TestRefusedEndpointSettings(t *testing.T) {
	authorities := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(authorities, []byte("none"), 0o600); err != nil {
		t.Fatal(err)
	}
	const at = "USER_SYNC_URL=https://app/user-sync"
	for want, environment := range map[string][]string{
		`USER_SYNC_URL must be a URL, such as http://app:3000/user-sync`:                                                  {"USER_SYNC_URL=app:3000"},
		`USER_SYNC_URL must be a URL, such as http://app:3000/user-syn`:                                                   {"USER_SYNC_URL=ftp://app/?token=" + secret},
		`USER_SYNC_URL must be a URL, such as http://app:3000/user-sy`:                                                    {"USER_SYNC_URL=http://"},
		`USER_SYNC_FIELDS must be * for all fields, or names and dotted paths separated by commas`:                        {at, "USER_SYNC_FIELDS=a,,b"},
		`USER_SYNC_FIELDS must be * for all fields, or names and dotted paths separated by commas, such as`:               {at, "USER_SYNC_FIELDS=a,*"},
		`USER_SYNC_FIELDS must be * for all fields, or names and dotted paths separated by commas, such as email`:         {at, "USER_SYNC_FIELDS=$where"},
		`USER_SYNC_SECRET must be whsec_ and then 24 to 64 bytes in base64, or two such separated by a comma`:             {at, "USER_SYNC_SECRET=" + secret},
		`USER_SYNC_SECRET must be whsec_ and then 24 to 64 bytes in base64`:                                               {at, "USER_SYNC_SECRET=" + webhookSecret[6:]},
		`USER_SYNC_SECRET must be whsec_ and then 24 to 64 bytes`:                                                         {at, "USER_SYNC_SECRET=whsec_c2hvcnQ="},
		`USER_SYNC_SECRET must be whsec_ and then`:                                                                        {at, "USER_SYNC_SECRET=" + webhookSecret + "," + otherSecret + "," + webhookSecret},
		`USER_SYNC_RATE must be a number of requests for a second, a minute or an hour, such as 10/s, 480/m or 1000/h`:    {at, "USER_SYNC_RATE=480"},
		`USER_SYNC_RATE must be a number of requests for a second, a minute or an hour, such as 10/s, 480/m or 1000/h, w`: {at, "USER_SYNC_RATE=0/m"},
		`USER_SYNC_RATE must be a number of requests for a second, a minute or an hour`:                                   {at, "USER_SYNC_RATE=1/day"},
		`USER_SYNC_TIMEOUT must be a duration from 1ms to 87600h, such as 30s, was "0s"`:                                  {at, "USER_SYNC_TIMEOUT=0s"},
		`USER_SYNC_CONCURRENCY must be a whole number from 1 to 1000, was "0"`:                                            {at, "USER_SYNC_CONCURRENCY=0"},
		`USER_SYNC_CA_FILE: there is no certificate in PEM in ` + authorities:                                             {at, "USER_SYNC_CA_FILE=" + authorities},
		`USER_SYNC_SECRET is set without USER_SYNC_URL; set both or neither`:                                              {"USER_SYNC_SECRET=" + webhookSecret},
		`USER_SYNC_RATE is set without USER_SYNC_URL; set both or neither`:                                                {"USER_SYNC_RATE=1/s"},
		`HTTPS_PROXY must be the URL of a proxy, such as http://proxy:3128, was "ftp://proxy:3128"`:                       {at, "HTTPS_PROXY=ftp://proxy:3128"},
	} {
		setup(t, "", environment...)
		_, err := config.Load(codex.Registry())
		if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v: %v, want %s", environment, err, want)
		}
	}
}
