// Package docs_test checks the pages in this folder, and those beside the code: that links lead somewhere, and that the
// tests and the code that a page shows exist. Commands, settings, metrics and alerts are compared where they are used.
package docs_test

import (
	"io/fs"
	"os"
	"path"
	"regexp"
	"strings"
	"testing"
)

var root = os.DirFS("..")

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := fs.ReadFile(root, name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// files returns the names of all files of the repository that end like this.
func files(t *testing.T, suffix string) []string {
	t.Helper()
	var names []string
	err := fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name == "bin" || entry.Name() == "node_modules" { // what was built, and libraries with their documents
			return fs.SkipDir
		}
		if entry.IsDir() && name != "." && strings.HasPrefix(entry.Name(), ".") && entry.Name() != ".github" {
			return fs.SkipDir
		}
		if !entry.IsDir() && strings.HasSuffix(name, suffix) {
			names = append(names, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(names) == 0 {
		t.Fatalf("there is no file that ends with %s", suffix)
	}
	return names
}

var (
	fences   = regexp.MustCompile("(?ms)^ *```.*?^ *```$")
	links    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	headings = regexp.MustCompile(`(?m)^#+ (.+)$`)
	// notInAnchors is what GitHub leaves out when it makes an anchor of a heading.
	notInAnchors = regexp.MustCompile("[^a-z0-9 _-]")
)

// anchors returns the anchors of a page's headings.
func anchors(page string) map[string]bool {
	found := make(map[string]bool)
	for _, m := range headings.FindAllStringSubmatch(fences.ReplaceAllString(page, ""), -1) {
		anchor := notInAnchors.ReplaceAllString(strings.ToLower(m[1]), "")
		found[strings.ReplaceAll(anchor, " ", "-")] = true
	}
	return found
}

// Each link to a file, a folder or a heading of the repository leads there.
func TestLinksLeadSomewhere(t *testing.T) {
	t.Parallel()
	for _, name := range files(t, ".md") {
		for _, m := range links.FindAllStringSubmatch(fences.ReplaceAllString(read(t, name), ""), -1) {
			target, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			if target == "" {
				target = name
			} else {
				target = path.Join(path.Dir(name), target)
			}
			if _, err := fs.Stat(root, target); err != nil {
				t.Errorf("%s links to %s, which is not there", name, m[1])
				continue
			}
			if anchor != "" && !anchors(read(t, target))[anchor] {
				t.Errorf("%s links to %s, but no heading there has this anchor", name, m[1])
			}
		}
	}
}

// Each test that a page names exists.
func TestNamedTestsExist(t *testing.T) {
	t.Parallel()
	var code strings.Builder
	for _, name := range files(t, "_test.go") {
		code.WriteString(read(t, name))
	}
	for _, name := range files(t, ".md") {
		for _, m := range regexp.MustCompile("`((?:Test|Fuzz)[A-Z]\\w*)`").FindAllStringSubmatch(read(t, name), -1) {
			if !strings.Contains(code.String(), "\nfunc "+m[1]+"(") {
				t.Errorf("%s names %s, which is no test", name, m[1])
			}
		}
	}
}

// The README shows the code of an example, and the tests run that example.
func TestReadmeShowsTestedCode(t *testing.T) {
	t.Parallel()
	outdent := func(s string) string { return regexp.MustCompile(`(?m)^\t+`).ReplaceAllString(s, "") }
	example := outdent(read(t, "pkg/job/example_test.go"))
	shown := regexp.MustCompile("(?ms)^```go\n(.*?)^```$").FindAllStringSubmatch(read(t, "README.md"), -1)
	if len(shown) == 0 {
		t.Error("the README shows no code")
	}
	for _, m := range shown {
		if !strings.Contains(example, strings.TrimSpace(strings.TrimPrefix(outdent(m[1]), "func main() "))) {
			t.Errorf("pkg/job/example_test.go does not have this:\n%s", m[1])
		}
	}
}
