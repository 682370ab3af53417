package config_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/internal/config"
	"github.com/codex-api/codex-jobs/internal/redisconn"
)

// pair makes a self-signed certificate and its key, and returns the paths of both.
func pair(t *testing.T) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	public, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return file(t, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: public}))),
		file(t, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded})))
}

func TestWhereRedisIs(t *testing.T) {
	for name, test := range map[string]struct {
		environment []string
		want        redisconn.Options
		logged      string
	}{
		"alone": {
			[]string{"REDIS_HOST=h", "REDIS_PORT=1", "REDIS_DB=2"},
			redisconn.Options{Addr: "h:1", DB: 2},
			"h:1/2",
		},
		"alone, with a user": {
			[]string{"REDIS_USERNAME=codex", "REDIS_PASSWORD=" + secret},
			redisconn.Options{Addr: "127.0.0.1:6379", Username: "codex", Password: secret},
			"127.0.0.1:6379/0",
		},
		"sentinels": {
			[]string{"REDIS_SENTINEL_ADDRS= a:1, b:2,[::1]:3", "REDIS_SENTINEL_MASTER=mymaster", "REDIS_DB=4"},
			redisconn.Options{Addr: "127.0.0.1:6379", DB: 4, Sentinels: []string{"a:1", "b:2", "[::1]:3"}, Master: "mymaster"},
			"mymaster/4 of the sentinels a:1,b:2,[::1]:3",
		},
		"sentinels with a password, and a host that is not used": {
			[]string{"REDIS_HOST=h", "REDIS_SENTINEL_ADDRS=a:1", "REDIS_SENTINEL_MASTER=m", "REDIS_SENTINEL_PASSWORD_FILE=" + file(t, secret+"\n")},
			redisconn.Options{Addr: "h:6379", Sentinels: []string{"a:1"}, Master: "m", SentinelPassword: secret},
			"m/0 of the sentinels a:1",
		},
		"cluster": {
			[]string{"REDIS_CLUSTER_ADDRS=a:1,b:2", "REDIS_HOST=", "REDIS_DB=0"},
			redisconn.Options{Addr: "127.0.0.1:6379", Cluster: []string{"a:1", "b:2"}},
			"cluster a:1,b:2",
		},
		"TLS": {
			[]string{"REDIS_TLS=true"},
			redisconn.Options{Addr: "127.0.0.1:6379", TLS: &tls.Config{MinVersion: tls.VersionTLS12}},
			"127.0.0.1:6379/0 with TLS",
		},
		"TLS with a name": {
			[]string{"REDIS_TLS=true", "REDIS_TLS_SERVER_NAME=redis.internal", "REDIS_CLUSTER_ADDRS=a:1"},
			redisconn.Options{Addr: "127.0.0.1:6379", Cluster: []string{"a:1"}, TLS: &tls.Config{MinVersion: tls.VersionTLS12, ServerName: "redis.internal"}},
			"cluster a:1 with TLS",
		},
	} {
		t.Run(name, func(t *testing.T) {
			setup(t, "", test.environment...)
			got := load(t).Redis
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
			if got.String() != test.logged {
				t.Errorf("it is logged as %q, want %q", got, test.logged)
			}
		})
	}
}

func TestFilesOfTLS(t *testing.T) {
	certificate, key := pair(t)
	setup(t, "", "REDIS_TLS=true", "REDIS_TLS_CA_FILE="+certificate, "REDIS_TLS_CERT_FILE="+certificate, "REDIS_TLS_KEY_FILE="+key)
	got := load(t).Redis.TLS
	want, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	authorities := x509.NewCertPool()
	authorities.AddCert(want.Leaf)
	if !got.RootCAs.Equal(authorities) || len(got.Certificates) != 1 || !got.Certificates[0].Leaf.Equal(want.Leaf) || got.MinVersion != tls.VersionTLS12 {
		t.Errorf("got %+v", got)
	}
}

func TestRefusedSettingsOfRedis(t *testing.T) {
	certificate, key := pair(t)
	_, otherKey := pair(t)
	empty, broken := file(t, ""), file(t, "-----BEGIN CERTIFICATE-----\n"+secret+"\n")
	for name, test := range map[string]struct {
		environment []string
		want        []string // how each error begins
	}{
		"sentinels and a cluster": {
			[]string{"REDIS_SENTINEL_ADDRS=a:1", "REDIS_SENTINEL_MASTER=m", "REDIS_CLUSTER_ADDRS=b:2"},
			[]string{"REDIS_SENTINEL_ADDRS and REDIS_CLUSTER_ADDRS are both set; set one of them"},
		},
		"a cluster with a database": {
			[]string{"REDIS_CLUSTER_ADDRS=b:2", "REDIS_DB=3"},
			[]string{`REDIS_DB must be 0 with REDIS_CLUSTER_ADDRS, as a cluster has one database, was "3"`},
		},
		"sentinels without a master": {
			[]string{"REDIS_SENTINEL_ADDRS=a:1"},
			[]string{"REDIS_SENTINEL_ADDRS is set without REDIS_SENTINEL_MASTER; set both or neither"},
		},
		"a master without sentinels": {
			[]string{"REDIS_SENTINEL_MASTER=m", "REDIS_SENTINEL_PASSWORD=" + secret},
			[]string{"REDIS_SENTINEL_MASTER is set without REDIS_SENTINEL_ADDRS; ", "REDIS_SENTINEL_PASSWORD is set without REDIS_SENTINEL_ADDRS; "},
		},
		"wrong sentinels": {
			[]string{"REDIS_SENTINEL_ADDRS=a", "REDIS_SENTINEL_MASTER=m"},
			[]string{`REDIS_SENTINEL_ADDRS must be addresses as host:port, separated by commas, such as sentinel-1:26379,sentinel-2:26379, was "a"`},
		},
		"a name that is none": {
			[]string{"REDIS_TLS=true", "REDIS_TLS_SERVER_NAME=rediss://h"},
			[]string{`REDIS_TLS_SERVER_NAME must be a host name or address, was "rediss://h"`},
		},
		"a user without a password": {
			[]string{"REDIS_USERNAME=codex"},
			[]string{"REDIS_USERNAME is set without REDIS_PASSWORD; "},
		},
		"files without TLS": {
			[]string{"REDIS_TLS=false", "REDIS_TLS_CA_FILE=" + certificate, "REDIS_TLS_CERT_FILE=" + certificate, "REDIS_TLS_KEY_FILE=" + key, "REDIS_TLS_SERVER_NAME=h"},
			[]string{
				"REDIS_TLS_CA_FILE is set without REDIS_TLS=true; set both or neither", "REDIS_TLS_CERT_FILE is set without REDIS_TLS=true; ",
				"REDIS_TLS_KEY_FILE is set without REDIS_TLS=true; ", "REDIS_TLS_SERVER_NAME is set without REDIS_TLS=true; ",
			},
		},
		"a certificate without its key": {
			[]string{"REDIS_TLS=true", "REDIS_TLS_CERT_FILE=" + certificate},
			[]string{"REDIS_TLS_CERT_FILE is set without REDIS_TLS_KEY_FILE; set both or neither"},
		},
		"a key without its certificate": {
			[]string{"REDIS_TLS=true", "REDIS_TLS_KEY_FILE=" + key},
			[]string{"REDIS_TLS_KEY_FILE is set without REDIS_TLS_CERT_FILE; set both or neither"},
		},
		"files that are not there": {
			[]string{"REDIS_TLS=true", "REDIS_TLS_CA_FILE=/not/there/ca", "REDIS_TLS_CERT_FILE=/not/there/cert", "REDIS_TLS_KEY_FILE=/not/there/key"},
			[]string{"REDIS_TLS_CA_FILE: open /not/there/ca: ", "REDIS_TLS_CERT_FILE: open /not/there/cert: ", "REDIS_TLS_KEY_FILE: open /not/there/key: "},
		},
		"no file": {
			[]string{"REDIS_TLS=true", "REDIS_TLS_CA_FILE=" + t.TempDir()},
			[]string{"REDIS_TLS_CA_FILE: "},
		},
		"an authority that is none": {
			[]string{"REDIS_TLS=true", "REDIS_TLS_CA_FILE=" + key},
			[]string{"REDIS_TLS_CA_FILE: there is no certificate in PEM in " + key},
		},
		"empty files": {
			[]string{"REDIS_TLS=true", "REDIS_TLS_CA_FILE=" + empty, "REDIS_TLS_CERT_FILE=" + empty, "REDIS_TLS_KEY_FILE=" + empty},
			[]string{"REDIS_TLS_CA_FILE: there is no certificate in PEM in " + empty, "REDIS_TLS_CERT_FILE and REDIS_TLS_KEY_FILE: "},
		},
		"broken files": {
			[]string{"REDIS_TLS=true", "REDIS_TLS_CA_FILE=" + broken, "REDIS_TLS_CERT_FILE=" + broken, "REDIS_TLS_KEY_FILE=" + key},
			[]string{"REDIS_TLS_CA_FILE: there is no certificate in PEM in " + broken, "REDIS_TLS_CERT_FILE and REDIS_TLS_KEY_FILE: "},
		},
		"another's key": {
			[]string{"REDIS_TLS=true", "REDIS_TLS_CERT_FILE=" + certificate, "REDIS_TLS_KEY_FILE=" + otherKey},
			[]string{"REDIS_TLS_CERT_FILE and REDIS_TLS_KEY_FILE: tls: private key does not match public key"},
		},
		"all of it and more": {
			[]string{"REDIS_TLS=true", "REDIS_TLS_CA_FILE=/not/there", "REDIS_SENTINEL_ADDRS=a:1", "PORT=0"},
			[]string{"REDIS_TLS_CA_FILE: open /not/there: ", "REDIS_SENTINEL_ADDRS is set without REDIS_SENTINEL_MASTER; ", "PORT must be "},
		},
	} {
		t.Run(name, func(t *testing.T) {
			setup(t, "", test.environment...)
			_, err := config.Load(codex.Registry())
			if err == nil {
				t.Fatal("it is allowed")
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) != len(test.want) || strings.Contains(err.Error(), secret) {
				t.Fatalf("got\n%v", err)
			}
			for i, want := range test.want {
				if !strings.HasPrefix(lines[i], want) {
					t.Errorf("got %q, want %q", lines[i], want)
				}
			}
		})
	}
}

func TestNamespace(t *testing.T) {
	setup(t, "")
	if n := load(t).Registry.Namespace(); n != "" {
		t.Errorf("by default it is %q", n)
	}
	setup(t, "", "NAMESPACE=shop-2")
	c := load(t)
	if n, queue := c.Registry.Namespace(), definition(t, c, "user-sync").Queue(); n != "shop-2" || queue != "shop-2:user-sync" {
		t.Errorf("the namespace is %q, the queue %q", n, queue)
	}
	if logged := c.LogValue().String(); !strings.Contains(logged, "namespace=shop-2") {
		t.Errorf("logged: %s", logged)
	}
	for _, wrong := range []string{"Shop", "a:b", "a.b", "{a}", "1234567890123456789012345678901"} {
		setup(t, "", "NAMESPACE="+wrong)
		_, err := config.Load(codex.Registry())
		if want := `NAMESPACE must be 1 to 30 lower-case letters, digits and hyphens, was "` + wrong + `"`; err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
