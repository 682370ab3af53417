// The settings of Redis have a file of their own because they depend on each other: whether it is one server, one that
// sentinels know or a cluster, and whether and how TLS is spoken with it.

package config

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
)

// redisSettings are those that redisconn.Options do not have as they are set. They go into it when all are read.
type redisSettings struct {
	host                 string
	port                 int
	tls                  bool
	ca, certificate, key string // paths
	serverName           string
}

const addressList = "addresses as host:port with commas between them, such as %[1]s-1:%[2]d,%[1]s-2:%[2]d"

// addRedis adds the settings of Redis.
func (l *loader) addRedis() {
	r, s := &l.config.Redis, &l.redis
	const alone = "; not used with REDIS_SENTINEL_ADDRS or REDIS_CLUSTER_ADDRS"
	l.add("REDIS_HOST", "127.0.0.1", "a host name or address", "Redis' host"+alone, host(&s.host))
	l.add("REDIS_PORT", "6379", portRange, "Redis' port"+alone, number(&s.port, 1, 65535))
	l.add("REDIS_USERNAME", "", anyText, "Redis' user, where it is not the default one", text(&r.Username))
	l.addSecret("REDIS_PASSWORD", anyText, "Redis' password", text(&r.Password))
	l.add("REDIS_DB", "0", "a whole number, 0 or more", "Redis' database; a cluster has only 0", number(&r.DB, 0, 1<<30))
	l.add("REDIS_SENTINEL_ADDRS", "", fmt.Sprintf(addressList, "sentinel", 26379),
		"the sentinels, as host:port with commas between them", addresses(&r.Sentinels))
	l.add("REDIS_SENTINEL_MASTER", "", anyText, "the name by which the sentinels know the master", text(&r.Master))
	l.addSecret("REDIS_SENTINEL_PASSWORD", anyText, "the sentinels' password", text(&r.SentinelPassword))
	l.add("REDIS_CLUSTER_ADDRS", "", fmt.Sprintf(addressList, "node", 6379),
		"some nodes of a Redis Cluster, as host:port with commas between them", addresses(&r.Cluster))
	l.add("REDIS_TLS", "false", "true or false", "speaks TLS 1.2 or newer with Redis, and with its sentinels", boolean(&s.tls))
	l.add("REDIS_TLS_CA_FILE", "", "the path of a file",
		"the authorities that Redis' certificate may be from, in PEM; by default the system's", text(&s.ca))
	l.add("REDIS_TLS_CERT_FILE", "", "the path of a file", "a client certificate for Redis, in PEM", text(&s.certificate))
	l.add("REDIS_TLS_KEY_FILE", "", "the path of a file", "the key of REDIS_TLS_CERT_FILE, in PEM", text(&s.key))
	l.add("REDIS_TLS_SERVER_NAME", "", "a host name or address",
		"the name that is in Redis' certificate, where it is not that of the address", host(&s.serverName))
}

// finishRedis returns what is wrong with the settings of Redis together, and reads the files that they name.
func (l *loader) finishRedis() (wrong []error) {
	r, s := &l.config.Redis, l.redis
	if r.Sentinels != nil && r.Cluster != nil {
		wrong = append(wrong, errors.New("REDIS_SENTINEL_ADDRS and REDIS_CLUSTER_ADDRS are both set; set one of them"))
	}
	if r.Cluster != nil && r.DB != 0 {
		wrong = append(wrong, fmt.Errorf("REDIS_DB must be 0 with REDIS_CLUSTER_ADDRS, as a cluster has one database, was %q", strconv.Itoa(r.DB)))
	}
	for _, needs := range []struct {
		name  string
		set   bool
		other string
		there bool
	}{
		{"REDIS_USERNAME", r.Username != "", "REDIS_PASSWORD", r.Password != ""},
		{"REDIS_SENTINEL_ADDRS", r.Sentinels != nil, "REDIS_SENTINEL_MASTER", r.Master != ""},
		{"REDIS_SENTINEL_MASTER", r.Master != "", "REDIS_SENTINEL_ADDRS", r.Sentinels != nil},
		{"REDIS_SENTINEL_PASSWORD", r.SentinelPassword != "", "REDIS_SENTINEL_ADDRS", r.Sentinels != nil},
		{"REDIS_TLS_CA_FILE", s.ca != "", "REDIS_TLS=true", s.tls},
		{"REDIS_TLS_CERT_FILE", s.certificate != "", "REDIS_TLS=true", s.tls},
		{"REDIS_TLS_KEY_FILE", s.key != "", "REDIS_TLS=true", s.tls},
		{"REDIS_TLS_SERVER_NAME", s.serverName != "", "REDIS_TLS=true", s.tls},
		{"REDIS_TLS_CERT_FILE", s.certificate != "", "REDIS_TLS_KEY_FILE", s.key != ""},
		{"REDIS_TLS_KEY_FILE", s.key != "", "REDIS_TLS_CERT_FILE", s.certificate != ""},
	} {
		if needs.set && !needs.there {
			wrong = append(wrong, fmt.Errorf("%s is set without %s; set both or neither", needs.name, needs.other))
		}
	}
	r.Addr = net.JoinHostPort(s.host, strconv.Itoa(s.port))
	config, invalid := s.tlsConfig()
	if s.tls {
		r.TLS = config
	}
	return append(wrong, invalid...)
}

// tlsConfig reads the files. It returns everything that is wrong with them.
func (s redisSettings) tlsConfig() (config *tls.Config, wrong []error) {
	config = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: s.serverName}
	read := func(name, path string) []byte {
		if path == "" {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %w", name, err))
			return nil
		}
		return data
	}
	if authorities := read("REDIS_TLS_CA_FILE", s.ca); authorities != nil {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(authorities) {
			wrong = append(wrong, fmt.Errorf("REDIS_TLS_CA_FILE: there is no certificate in PEM in %s", s.ca))
		}
	}
	certificate, key := read("REDIS_TLS_CERT_FILE", s.certificate), read("REDIS_TLS_KEY_FILE", s.key)
	if certificate == nil || key == nil {
		return config, wrong
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		wrong = append(wrong, fmt.Errorf("REDIS_TLS_CERT_FILE and REDIS_TLS_KEY_FILE: %w", err))
	}
	config.Certificates = []tls.Certificate{pair}
	return config, wrong
}

// addresses takes a list of host:port.
func addresses(target *[]string) func(string) bool {
	return func(value string) bool {
		*target = nil
		valid := true
		for addr := range strings.SplitSeq(value, ",") {
			addr = strings.TrimSpace(addr)
			*target = append(*target, addr)
			name, port, err := net.SplitHostPort(addr)
			var s string
			var n int
			valid = valid && err == nil && name != "" && host(&s)(name) && number(&n, 1, 65535)(port)
		}
		return valid
	}
}
