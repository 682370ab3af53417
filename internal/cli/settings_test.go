package cli_test

import (
	"encoding/pem"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The flags come before the environment, and that before the configuration file.
func TestSettings(t *testing.T) {
	t.Parallel()
	byFlag, byEnv, byFile := newSystem(t), newSystem(t), newSystem(t)
	folder := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	flagKey := write("flag.key", "flag-key\n")
	write("file.key", " file-key \n\n")
	config := "server: " + byFile.URL + "/\nkey-file: ~/file.key\n"
	write(".config/codexctl.yaml", config)
	write("other/codexctl.yaml", "server: "+byFile.URL+"\nkey: other-key\n")
	write("server.yaml", "server: "+byFile.URL+"\n")
	both := write("both.yaml", "key: a\nkey-file: b\n")
	home, xdg := "HOME="+folder, "XDG_CONFIG_HOME="+filepath.Join(folder, "other")
	server, key := "CODEX_SERVER="+byEnv.URL, "CODEX_API_KEY=env-key"
	for _, test := range []struct {
		name string
		env  []string
		args []string
		at   *fake
		key  string
	}{
		{"flags", []string{home, server, key}, []string{"--server", byFlag.URL, "--key-file", flagKey}, byFlag, "Bearer flag-key"},
		{"environment", []string{home, server, key}, nil, byEnv, "Bearer env-key"},
		{"file", []string{home}, nil, byFile, "Bearer file-key"},
		{"file with a key", []string{home, xdg}, nil, byFile, "Bearer other-key"},
		{"file of a flag", []string{home, xdg}, []string{"--config=~/server.yaml"}, byFile, ""},
		{"server by flag, key by environment", []string{home, server, key}, []string{"--server", byFlag.URL}, byFlag, "Bearer env-key"},
		{"server by environment, key by file", []string{home, server}, nil, byEnv, "Bearer file-key"},
		{"an empty key in the environment", []string{home, "CODEX_API_KEY="}, nil, byFile, ""},
		{"an empty file for the key by flag", []string{home, xdg}, []string{"--key-file="}, byFile, ""},
		{"an empty flag before the environment", []string{home, server, key}, []string{"--key-file="}, byEnv, ""},
		{"no key", []string{"HOME=" + t.TempDir(), server}, nil, byEnv, ""},
		{"no home", []string{"HOME=", server}, nil, byEnv, ""},
	} {
		before := len(test.at.seen())
		p := call(t, test.env, append([]string{"pause"}, test.args...)...)
		if p.status != 0 || len(test.at.seen()) != before+1 || test.at.keys[before] != test.key {
			t.Errorf("%s: %+v, the server has seen %q", test.name, p, test.at.keys)
		}
	}
	if p := call(t, nil, "pause", "--config", both); p.status != 2 || !strings.Contains(p.err, `has both "key" and "key-file" in it`) {
		t.Errorf("with two keys: %+v", p)
	}
	empty := write("empty.key", " \n")
	if p := call(t, nil, "pause", "--key-file", empty); p.status != 2 || !strings.Contains(p.err, "there is nothing in "+empty) {
		t.Errorf("with an empty key file: %+v", p)
	}
	unknown := write("unknown.yaml", "url: x\n")
	if p := call(t, nil, "pause", "--config", unknown); p.status != 2 || !strings.Contains(p.err, `has "url" in it; it must have only server, key, key-file, ca-file`) {
		t.Errorf("with an unknown key: %+v", p)
	}
}

// A server whose certificate the system does not trust.
func TestTLS(t *testing.T) {
	t.Parallel()
	plain := newSystem(t)
	secure := httptest.NewTLSServer(plain)
	t.Cleanup(secure.Close)
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	if p := run(t, secure.URL, "pause", "--ca-file", path); p.status != 0 {
		t.Errorf("with the certificate: %+v", p)
	}
	if p := run(t, secure.URL, "pause"); p.status != 3 || !strings.Contains(p.err, "certificate") {
		t.Errorf("without it: %+v", p)
	}
	if p := run(t, secure.URL, "job", waitID, "--wait"); p.status != 3 || strings.Contains(p.err, "trying again") {
		t.Errorf("waiting without it: %+v", p)
	}
}
