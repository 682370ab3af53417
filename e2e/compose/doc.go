// Package compose holds the tests of docker-compose.yml, the Dockerfile and docs/deploying.md.
//
// What can be read off the files is tested without an engine. The rest is built with the tag compose and needs a Docker
// engine on this Linux machine (the tests connect to its containers' addresses), with Compose v2 or docker-compose 1.29:
//
//	go test -tags compose -count 1 -v -timeout 25m ./e2e/compose
//
// GO_IMAGE, BASE_IMAGE, REDIS_IMAGE, MONGO_IMAGE, PROMETHEUS_IMAGE and GRAFANA_IMAGE name other images than the usual ones.
// Where no engine answers the test is skipped, or fails if COMPOSE_TEST_REQUIRED is set; where Grafana's image cannot be
// had it says that Grafana was not run.
package compose
