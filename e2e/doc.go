// Package e2e holds the tests of the system as it is deployed: they build the binaries, run them as processes against
// a real Redis and a server that speaks MongoDB's protocol, and look at what an operator sees: exit statuses, logs, the
// HTTP API, the dashboard's data, and the users.
//
// What can be shown without processes is tested in the package that does it. What becomes of a run whose worker is
// killed takes asynq up to 150 s to notice, and sentinels, clusters and TLS need servers of their own, so their tests are
// built with the tag slow only: `make check`. The one that has Prometheus ask the system what deploy/prometheus and deploy/grafana
// ask has the tag observability.
package e2e
