package access_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/codex-api/codex-jobs/internal/access"
)

const (
	first  = "S3CR3T-first-key-16"
	second = `S3CR3T!"#$%&'()*+-./;<=>?@[\]^_{|}~`
)

func TestKeys(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"viewer:read:" + first + ",ops:write:" + second, "viewer:read:" + first + "\nops:write:" + second + "\n",
		"\r\n , viewer:read:" + first + " ,,\r\n\tops:write:" + second + ",",
	} {
		keys, err := access.ParseKeys(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if got := keys.Names(); !slices.Equal(got, []string{"viewer (read)", "ops (write)"}) {
			t.Errorf("%q: the names are %q", text, got)
		}
		for shown, want := range map[string]string{
			first: "viewer (read)", second: "ops (write)", "": "", first + " ": "", first[1:]: "", strings.ToLower(first): "", first + second: "", "viewer": "",
		} {
			if k, ok := keys.Find(shown); ok != (want != "") || ok && k.String() != want {
				t.Errorf("%q is %s, %v, want %q", shown, k, ok, want)
			}
		}
		if shown := fmt.Sprintf("%v %+v %s %#v", keys, keys, keys[0], keys); strings.Contains(shown, "S3CR3T") {
			t.Errorf("the keys can be seen: %s", shown)
		}
	}
	if _, ok := access.Keys(nil).Find(""); ok {
		t.Error("with no keys none is one")
	}
}

// The error lists each mistake, by the number of its entry: a key may stand in the place of a name.
func TestRefusedKeys(t *testing.T) {
	t.Parallel()
	const ok = "ok:read:0123456789abcdef"
	for text, want := range map[string]string{
		"":                                   "there is no entry; it must be name:read:key or name:write:key",
		",\n,":                               "there is no entry; it must be name:read:key or name:write:key",
		first:                                "entry 1 is not of the form name:read:key or name:write:key",
		ok + ",ops:" + first:                 "entry 2 is not of the form name:read:key or name:write:key",
		"ops:write:" + first + ":x":          "entry 1 is not of the form name:read:key or name:write:key",
		first + ":write:" + second:           "entry 1 has a name that is not allowed; it must have only lower-case letters, digits and hyphens, 64 at most",
		":write:" + first:                    "entry 1 has a name that is not allowed; it must have only lower-case letters, digits and hyphens, 64 at most",
		"ops:admin:" + first:                 "entry 1 is of a kind that is not known; it must be read or write",
		"ops:WRITE:" + first:                 "entry 1 is of a kind that is not known; it must be read or write",
		"ops:write:S3CR3T":                   "entry 1 has a key of 6 characters; it must have 16 or more",
		"ops:write:":                         "entry 1 has a key of 0 characters; it must have 16 or more",
		"ops:write:" + first + " x":          "entry 1 has a key with other characters than printable ASCII without comma, colon and blank",
		"ops:write:" + first + "é":           "entry 1 has a key with other characters than printable ASCII without comma, colon and blank",
		"ops:write:" + first + "\x00":        "entry 1 has a key with other characters than printable ASCII without comma, colon and blank",
		ok + ",ok:write:" + first:            "entry 2 has the name of entry 1; each needs its own",
		ok + ",\n,other:write:" + ok[8:]:     "entry 2 has the key of entry 1; each needs its own",
		first + ":x:S3CR3T\n" + ok + "\nx:y": "entry 1 has a name that is not allowed; it must have only lower-case letters, digits and hyphens, 64 at most\nentry 1 is of a kind that is not known; it must be read or write\nentry 1 has a key of 6 characters; it must have 16 or more\nentry 3 is not of the form name:read:key or name:write:key",
	} {
		keys, err := access.ParseKeys(text)
		if err == nil || keys != nil || err.Error() != want {
			t.Errorf("%q: %v, %v, want %s", text, keys, err, want)
		}
	}
}

// FuzzParseKeys parses any text: a valid entry is found by its key only, and the error of an invalid one does not show it.
func FuzzParseKeys(f *testing.F) {
	for _, text := range []string{
		"", "ops:write:" + first, "viewer:read:" + first + ",ops:write:" + second, first, "\n", "a:b:c", "a:read:\x00", strings.Repeat(",", 1000), "é:read:" + first,
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		keys, err := access.ParseKeys(text)
		if err != nil {
			if strings.Contains(err.Error(), "S3CR3T") || keys != nil {
				t.Errorf("%q: %v, %v", text, keys, err)
			}
			return
		}
		for _, k := range keys {
			kind := ":read:"
			if k.Write {
				kind = ":write:"
			}
			_, key, ok := strings.Cut(text, k.Name+kind)
			key, _, _ = strings.Cut(key, ",")
			key, _, _ = strings.Cut(key, "\n")
			key, _, _ = strings.Cut(key, "\r")
			if found, known := keys.Find(strings.TrimSpace(key)); !ok || !known || found.Write != k.Write && found.Name == k.Name || len(strings.TrimSpace(key)) < 16 {
				t.Errorf("%q: %s has no key", text, k)
			}
		}
		if _, ok := keys.Find(text); ok {
			t.Errorf("%q is a key", text)
		}
	})
}
