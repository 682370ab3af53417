// Package browser holds the test that looks at the product as people do: with a browser.
//
// It exists because the dashboard is somebody else's program, of which the other tests see no more than that it is
// served: whether it shows our runs, and whether its buttons work on our queues, only a browser tells. It runs the
// real programs on devstack's servers, drives Chromium, and makes the pictures of the README. It is in this module
// because what drives Chromium is nothing that the product needs; and no replacement for the tests of the API.
//
// With SCREENSHOTS the pictures are written into that folder of the repository:
//
//	make build devstack
//	SCREENSHOTS=docs/images bin/devstack -- go -C devstack test -tags browser -count 1 ./browser
package browser
