// Keys are kept as hashes, so that no log and no core dump contains one. They are compared in constant time.

package access

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// minKey is the least length of a key, in characters.
const minKey = 16

var (
	validName = regexp.MustCompile(`^[a-z0-9-]{1,64}$`)
	validKey  = regexp.MustCompile(`^[!-+\--9;-~]+$`) // printable ASCII without comma and colon
)

// Key describes a client's key. It does not contain the key itself.
type Key struct {
	// Name is the name of the client, which the log shows.
	Name string
	// Write allows the client to change something. Without it the client can only read.
	Write bool

	hash [sha256.Size]byte
}

// String returns the name and read or write.
func (k Key) String() string {
	if k.Write {
		return k.Name + " (write)"
	}
	return k.Name + " (read)"
}

// Keys are the keys of all clients.
type Keys []Key

// Names returns the keys as text for logs, without their secrets.
func (ks Keys) Names() []string {
	names := make([]string, 0, len(ks))
	for _, k := range ks {
		names = append(names, k.String())
	}
	return names
}

// ParseKeys reads entries of the form name:read:key or name:write:key, separated by commas or line breaks. Its error lists
// everything that is wrong. It names entries by their number, because a key may stand in the place of a name.
func ParseKeys(text string) (Keys, error) {
	var keys Keys
	var wrong []error
	number, names, hashes := 0, make(map[string]int), make(map[[sha256.Size]byte]int)
	for entry := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ',' || r == '\n' || r == '\r' }) {
		entry = strings.TrimSpace(entry)
		if entry == "" {
			continue
		}
		number++
		say := func(format string, args ...any) {
			wrong = append(wrong, fmt.Errorf("entry %d "+format, append([]any{number}, args...)...))
		}
		parts := strings.Split(entry, ":")
		if len(parts) != 3 {
			say("is not of the form name:read:key or name:write:key")
			continue
		}
		name, kind, key := parts[0], parts[1], parts[2]
		if !validName.MatchString(name) {
			say("has a name that is not allowed; it must have only lower-case letters, digits and hyphens, 64 at most")
		}
		if kind != "read" && kind != "write" {
			say("is of a kind that is not known; it must be read or write")
		}
		switch {
		case len(key) < minKey:
			say("has a key of %d characters; it must have %d or more", len(key), minKey)
		case !validKey.MatchString(key):
			say("has a key with other characters than printable ASCII without comma, colon and blank")
		}
		k := Key{Name: name, Write: kind == "write", hash: sha256.Sum256([]byte(key))}
		if first, twice := names[name]; twice {
			say("has the name of entry %d; each needs its own", first)
		} else if first, twice := hashes[k.hash]; twice {
			say("has the key of entry %d; each needs its own", first)
		}
		names[name], hashes[k.hash] = number, number
		keys = append(keys, k)
	}
	if number == 0 {
		wrong = append(wrong, errors.New("there is no entry; it must be name:read:key or name:write:key"))
	}
	if wrong != nil {
		return nil, errors.Join(wrong...)
	}
	return keys, nil
}

// Find returns the Key of a client that sent this key. It compares all keys, so that the time does not tell which one fits.
func (ks Keys) Find(shown string) (Key, bool) {
	hash := sha256.Sum256([]byte(shown))
	found := -1
	for i := range ks {
		found = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(ks[i].hash[:], hash[:]), i, found)
	}
	if found < 0 {
		return Key{}, false
	}
	return ks[found], true
}
