package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const changelog = `# Changelog

## Unreleased

- Not yet.

## 1.2.0 - 2026-11-28

### Upgrading

See [deploying](docs/deploying.md#upgrading), [all](docs/settings.md), [the form](https://keepachangelog.com/en/1.1.0/).

## 1.2.0-rc.1

- A candidate.

## 1.1.0

## 1.0.0

The first release.
`

func TestRelease(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range map[string]string{"CHANGELOG.md": changelog, "go.mod": "module github.com/codex-api/codex-jobs\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		args   []string
		status int
		stdout string
		stderr string // a part
	}{
		{[]string{"v1.2.0"}, 0, `### Upgrading

See [deploying](https://github.com/codex-api/codex-jobs/blob/v1.2.0/docs/deploying.md#upgrading), ` +
			`[all](https://github.com/codex-api/codex-jobs/blob/v1.2.0/docs/settings.md), [the form](https://keepachangelog.com/en/1.1.0/).
`, ""},
		{[]string{"v1.2.0-rc.1"}, 0, "- A candidate.\n", ""},
		{[]string{"v1.0.0"}, 0, "The first release.\n", ""},
		{[]string{"v1.1.0"}, 1, "", `CHANGELOG.md must have a section "## 1.1.0" with a text`},
		{[]string{"v1.3.0"}, 1, "", `CHANGELOG.md must have a section "## 1.3.0" with a text`},
		{[]string{"v1.2.0-rc.2"}, 1, "", `CHANGELOG.md must have a section "## 1.2.0-rc.2" with a text`},
		{[]string{"v1.2"}, 1, "", `the tag must be a version such as v1.2.3 or v1.2.3-rc.1, was "v1.2"`},
		{[]string{"1.2.0"}, 1, "", `was "1.2.0"`},
		{[]string{"v1.2.0+linux"}, 1, "", `was "v1.2.0+linux"`},
		{[]string{"v1.02.0"}, 1, "", `was "v1.02.0"`},
		{[]string{"vUnreleased"}, 1, "", `was "vUnreleased"`},
		{[]string{"Unreleased"}, 1, "", `was "Unreleased"`},
		{[]string{""}, 1, "", `was ""`},
		{[]string{"v2.0.0"}, 1, "", "should be v0 or v1, not v2"},
		{[]string{}, 2, "", "usage"},
		{[]string{"v1.0.0", "v1.2.0"}, 2, "", "usage"},
		{[]string{"-dir", filepath.Join(dir, "none"), "v1.0.0"}, 1, "", "no such file"},
	} {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			t.Parallel()
			var stdout, stderr strings.Builder
			status := run(append([]string{"-dir", dir}, tt.args...), &stdout, &stderr)
			if status != tt.status || stdout.String() != tt.stdout || !strings.Contains(stderr.String(), tt.stderr) || status == 0 && stderr.Len() > 0 {
				t.Errorf("status %d, stdout %q, stderr %q, want %d, %q and %q", status, &stdout, &stderr, tt.status, tt.stdout, tt.stderr)
			}
		})
	}
}

// The changelog of the product has the form that the command reads.
func TestChangelog(t *testing.T) {
	t.Parallel()
	if text, err := notesOf("../..", "v1.0.0"); err != nil || !strings.Contains(text, "The first release.") {
		t.Errorf("the notes of v1.0.0 are %q, error %v", text, err)
	}
}
