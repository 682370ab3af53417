// Package version knows which release of codex-jobs a program is, for all of its programs alike.
package version

import "runtime/debug"

// linked is set by the linker where a release is built: see LDFLAGS in the Makefile.
var linked string

// String returns the release, such as v1.2.3; without one what the Go toolchain has recorded of the source, as go install
// does; and "(unknown)" where it has recorded nothing.
func String() string {
	if linked != "" {
		return linked
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(unknown)"
}
