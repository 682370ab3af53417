package version

import "testing"

func TestString(t *testing.T) {
	if String() == "" {
		t.Error("without a release from the linker there is no version")
	}
	defer func(was string) { linked = was }(linked)
	if linked = "v1.2.3"; String() != "v1.2.3" {
		t.Errorf("the version is %q, not the one from the linker", String())
	}
}
