// Package compose holds the tests of docker-compose.yml, the Dockerfile and docs/deploying.md.
//
// Tests that only read the files need no engine. The others are built with the tag compose and need a Docker engine on this
// Linux machine (they connect to its containers' addresses), with Compose v2 or docker-compose 1.29:
//
//	go test -tags compose -count 1 -v -timeout 25m ./e2e/compose
//
// GO_IMAGE, BASE_IMAGE, REDIS_IMAGE, MONGO_IMAGE, PROMETHEUS_IMAGE and GRAFANA_IMAGE name other images than the usual ones.
// Without an engine the test is skipped, or fails if COMPOSE_TEST_REQUIRED is set. Without Grafana's image it says that
// Grafana was not run.
package compose
