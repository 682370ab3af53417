package config_test

import (
	"net"
	"strings"
	"testing"

	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/internal/config"
)

// FuzzSettings writes any text into the settings, as a .env and as the value of each variable. It is accepted, or refused
// with a message, and no message has a secret.
func FuzzSettings(f *testing.F) {
	names := config.Settings(codex.Registry())
	for i := range names {
		f.Add("", uint8(i), "x")
		f.Add("", uint8(i), "-1")
	}
	for _, dotenv := range []string{
		"PORT=4001\n", "PORT = 'x'\n", "export PORT=1\n", "PORT\n", "# nothing\n", "A=\"", "REDIS_PASSWORD=" + secret + "\n", "PORT=4000\nPORT=5000",
		"API_KEYS=ops:write:" + secretKey + "\n", "HOST=0.0.0.0\nAUTH_DISABLED=unless-keys\n", "USER_SYNC_INTERVAL=25m\n", "USER_SYNC_CRON=*/5 * * * *\n", "\x00", "=", "LOG_LEVEL=\xff",
	} {
		f.Add(dotenv, uint8(0), "")
	}
	for _, value := range []string{
		"mongodb://u:" + secret + "@h/", "mongodb+srv://u:" + secret + "@h", "20m", "off", "1e9", "9223372036854775808", "NaN", "Infinity", "0x10", "@every 1s",
		"ops:write:" + secretKey, secretKey, "ops:" + secretKey, secretKey + ":read:ops", "ops:write:" + secretKey + "\nx:read:" + secretKey, "unless-keys",
	} {
		for i := range names {
			f.Add("", uint8(i), value)
		}
	}
	f.Fuzz(func(t *testing.T, dotenv string, i uint8, value string) {
		s := names[int(i)%len(names)]
		if strings.ContainsRune(value, 0) { // no operating system takes it
			return
		}
		isSecret := s.Name == "REDIS_PASSWORD" || s.Name == "MONGODB_URI" && strings.Contains(value, secret+"@")
		setup(t, dotenv, s.Name+"="+value)
		c, err := config.Load(codex.Registry())
		isKey := s.Name == "API_KEYS" && strings.Contains(value, secretKey)
		if err != nil && isKey && strings.Contains(err.Error(), secretKey) {
			t.Errorf("%s=%q: %v", s.Name, value, err)
		}
		if err != nil {
			if err.Error() == "" || isSecret && strings.Contains(err.Error(), secret) {
				t.Errorf("%s=%q: %v", s.Name, value, err)
			}
			return
		}
		if shown := c.LogValue().String(); isSecret && strings.Contains(shown, secret) || isKey && strings.Contains(shown, secretKey) {
			t.Errorf("%s=%q is logged as %s", s.Name, value, shown)
		}
		if ip := net.ParseIP(c.HTTP.Host); dotenv == "" && (ip == nil || !ip.IsLoopback()) && !strings.EqualFold(c.HTTP.Host, "localhost") {
			t.Errorf("%s=%q opens the API to everybody: %+v", s.Name, value, c.HTTP)
		}
		if c.HTTP.Port < 1 || c.HTTP.Port > 65535 || c.Worker.Concurrency < 1 || c.Sync.BatchSize < 1 || c.Sync.Writers < 1 || c.Sync.RangeSize < 1 || c.Sync.BulkSize < 1 {
			t.Errorf("%s=%q was taken for %+v", s.Name, value, c)
		}
		for _, def := range c.Registry.All() {
			if def.Attempts < 1 || def.Backoff < 0 || def.BackoffFactor < 1 || def.KeepCompleted < 0 || def.KeepFailed < 0 || def.Schedule.Validate() != nil {
				t.Errorf("%s=%q made the job type %+v", s.Name, value, def)
			}
		}
	})
}
