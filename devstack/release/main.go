// Command release says whether a tag can be released, and prints what the changelog says of it.
//
// The release's workflow runs it before anything else, and for the text of the release's page. A tag can be released if it is a
// version of Semantic Versioning, such as v1.2.3 or v1.2.3-rc.1, if `go install` takes that version for the module's path, and
// if CHANGELOG.md has a section for it.
//
//	release [-dir DIR] TAG
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run runs the command, and returns the exit status.
func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("release", flag.ContinueOnError)
	flags.SetOutput(stderr)
	dir := flags.String("dir", "..", "the directory with CHANGELOG.md and go.mod")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	if flags.NArg() != 1 {
		fmt.Fprintln(stderr, "release: usage: release [-dir DIR] TAG")
		return 2
	}
	notes, err := notesOf(*dir, flags.Arg(0))
	if err != nil {
		fmt.Fprintf(stderr, "release: %v\n", err)
		return 1
	}
	fmt.Fprintln(stdout, notes)
	return 0
}

// notesOf returns the text of the changelog for a tag, or an error if the tag cannot be released.
func notesOf(dir, tag string) (string, error) {
	gomod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		return "", fmt.Errorf("reading the module's path: %w", err)
	}
	changelog, err := os.ReadFile(filepath.Join(dir, "CHANGELOG.md"))
	if err != nil {
		return "", fmt.Errorf("reading the changelog: %w", err)
	}
	path := modfile.ModulePath(gomod)
	// Go knows no build metadata (v1.2.3+4), and takes v1.2 for a branch's name.
	if semver.Canonical(tag) != tag || tag == "" {
		return "", fmt.Errorf("the tag must be a version such as v1.2.3 or v1.2.3-rc.1, was %q", tag)
	}
	if err := module.Check(path, tag); err != nil {
		return "", fmt.Errorf("comparing the tag %s with the module's path: %w", tag, err)
	}
	text := section(string(changelog), strings.TrimPrefix(tag, "v"))
	if text == "" {
		return "", fmt.Errorf("CHANGELOG.md must have a section %q with a text", "## "+strings.TrimPrefix(tag, "v"))
	}
	return absolute(text, "https://"+path+"/blob/"+tag+"/"), nil
}

// section returns the text below the heading of a version, which may also have a date.
func section(changelog, version string) string {
	heading := regexp.MustCompile(`(?m)^## ` + regexp.QuoteMeta(version) + `( - \d{4}-\d{2}-\d{2})?$`).FindStringIndex(changelog)
	if heading == nil {
		return ""
	}
	text := changelog[heading[1]:]
	if next := strings.Index(text, "\n## "); next >= 0 {
		text = text[:next]
	}
	return strings.TrimSpace(text)
}

// relative is the beginning of a link to a file of the repository.
var relative = regexp.MustCompile(`\]\(([\w./-]+[)#])`)

// absolute makes links to files of the repository lead there from the release's page, too.
func absolute(text, base string) string {
	return relative.ReplaceAllString(text, "]("+base+"$1")
}
