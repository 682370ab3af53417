// Package browser tests the product's pages in a real browser.
//
// The dashboard is asynqmon, which runs in the browser: only a browser can tell whether it shows our runs, and whether its
// buttons work on our queues. The test runs the real programs on devstack's servers and drives Chromium. It does not replace
// the tests of the API. It is in this module because the product does not need the driver of Chromium.
//
// TestConsole is a person's way through the console: each button, a run from 0 to 100, and what breaks meanwhile. It checks each view
// with axe-core, which npm installs into bin.
//
// With SCREENSHOTS it writes the pictures of the documentation into that folder of the repository:
//
//	make build devstack
//	SCREENSHOTS=docs/images bin/devstack -- go -C devstack test -tags browser -count 1 ./browser
package browser
