package config_test

import (
	"bytes"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/internal/config"
	"github.com/codex-api/codex-jobs/internal/version"
)

func TestNotifySettings(t *testing.T) {
	setup(t, "", "NOTIFY_URL=https://u:"+secret+"@alerts/"+secret+"?token="+secret, "NOTIFY_SECRET_FILE="+file(t, webhookSecret+","+otherSecret),
		"NOTIFY_ERROR_RATE=0.25", "HTTPS_PROXY=http://proxy:3128")
	c := load(t)
	n := c.Notify
	if n.URL != "https://u:"+secret+"@alerts/"+secret+"?token="+secret || !reflect.DeepEqual(n.Secrets, []string{webhookSecret, otherSecret}) ||
		n.ErrorRate != 0.25 || n.Timeout != 10*time.Second || n.Version != version.String() || n.Proxy == nil {
		t.Errorf("got %+v", n)
	}
	var shown bytes.Buffer
	slog.New(slog.NewTextHandler(&shown, nil)).Info("", "settings", c)
	if text := shown.String(); !strings.Contains(text, "settings.notify=https://alerts ") || strings.Contains(text, secret) ||
		strings.Contains(text, webhookSecret[6:]) {
		t.Errorf("the log shows %s", text)
	}
}

func TestErrorRates(t *testing.T) {
	for set, want := range map[string]float64{"": 0, "10%": 0.1, "2.5 %": 0.025, "0.001": 0.001, "1": 1, "100%": 1} {
		setup(t, "", "NOTIFY_URL=http://alerts/", "NOTIFY_ERROR_RATE="+set)
		if got := load(t).Notify.ErrorRate; got != want {
			t.Errorf("%q is %v, want %v", set, got, want)
		}
	}
	for _, set := range []string{"0", "0%", "-1", "1.1", "101%", "NaN", "Inf", "ten", "%", "10%%"} {
		setup(t, "", "NOTIFY_URL=http://alerts/", "NOTIFY_ERROR_RATE="+set)
		_, err := config.Load(codex.Registry())
		if want := "NOTIFY_ERROR_RATE must be a share above 0, at most 1 or 100%, such as 0.1 or 10%"; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", set, err)
		}
	}
}

func TestWrongNotifySettings(t *testing.T) {
	for set, want := range map[string]string{
		"NOTIFY_URL=alerts:3000":           "NOTIFY_URL must be a URL, such as https://alerts.example.com/codex",
		"NOTIFY_ERROR_RATE=0.1":            "NOTIFY_ERROR_RATE is set without NOTIFY_URL; set both or neither",
		"NOTIFY_SECRET=" + webhookSecret:   "NOTIFY_SECRET is set without NOTIFY_URL; set both or neither",
		"NOTIFY_CA_FILE=/nowhere/at/all":   "NOTIFY_CA_FILE is set without NOTIFY_URL; set both or neither",
		"NOTIFY_SECRET=whsec_short":        "NOTIFY_SECRET must be whsec_ and then 24 to 64 bytes in base64",
		"NOTIFY_SECRET_FILE=/nowhere/at/a": "NOTIFY_SECRET_FILE: open /nowhere/at/a",
	} {
		setup(t, "", set)
		if _, err := config.Load(codex.Registry()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", set, err, want)
		}
	}
}
