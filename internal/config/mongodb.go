// Which MongoDB, and which database of it.

package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/connstring"
)

// defaultDatabase is the database of the records if neither MONGODB_DATABASE nor the connection string names one.
const defaultDatabase = "codex"

// MongoDB says where the records are.
type MongoDB struct {
	URI      string
	Database string
	// DatabaseFrom says what named the database.
	DatabaseFrom string
	// PathDatabase is the database in the connection string's path, if that is another one; otherwise "".
	PathDatabase string
}

func readMongoDB(r *reader) MongoDB {
	g := r.group("MongoDB", api, worker)
	m := MongoDB{URI: read(g, "MONGODB_URI", "mongodb://127.0.0.1:27017", mongoURI, "the connection string of MongoDB")}
	set := readSet(g, "MONGODB_DATABASE", "", databaseName, "the database of the records and of the history; by default the one in the "+
		"path of MONGODB_URI, unless that is admin, local or config, else "+defaultDatabase)
	path := pathDatabase(m.URI)
	switch {
	case set != nil:
		m.Database, m.DatabaseFrom = *set, "MONGODB_DATABASE"
		if path != m.Database {
			m.PathDatabase = path
		}
	case path != "" && databaseName.valid(path):
		m.Database, m.DatabaseFrom = path, "the path of MONGODB_URI"
	case path != "":
		r.refuse("MONGODB_URI must be a connection string that has in its path %s, was %q", databaseName.mustBe, redactURI(m.URI))
	default:
		m.Database, m.DatabaseFrom = defaultDatabase, "the default"
	}
	return m
}

// LogDatabase says which database the records are in, and why.
func (m MongoDB) LogDatabase(log *slog.Logger) {
	log.Info("Using the MongoDB database", "database", m.Database, "namedBy", m.DatabaseFrom)
	if m.PathDatabase != "" {
		log.Warn("The path of MONGODB_URI names another database than MONGODB_DATABASE, which is used", "database", m.Database,
			"path", m.PathDatabase)
	}
}

// pathDatabase returns the database that a connection string names in its path, or "" if it names none, or one of the server's
// own, which people name there for the authentication.
func pathDatabase(uri string) string {
	_, rest, _ := strings.Cut(uri, "://")
	rest, _, _ = strings.Cut(rest, "?")
	_, path, _ := strings.Cut(rest[strings.LastIndexByte(rest, '@')+1:], "/")
	name, err := url.PathUnescape(path)
	if err != nil || slices.Contains([]string{"admin", "local", "config"}, name) {
		return ""
	}
	return name
}

// mongoURI is a connection string that can be right. Whether a mongodb+srv host can be resolved shows when it is used: DNS can be
// away, too.
var mongoURI = format[string]{
	mustBe: "a connection string, such as mongodb://host:27017 or mongodb+srv://host",
	read:   asIs,
	valid: func(value string) bool {
		if rest, ok := strings.CutPrefix(value, connstring.SchemeMongoDBSRV+"://"); ok {
			return validateSRV(rest) == nil
		}
		_, err := connstring.ParseAndValidate(value)
		return err == nil
	},
	inFile: true,
}

// validateSRV checks a mongodb+srv connection string without its scheme. The driver would look up its host for that. So this
// checks what such a string has of its own, and leaves the rest to the driver.
func validateSRV(rest string) error {
	address, query, _ := strings.Cut(rest, "?")
	var others []string
	own := make(map[string]string) // the options that the driver only allows beside this scheme
	for option := range strings.FieldsFuncSeq(query, func(r rune) bool { return r == '&' || r == ';' }) {
		name, value, _ := strings.Cut(option, "=")
		switch name = strings.ToLower(name); name {
		case "srvmaxhosts", "srvservicename":
			own[name] = value
		default:
			others = append(others, option)
		}
	}
	uri := connstring.SchemeMongoDB + "://" + address
	if len(others) > 0 {
		uri += "?" + strings.Join(others, "&")
	}
	parsed, err := connstring.ParseAndValidate(uri)
	if err != nil {
		return fmt.Errorf("parsing it: %w", err)
	}
	limited := own["srvmaxhosts"] != "" && own["srvmaxhosts"] != "0"
	switch {
	case len(parsed.RawHosts) != 1 || strings.ContainsAny(parsed.RawHosts[0], ":,"):
		return errors.New("it must have one host, without a port")
	case parsed.DirectConnection || parsed.ConnectSet && parsed.Connect == connstring.SingleConnect:
		return errors.New("a direct connection needs one server")
	case limited && (parsed.ReplicaSet != "" || parsed.LoadBalanced):
		return errors.New("srvMaxHosts must not be set together with replicaSet or loadBalanced")
	}
	return nil
}
