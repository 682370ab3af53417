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

// The settings of Redis have a file of their own because they depend on each other: whether it is one server, one that
// sentinels know of or a cluster, and whether and how TLS is spoken with it.

// Redis says where Redis is, and who asks.
type Redis struct {
	// Host and Port are those of a Redis alone, and are not used when there are sentinels or a cluster.
	Host string
	Port int
	// Username is "" for Redis' default user.
	Username string
	Password string
	DB       int
	Sentinel Sentinel
	// ClusterAddrs are host:port of some nodes of a cluster; nil when it is none.
	ClusterAddrs []string
	// TLS is nil for connections without it.
	TLS *tls.Config
}

// Sentinel says which sentinels know which server is the master.
type Sentinel struct {
	// Addrs are host:port of the sentinels; nil when there are none.
	Addrs []string
	// Master is the name by which they know the master.
	Master string
	// Password is the sentinels' own; "" for none.
	Password string
}

// String says where Redis is, for the log.
func (r Redis) String() string {
	var where string
	switch {
	case r.Sentinel.Addrs != nil:
		where = fmt.Sprintf("%s/%d of the sentinels %s", r.Sentinel.Master, r.DB, strings.Join(r.Sentinel.Addrs, ","))
	case r.ClusterAddrs != nil:
		where = "cluster " + strings.Join(r.ClusterAddrs, ",")
	default:
		where = fmt.Sprintf("%s:%d/%d", r.Host, r.Port, r.DB)
	}
	if r.TLS != nil {
		where += " with TLS"
	}
	return where
}

// redisTLS is what the TLS of Redis is made of when all settings are read.
type redisTLS struct {
	enabled              bool
	ca, certificate, key string // paths
	serverName           string
}

const addressList = "addresses as host:port with commas between them, such as %[1]s-1:%[2]d,%[1]s-2:%[2]d"

// addRedis adds the settings of Redis.
func (l *loader) addRedis() {
	r, t := &l.config.Redis, &l.redisTLS
	const alone = "; not used with REDIS_SENTINEL_ADDRS or REDIS_CLUSTER_ADDRS"
	l.add("REDIS_HOST", "127.0.0.1", "a host name or address", "Redis' host"+alone, host(&r.Host))
	l.add("REDIS_PORT", "6379", portRange, "Redis' port"+alone, number(&r.Port, 1, 65535))
	l.add("REDIS_USERNAME", "", anyText, "Redis' user, where it is not the default one", text(&r.Username))
	l.addSecret("REDIS_PASSWORD", anyText, "Redis' password", text(&r.Password))
	l.add("REDIS_DB", "0", "a whole number, 0 or more", "Redis' database; a cluster has only 0", number(&r.DB, 0, 1<<30))
	l.add("REDIS_SENTINEL_ADDRS", "", fmt.Sprintf(addressList, "sentinel", 26379),
		"the sentinels, as host:port with commas between them", addresses(&r.Sentinel.Addrs))
	l.add("REDIS_SENTINEL_MASTER", "", anyText, "the name by which the sentinels know the master", text(&r.Sentinel.Master))
	l.addSecret("REDIS_SENTINEL_PASSWORD", anyText, "the sentinels' password", text(&r.Sentinel.Password))
	l.add("REDIS_CLUSTER_ADDRS", "", fmt.Sprintf(addressList, "node", 6379),
		"some nodes of a Redis Cluster, as host:port with commas between them", addresses(&r.ClusterAddrs))
	l.add("REDIS_TLS", "false", "true or false", "speaks TLS 1.2 or newer with Redis, and with its sentinels", boolean(&t.enabled))
	l.add("REDIS_TLS_CA_FILE", "", "the path of a file",
		"the authorities that Redis' certificate may be from, in PEM; by default the system's", text(&t.ca))
	l.add("REDIS_TLS_CERT_FILE", "", "the path of a file", "a client certificate for Redis, in PEM", text(&t.certificate))
	l.add("REDIS_TLS_KEY_FILE", "", "the path of a file", "the key of REDIS_TLS_CERT_FILE, in PEM", text(&t.key))
	l.add("REDIS_TLS_SERVER_NAME", "", "a host name or address",
		"the name that is in Redis' certificate, where it is not that of the address", host(&t.serverName))
}

// finishRedis returns what is wrong with the settings of Redis together, and reads the files that they name.
func (l *loader) finishRedis() (wrong []error) {
	r, t := &l.config.Redis, l.redisTLS
	if r.Sentinel.Addrs != nil && r.ClusterAddrs != nil {
		wrong = append(wrong, errors.New("REDIS_SENTINEL_ADDRS and REDIS_CLUSTER_ADDRS are both set; set one of them"))
	}
	if r.ClusterAddrs != nil && r.DB != 0 {
		wrong = append(wrong, fmt.Errorf("REDIS_DB was %q; with REDIS_CLUSTER_ADDRS it may be 0, as a cluster has one database", strconv.Itoa(r.DB)))
	}
	sentinels := r.Sentinel.Addrs != nil
	for _, needs := range []struct {
		name  string
		set   bool
		other string
		there bool
	}{
		{"REDIS_USERNAME", r.Username != "", "REDIS_PASSWORD", r.Password != ""},
		{"REDIS_SENTINEL_ADDRS", sentinels, "REDIS_SENTINEL_MASTER", r.Sentinel.Master != ""},
		{"REDIS_SENTINEL_MASTER", r.Sentinel.Master != "", "REDIS_SENTINEL_ADDRS", sentinels},
		{"REDIS_SENTINEL_PASSWORD", r.Sentinel.Password != "", "REDIS_SENTINEL_ADDRS", sentinels},
		{"REDIS_TLS_CA_FILE", t.ca != "", "REDIS_TLS=true", t.enabled},
		{"REDIS_TLS_CERT_FILE", t.certificate != "", "REDIS_TLS=true", t.enabled},
		{"REDIS_TLS_KEY_FILE", t.key != "", "REDIS_TLS=true", t.enabled},
		{"REDIS_TLS_SERVER_NAME", t.serverName != "", "REDIS_TLS=true", t.enabled},
		{"REDIS_TLS_CERT_FILE", t.certificate != "", "REDIS_TLS_KEY_FILE", t.key != ""},
		{"REDIS_TLS_KEY_FILE", t.key != "", "REDIS_TLS_CERT_FILE", t.certificate != ""},
	} {
		if needs.set && !needs.there {
			wrong = append(wrong, fmt.Errorf("%s is set without %s; set both or neither", needs.name, needs.other))
		}
	}
	config, invalid := t.config()
	if t.enabled {
		r.TLS = config
	}
	return append(wrong, invalid...)
}

// config reads the files. It returns everything that is wrong with them.
func (t redisTLS) config() (config *tls.Config, wrong []error) {
	config = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.serverName}
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
	if authorities := read("REDIS_TLS_CA_FILE", t.ca); authorities != nil {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(authorities) {
			wrong = append(wrong, fmt.Errorf("REDIS_TLS_CA_FILE: there is no certificate in PEM in %s", t.ca))
		}
	}
	certificate, key := read("REDIS_TLS_CERT_FILE", t.certificate), read("REDIS_TLS_KEY_FILE", t.key)
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
