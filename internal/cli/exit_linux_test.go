// Only Linux can simulate a full disk.

package cli_test

import (
	"os"
	"strings"
	"testing"
)

func TestFullDisk(t *testing.T) {
	t.Parallel()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	f := newSystem(t)
	cmd, _, errOut := command(t, nil, "status", "--server", f.URL)
	cmd.Stdout = full
	if status := exitOf(t, cmd.Run()); status != 1 || !strings.Contains(errOut.String(), "codexctl: printing: ") {
		t.Errorf("the exit status is %d, on stderr %q", status, errOut)
	}
}
