//go:build !race

package e2e_test

// raceFlags build the binaries as the tests themselves are built.
var raceFlags []string
