// The settings of Redis have a file of their own because they depend on each other: whether it is one server, a master with
// Sentinels or a cluster, and whether and how connections use TLS.

package config

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"strconv"

	"github.com/codex-api/codex-jobs/internal/redisconn"
	"github.com/codex-api/codex-jobs/internal/tasks"
)

// readNamespace returns the namespace, which is beside the settings of Redis because it is for a Redis that is shared.
func readNamespace(r *reader) tasks.Namespace {
	return read(r.group("Redis", api, scheduler, worker), "NAMESPACE", "", namespace,
		"keeps the jobs of this deployment apart from those of others in the same Redis; the same for all its programs")
}

func readRedis(r *reader) redisconn.Options {
	g := r.group("Redis", api, scheduler, worker)
	const unused = "; not used with REDIS_SENTINEL_ADDRS or REDIS_CLUSTER_ADDRS"
	c := redisconn.Options{
		Addr: net.JoinHostPort(
			read(g, "REDIS_HOST", "127.0.0.1", host, "the host of Redis"+unused),
			strconv.Itoa(read(g, "REDIS_PORT", "6379", port, "the port of Redis"+unused))),
		Username:         read(g, "REDIS_USERNAME", "", anyText, "the user of Redis, if it is not the default user"),
		Password:         read(g, "REDIS_PASSWORD", "", password, "the password of Redis"),
		DB:               read(g, "REDIS_DB", "0", databaseNumber, "the number of the database in Redis; a cluster has only 0"),
		Sentinels:        read(g, "REDIS_SENTINEL_ADDRS", "", addresses("sentinel-1:26379,sentinel-2:26379"), "the addresses of the Redis Sentinels"),
		Master:           read(g, "REDIS_SENTINEL_MASTER", "", anyText, "the name by which the Sentinels know the master"),
		SentinelPassword: read(g, "REDIS_SENTINEL_PASSWORD", "", password, "the password of the Sentinels"),
		Cluster: read(g, "REDIS_CLUSTER_ADDRS", "", addresses("node-1:6379,node-2:6379"),
			"the addresses of some nodes of a Redis Cluster; the others are found through them"),
		TLS: readRedisTLS(g),
	}
	if g.isSet("REDIS_SENTINEL_ADDRS") && g.isSet("REDIS_CLUSTER_ADDRS") {
		g.refuse("REDIS_SENTINEL_ADDRS and REDIS_CLUSTER_ADDRS are both set; set one of them")
	}
	if g.isSet("REDIS_CLUSTER_ADDRS") && c.DB != 0 {
		g.refuse(`REDIS_DB must be 0 with REDIS_CLUSTER_ADDRS, as a cluster has one database, was "%d"`, c.DB)
	}
	g.refuseWithout("REDIS_PASSWORD", g.isSet("REDIS_PASSWORD", "REDIS_PASSWORD_FILE"), "REDIS_USERNAME")
	g.refuseWithout("REDIS_SENTINEL_MASTER", g.isSet("REDIS_SENTINEL_MASTER"), "REDIS_SENTINEL_ADDRS")
	g.refuseWithout("REDIS_SENTINEL_ADDRS", g.isSet("REDIS_SENTINEL_ADDRS"), "REDIS_SENTINEL_MASTER", "REDIS_SENTINEL_PASSWORD", "REDIS_SENTINEL_PASSWORD_FILE")
	return c
}

// refuseWithout refuses each of the settings that is set while another one, which it needs, is not.
func (r *reader) refuseWithout(other string, otherSet bool, names ...string) {
	for _, name := range names {
		if r.isSet(name) && !otherSet {
			r.refuse("%s is set without %s; set both or neither", name, other)
		}
	}
}

// readRedisTLS reads the settings of TLS and the files that they name. It returns nil for connections without TLS.
func readRedisTLS(g group) *tls.Config {
	enabled := read(g, "REDIS_TLS", "false", boolean, "whether connections to Redis, and to its Sentinels, use TLS 1.2 or newer")
	authorities := readAuthorities(g, "REDIS_TLS_CA_FILE", "the certificate authorities to trust, in PEM; by default the system's")
	certificate := readPEM(g, "REDIS_TLS_CERT_FILE", "the client certificate, in PEM")
	key := readPEM(g, "REDIS_TLS_KEY_FILE", "the private key of REDIS_TLS_CERT_FILE, in PEM")
	config := &tls.Config{
		MinVersion: tls.VersionTLS12,
		RootCAs:    authorities,
		ServerName: read(g, "REDIS_TLS_SERVER_NAME", "", host, "the name in the certificate of Redis, if it is not the host of its address"),
	}
	if certificate != nil && key != nil {
		pair, err := tls.X509KeyPair(certificate, key)
		if err != nil {
			g.refuse("REDIS_TLS_CERT_FILE and REDIS_TLS_KEY_FILE: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	g.refuseWithout("REDIS_TLS=true", enabled, "REDIS_TLS_CA_FILE", "REDIS_TLS_CERT_FILE", "REDIS_TLS_KEY_FILE", "REDIS_TLS_SERVER_NAME")
	g.refuseWithout("REDIS_TLS_KEY_FILE", g.isSet("REDIS_TLS_KEY_FILE"), "REDIS_TLS_CERT_FILE")
	g.refuseWithout("REDIS_TLS_CERT_FILE", g.isSet("REDIS_TLS_CERT_FILE"), "REDIS_TLS_KEY_FILE")
	if !enabled {
		return nil
	}
	return config
}

// readAuthorities returns the certificates in the file that the setting names; nil when it names none.
func readAuthorities(g group, name, purpose string) *x509.CertPool {
	data := readPEM(g, name, purpose)
	if data == nil {
		return nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		g.refuse("%s: there is no certificate in PEM in %s", name, g.text(name))
	}
	return pool
}

// readPEM returns the content of the file that the setting names; nil when it names none, or the file cannot be read.
func readPEM(g group, name, purpose string) []byte {
	file := read(g, name, "", path, purpose)
	if file == "" {
		return nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		g.refuse("%s: %w", name, err)
		return nil
	}
	return data
}
