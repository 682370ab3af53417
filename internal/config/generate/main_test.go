package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestGeneratedFilesAreCurrent(t *testing.T) {
	t.Parallel()
	const root = "../../.."
	files, err := generate(root)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != want {
			t.Errorf("%s is not current; run go generate ./...", name)
		}
	}
}

func TestReplace(t *testing.T) {
	t.Parallel()
	const text = "a\n# BEGIN x, generated\nold\n# END x.\n# BEGIN y, generated\n# END y.\n"
	for name, want := range map[string]string{
		"x": "a\n# BEGIN x, generated\nnew\n# END x.\n# BEGIN y, generated\n# END y.\n",
		"y": "a\n# BEGIN x, generated\nold\n# END x.\n# BEGIN y, generated\nnew\n# END y.\n",
	} {
		if got, err := replace(text, name, "new\n"); err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, want)
		}
	}
	if got, err := replace(text, "z", "new\n"); err == nil {
		t.Errorf("without a place for it: %q", got)
	}
}
