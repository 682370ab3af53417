// Package grafana holds the check of deploy/grafana.
//
// There is no Grafana where the tests run. So the check uses the Go types that Grafana publishes for its dashboards, and
// finds all that Grafana would not understand. It does not show how the dashboard looks. e2e/observability_test.go checks
// that its queries have answers. It is in this module because the product does not need those types.
package grafana
