package config_test

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/internal/config"
)

// A database that is not the one that people mean has no records, and a run over none succeeds.
func TestWhichDatabase(t *testing.T) {
	const otherwise = "the default"
	for _, test := range []struct{ uri, set, want, from, differs string }{
		{"", "", "codex", otherwise, ""},
		{"mongodb://h", "", "codex", otherwise, ""},
		{"mongodb://h/", "", "codex", otherwise, ""},
		{"mongodb://h/admin", "", "codex", otherwise, ""},
		{"mongodb://h/local?a=b", "", "codex", otherwise, ""},
		{"mongodb://u:p@h/config", "", "codex", otherwise, ""},
		{"mongodb://h/?authSource=shop", "", "codex", otherwise, ""},
		{"mongodb://h/shop", "", "shop", "the path of MONGODB_URI", ""},
		{"mongodb://u:p%2F@a:1,b:2/shop%2Dold?replicaSet=rs", "", "shop-old", "the path of MONGODB_URI", ""},
		{"mongodb+srv://u:p@cluster.example.com/shop?retryWrites=true", "", "shop", "the path of MONGODB_URI", ""},
		{"mongodb://h", "mine", "mine", "MONGODB_DATABASE", ""},
		{"mongodb://h/admin", "mine", "mine", "MONGODB_DATABASE", ""},
		{"mongodb://h/mine", "mine", "mine", "MONGODB_DATABASE", ""},
		{"mongodb://h/shop", "mine", "mine", "MONGODB_DATABASE", "shop"},
		{"mongodb://h/shop", "codex", "codex", "MONGODB_DATABASE", "shop"},
	} {
		setup(t, "", "MONGODB_URI="+test.uri, "MONGODB_DATABASE="+test.set)
		c, err := config.Load(codex.Registry())
		if m := c.MongoDB; err != nil || m.Database != test.want || m.DatabaseFrom != test.from || m.PathDatabase != test.differs {
			t.Errorf("%s, %s: got %+v, %v", test.uri, test.set, m, err)
		}
		var log strings.Builder
		c.MongoDB.LogDatabase(slog.New(slog.NewTextHandler(&log, nil)))
		if text := log.String(); !strings.Contains(text, "database="+test.want) || !strings.Contains(text, test.from) ||
			strings.Contains(text, "WARN") != (test.differs != "") || !strings.Contains(text, test.differs) {
			t.Errorf("%s, %s: logged %s", test.uri, test.set, text)
		}
	}
}
