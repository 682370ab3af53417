package cli

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/viper"

	"github.com/codex-api/codex-jobs/pkg/client"
)

// Where the API is and the key for it: flags, environment and configuration file.

const defaultServer = "http://127.0.0.1:4000"

// The settings: flags, and keys of the configuration file. There is no flag for the key.
const (
	keyServer  = "server"
	keyKey     = "key"
	keyKeyFile = "key-file"
	keyCAFile  = "ca-file"
	flagConfig = "config"
)

const (
	envServer = "CODEX_SERVER"
	envKey    = "CODEX_API_KEY"
)

// connect returns a client with the settings. Its errors are wrong usage.
func (a *app) connect() (*client.Client, error) {
	settings, err := a.settings()
	if err != nil {
		return nil, err
	}
	key, err := a.key(settings)
	if err != nil {
		return nil, err
	}
	options := []client.Option{client.WithAPIKey(key)}
	if path := settings.GetString(keyCAFile); path != "" {
		transport, err := trusting(expand(path))
		if err != nil {
			return nil, err
		}
		options = append(options, client.WithHTTPClient(client.NewHTTPClient(transport)))
	}
	return client.New(cmp.Or(settings.GetString(keyServer), defaultServer), options...)
}

// settings reads the flags, the environment and the configuration file.
func (a *app) settings() (*viper.Viper, error) {
	v := viper.New()
	v.AllowEmptyEnv(true) // an empty variable hides what the file says, and means the default
	flags := a.root.PersistentFlags()
	for _, name := range []string{keyServer, keyKeyFile, keyCAFile} {
		if err := v.BindPFlag(name, flags.Lookup(name)); err != nil {
			return nil, err
		}
	}
	if err := v.BindEnv(keyServer, envServer); err != nil {
		return nil, err
	}
	path := configPath()
	named := flags.Changed(flagConfig)
	if named {
		path = expand(flags.Lookup(flagConfig).Value.String())
	}
	if path == "" {
		return v, nil
	}
	v.SetConfigFile(path)
	v.SetConfigType("yaml")
	if err := v.ReadInConfig(); errors.Is(err, os.ErrNotExist) && !named {
		return v, nil
	} else if err != nil {
		return nil, fmt.Errorf("reading the configuration file %s: %w", path, err)
	}
	known := []string{keyServer, keyKey, keyKeyFile, keyCAFile}
	for _, key := range v.AllKeys() {
		if !slices.Contains(known, key) {
			return nil, fmt.Errorf("the configuration file %s has %q in it; it must have only %s", path, key, strings.Join(known, ", "))
		}
	}
	if v.InConfig(keyKey) && v.InConfig(keyKeyFile) {
		return nil, fmt.Errorf("the configuration file %s has both %q and %q in it; it must have only one of them", path, keyKey, keyKeyFile)
	}
	return v, nil
}

// key returns the API key; "" without one. Its errors do not contain the key.
func (a *app) key(settings *viper.Viper) (string, error) {
	byFlag := a.root.PersistentFlags().Changed(keyKeyFile)
	if key, set := os.LookupEnv(envKey); set && !byFlag {
		return key, nil
	}
	path := settings.GetString(keyKeyFile)
	switch {
	case path == "" && byFlag:
		return "", nil
	case path == "":
		return settings.GetString(keyKey), nil
	}
	data, err := os.ReadFile(expand(path))
	if err != nil {
		return "", fmt.Errorf("reading the API key: %w", err)
	}
	key := strings.TrimSpace(string(data))
	if key == "" {
		return "", fmt.Errorf("reading the API key: there is nothing in %s", path)
	}
	return key, nil
}

// configPath returns where the configuration file is unless a flag says so; "" when there is no home.
func configPath() string {
	folder := os.Getenv("XDG_CONFIG_HOME")
	if folder == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return ""
		}
		folder = filepath.Join(home, ".config")
	}
	return filepath.Join(folder, "codexctl.yaml")
}

// expand replaces a tilde at the beginning: no shell does so in a file, or after a "=".
func expand(path string) string {
	if rest, ok := strings.CutPrefix(path, "~/"); ok {
		if home, err := os.UserHomeDir(); err == nil {
			return filepath.Join(home, rest)
		}
	}
	return path
}

// trusting returns a transport that trusts the authorities in the file, too.
func trusting(path string) (http.RoundTripper, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading certificates: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool() // there is none on this machine
	}
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("reading certificates: there is none in %s; it must have them in PEM", path)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig.RootCAs = pool
	return transport, nil
}
