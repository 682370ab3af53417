//go:build release

package main

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A release has an archive of the programs for each platform, each with a bill of materials that names all modules in it, and the
// archives' checksums.
func TestDist(t *testing.T) {
	t.Parallel()
	const version = "v1.999.0"
	dir := t.TempDir()
	command(t, nil, "make", "-C", "../..", "dist", "VERSION="+version, "DIST="+dir)

	var sums strings.Builder
	for _, arch := range []string{"amd64", "arm64"} {
		name := "codex-jobs_" + version + "_linux_" + arch
		archive := read(t, dir, name+".tar.gz")
		fmt.Fprintf(&sums, "%x  %s.tar.gz\n", sha256.Sum256(archive), name)

		files := unpack(t, archive, name)
		want := []string{".env.example", "LICENSE", "api", "api.cdx.json", "codexctl", "codexctl.cdx.json", "scheduler", "scheduler.cdx.json", "worker", "worker.cdx.json"}
		if got := slices.Sorted(maps.Keys(files)); !slices.Equal(got, want) {
			t.Fatalf("the archive for %s has %q, want %q", arch, got, want)
		}
		for _, program := range []string{"api", "codexctl", "scheduler", "worker"} {
			t.Run(program+" for "+arch, func(t *testing.T) {
				checkProgram(t, files[program], files[program+".cdx.json"], arch, version)
			})
		}
	}
	if got := string(read(t, dir, "SHA256SUMS")); got != sums.String() {
		t.Errorf("SHA256SUMS is\n%s\nwant\n%s", got, &sums)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 3 {
		t.Errorf("there is %v, want two archives and SHA256SUMS; error %v", entries, err)
	}
}

// checkProgram checks how a program was built, and compares it with its bill of materials.
func checkProgram(t *testing.T, program, materials []byte, arch, version string) {
	t.Helper()
	info, err := buildinfo.Read(bytes.NewReader(program))
	if err != nil {
		t.Fatalf("reading how it was built: %v", err)
	}
	settings := make(map[string]string)
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	if settings["GOOS"] != "linux" || settings["GOARCH"] != arch || settings["CGO_ENABLED"] != "0" || settings["-trimpath"] != "true" {
		t.Errorf("it is built with %v", settings)
	}
	if !bytes.Contains(program, []byte(version)) {
		t.Error("it does not know its version")
	}

	type component struct{ Name, Version string }
	var bill struct {
		BOMFormat  string
		Metadata   struct{ Component component }
		Components []component
	}
	if err := json.Unmarshal(materials, &bill); err != nil {
		t.Fatalf("reading the bill of materials: %v", err)
	}
	if about := bill.Metadata.Component; bill.BOMFormat != "CycloneDX" || about != (component{modulePath, version}) {
		t.Errorf("the bill of materials is of %v, in the format %q", about, bill.BOMFormat)
	}
	want := []component{{"std", info.GoVersion}}
	for _, module := range info.Deps {
		want = append(want, component{module.Path, module.Version})
	}
	order := func(a, b component) int { return cmp.Compare(a.Name, b.Name) }
	slices.SortFunc(want, order)
	slices.SortFunc(bill.Components, order)
	if len(info.Deps) == 0 || !slices.Equal(bill.Components, want) {
		t.Errorf("the bill of materials has\n%v\nthe program\n%v", bill.Components, want)
	}
}

// unpack returns the files of an archive by name. All are in the directory dir.
func unpack(t *testing.T, archive []byte, dir string) map[string][]byte {
	t.Helper()
	unzipped, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[string][]byte)
	for r := tar.NewReader(unzipped); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if header.Typeflag == tar.TypeDir {
			continue
		}
		if path.Dir(header.Name) != dir {
			t.Errorf("%s is outside of %s", header.Name, dir)
		}
		if files[path.Base(header.Name)], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

func read(t *testing.T, dir, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}
