// Package e2e holds the tests of the system as it is deployed: they build the binaries, run them as processes against a real
// Redis and a server that speaks MongoDB's protocol, and check what an operator sees: exit statuses, logs, the HTTP API, the
// dashboard's data, and the users.
//
// Behaviour that needs no processes is tested in the package that has it. Tests that wait for the leases of a killed worker,
// and those of Sentinels, clusters and TLS, which need servers of their own, are built with the tag slow only: `make check`.
// The test that runs the queries of deploy/prometheus and deploy/grafana on a real Prometheus has the tag observability.
package e2e
