// Package grafana holds the check of deploy/grafana.
//
// It exists because no Grafana can be had where the tests run: what Grafana would not understand is found with the types
// that it publishes for its dashboards instead. Whether the dashboard looks well this does not tell, and whether its
// queries have answers e2e/observability_test.go does. It is in this module because those types are nothing that the
// product needs.
package grafana
