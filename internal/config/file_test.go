package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/internal/config"
)

func file(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "value")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestValuesFromFiles(t *testing.T) {
	setup(t, "MONGODB_URI_FILE="+file(t, "mongodb://u:"+secret+"@h/?maxPoolSize=1\n"), "REDIS_PASSWORD_FILE="+file(t, " "+secret+" \n\n"))
	c := load(t)
	if want := "mongodb://u:" + secret + "@h/?maxPoolSize=1"; c.Redis.Password != secret || c.MongoDB.URI != want {
		t.Errorf("got %q and %q, want %q and %q", c.Redis.Password, c.MongoDB.URI, secret, want)
	}
}

func TestRefusedFiles(t *testing.T) {
	for name, test := range map[string]struct {
		environment []string
		want        string
	}{
		"both":      {[]string{"REDIS_PASSWORD=" + secret, "REDIS_PASSWORD_FILE=" + file(t, "x")}, "REDIS_PASSWORD and REDIS_PASSWORD_FILE are both set; set one of them"},
		"missing":   {[]string{"REDIS_PASSWORD_FILE=/not/there"}, "REDIS_PASSWORD_FILE: open /not/there: "},
		"empty":     {[]string{"MONGODB_URI_FILE=" + file(t, " \n")}, "MONGODB_URI_FILE: "},
		"not valid": {[]string{"MONGODB_URI_FILE=" + file(t, "http://u:"+secret+"@h")}, "MONGODB_URI must be "},
	} {
		t.Run(name, func(t *testing.T) {
			setup(t, "", test.environment...)
			_, err := config.Load(codex.Registry())
			if err == nil || !strings.HasPrefix(err.Error(), test.want) {
				t.Fatalf("got %v, want %s...", err, test.want)
			}
			if strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, which shows too much", err)
			}
		})
	}
}
