# All that a developer runs. `make` alone lists the targets.

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
# Whatever is built here, tests too, has the build tags of the Dockerfile. nomsgpack leaves out of gin an encoding that no endpoint uses: 6 MB.
TAGS    := nomsgpack
export GOFLAGS := $(shell $(GO) env GOFLAGS) -tags=$(TAGS)
LDFLAGS := -s -w -X github.com/codex-api/codex-jobs/internal/version.linked=$(VERSION)
# The programs of all modules are compiled with the flags of the Dockerfile, so that no package is compiled twice.
COMPILE := CGO_ENABLED=0 $(GO) build -trimpath
# Of FerretDB's stores devstack uses SQLite only, and does without PostgreSQL. A strip makes linking faster.
DEVSTACK := -ldflags '-s -w' -tags $(TAGS),ferretdb_no_postgresql

# The linters, and the tools that check deploy/kubernetes, are pinned here, and built from their modules outside of the
# product's go.mod.
GOLANGCI_LINT := bin/golangci-lint-v2.15.0
ACTIONLINT := bin/actionlint-v1.7.12
# Not the newest: 5.8.3 needs Go 1.27.
KUSTOMIZE := bin/kustomize-v5.8.2
KUBECONFORM := bin/kubeconform-v0.8.0
APIDIFF := bin/apidiff-v0.0.0-20261113113407-e3970619a1a4
CYCLONEDX := bin/cyclonedx-gomod-v1.10.0

# Flags of devstack for the tests, such as --require-redis-server.
DEVSTACK_FLAGS ?=
# Flags of go test, such as -run TestTrigger.
TEST_FLAGS ?=
# The race detector needs cgo, and so a C compiler.
RACE := $(shell [ "$$($(GO) env CGO_ENABLED)" = 1 ] && command -v $$($(GO) env CC) >/dev/null && echo -race)

# Runs a test command, and lists at its end what has failed.
TESTED := sh $(CURDIR)/devstack/tested.sh

# Flags of the benchmarks and of chaos, such as --json or --for 10m; see make bench ARGS=--help and make chaos ARGS=--help.
ARGS ?=

# Where make dist puts what it builds.
DIST ?= bin/dist

# Conditions of checks: the tool is there, or the check is required. The last lines of make check name the checks that were
# left out.
HAVE_REDIS := [ -n "$$REDIS_SERVER_REQUIRED" ] || command -v redis-server >/dev/null
HAVE_ENGINE := [ -n "$$COMPOSE_TEST_REQUIRED" ] || docker info >/dev/null 2>&1
HAVE_CHROMIUM := [ -n "$$BROWSER_TEST_REQUIRED" ] || { command -v chromium && command -v npm; } >/dev/null
HAVE_PROMETHEUS := [ -n "$$PROMETHEUS_TEST_REQUIRED" ] || { command -v prometheus && command -v promtool; } >/dev/null
HAVE_NODE := [ -n "$$CLIENTS_TEST_REQUIRED" ] || { command -v node && command -v npm; } >/dev/null

.PHONY: help run announce demo example try test check bench chaos lint exports build devstack dist clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: announce demo ## start the whole system with throwaway servers and demo users (PORT=5000 make run for another port)
	@# Demo users must not get into the environment's servers: devstack starts its own.
	@exec env $(patsubst %,-u %,$(filter REDIS_% MONGODB_% TLS_%,$(.VARIABLES))) bin/devstack -- bin/demo -bin bin

announce:
	@[ -x bin/demo ] || echo 'run: building the programs and the throwaway servers; the first time this takes some minutes, then seconds'

demo: # nothing but what `make run` needs
	@mkdir -p bin
	$(COMPILE) -ldflags '$(LDFLAGS)' -o bin/ ./cmd/api ./cmd/scheduler ./cmd/worker
	cd devstack && $(COMPILE) $(DEVSTACK) -o ../bin/ . ./demo

example: ## start the system of examples/directory likewise, with the directory that its users come from
	@mkdir -p bin/example
	cd devstack && $(COMPILE) $(DEVSTACK) -o ../bin/ . && $(COMPILE) $(DEVSTACK) -o ../bin/run-example ./example
	cd examples/directory && $(COMPILE) -ldflags '-s -w' -o ../../bin/example/ ./cmd/...
	@exec env $(patsubst %,-u %,$(filter REDIS_% MONGODB_% TLS_%,$(.VARIABLES))) bin/devstack -- bin/run-example -bin bin/example

try: build ## post a signed batch of made-up users to USER_SYNC_URL, as a run would, and show what would be written
	@bin/worker --try-endpoint user-sync $(ARGS)

test: devstack ## run the quick tests, on throwaway servers or those that the environment names
	@$(TESTED) bin/devstack $(DEVSTACK_FLAGS) -- $(GO) test $(RACE) $(TEST_FLAGS) ./...
	@$(TESTED) $(GO) -C devstack test $(RACE) $(TEST_FLAGS) ./...
	@$(TESTED) $(GO) -C examples/directory test $(RACE) $(TEST_FLAGS) ./...
	@# Once more, without the cache: the go command does not notice changes outside of the module.
	$(GO) -C devstack test -count 1 $(TEST_FLAGS) ./grafana
	@[ -n "$(RACE)" ] || echo 'test: WITHOUT the race detector, there is no C compiler'
	@$(HAVE_REDIS) || echo 'test: LEFT OUT the few tests that start a redis-server, which is not installed'

check: build devstack exports $(KUSTOMIZE) $(KUBECONFORM) $(CYCLONEDX) ## run the slow tests: processes and servers that are killed, chaos, whether a sync is much slower than it was, the Compose file on a Docker engine, the pages in a browser, clients that generators make of the API and an endpoint in TypeScript, the manifests for Kubernetes, the rules and queries for Prometheus, what a release consists of
	KUSTOMIZE=$(CURDIR)/$(KUSTOMIZE) KUBECONFORM=$(CURDIR)/$(KUBECONFORM) \
		$(GO) -C devstack test -tags $(TAGS),kubernetes -count 1 $(TEST_FLAGS) ./kubernetes
	$(GO) -C devstack test -tags $(TAGS),release -count 1 -timeout 20m $(TEST_FLAGS) ./release
	@if $(HAVE_PROMETHEUS); then (cd deploy/prometheus && promtool check config prometheus.yml && promtool test rules alerts_test.yml) && \
		$(TESTED) bin/devstack $(DEVSTACK_FLAGS) -- $(GO) test $(RACE) -tags $(TAGS),observability -run Observability -count 1 $(TEST_FLAGS) ./e2e; fi
	@# Most of them wait for leases to expire: four at a time do not keep two processors busy.
	@$(TESTED) bin/devstack $(DEVSTACK_FLAGS) -- $(GO) test $(RACE) -tags $(TAGS),slow -run Slow -parallel 4 -timeout 20m $(TEST_FLAGS) ./e2e ./internal/...
	@if $(HAVE_REDIS); then bin/devstack $(DEVSTACK_FLAGS) -- bin/chaos -bin bin --for 2m --seed 7; fi
	@if $(HAVE_REDIS); then bin/devstack --measuring $(DEVSTACK_FLAGS) -- bin/bench -bin bin -check; fi
	@if $(HAVE_ENGINE); then $(TESTED) $(GO) test -tags $(TAGS),compose -count 1 -v -timeout 25m $(TEST_FLAGS) ./e2e/compose; fi
	@if $(HAVE_CHROMIUM); then \
		bin/devstack $(DEVSTACK_FLAGS) -- $(GO) -C devstack test $(RACE) -tags $(TAGS),browser -count 1 $(TEST_FLAGS) ./browser; fi
	@if $(HAVE_NODE); then $(TESTED) bin/devstack $(DEVSTACK_FLAGS) -- $(GO) -C devstack test -tags $(TAGS),clients -count 1 $(TEST_FLAGS) ./clients; fi
	@$(HAVE_REDIS) || echo 'chaos and the check of speed: LEFT OUT, redis-server is not installed'
	@$(HAVE_ENGINE) || echo 'compose: LEFT OUT, no Docker engine answers'
	@$(HAVE_CHROMIUM) || echo 'browser: LEFT OUT, there is no chromium, or no npm'
	@$(HAVE_PROMETHEUS) || echo 'observability: LEFT OUT, there is no prometheus, or no promtool'
	@$(HAVE_NODE) || echo 'clients: LEFT OUT, there is no node, or no npm'

bench: build devstack ## measure the whole system (ARGS=--help lists what can be measured)
	@bin/devstack $(if $(EMBEDDED),,--measuring) -- bin/bench -bin bin $(ARGS)

chaos: build devstack ## break the whole system at random, and check its promises (ARGS=--help says more)
	@bin/devstack -- bin/chaos -bin bin $(ARGS)

lint: $(GOLANGCI_LINT) $(ACTIONLINT) ## look for mistakes and bad style
	$(GOLANGCI_LINT) run
	cd devstack && ../$(GOLANGCI_LINT) run --config ../.golangci.yml
	cd examples/directory && ../../$(GOLANGCI_LINT) run --config ../../.golangci.yml
	$(ACTIONLINT) -shellcheck= -pyflakes= .github/workflows/*.yml

exports: $(APIDIFF) ## say what has changed in what pkg exports since the last tag, and fail if that breaks a team's code
	@sh devstack/exports.sh $(CURDIR)/$(APIDIFF)

build: ## build the three programs and codexctl into bin/
	@mkdir -p bin
	$(COMPILE) -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

devstack: ## build the throwaway servers, the demo, the benchmarks and chaos into bin/
	@mkdir -p bin
	cd devstack && $(COMPILE) $(DEVSTACK) -o ../bin/ . ./demo ./bench ./bench/slowworker ./chaos

dist: $(CYCLONEDX) ## build the archives of a release, for amd64 and arm64, and their checksums into bin/dist/
	rm -rf $(DIST)
	@mkdir -p $(DIST)
	@# Beside each program is its bill of materials. Its maker looks for our own module, too, and warns where that is not published.
	set -e; for arch in amd64 arm64; do \
		name=codex-jobs_$(VERSION)_linux_$$arch; dir=$(DIST)/$$name; \
		GOOS=linux GOARCH=$$arch $(COMPILE) -ldflags '$(LDFLAGS)' -o $$dir/ ./cmd/...; \
		for program in $$dir/*; do \
			$(CYCLONEDX) bin -json -std -licenses -version $(VERSION) -output $$program.cdx.json $$program; \
		done; \
		cp LICENSE .env.example $$dir; \
		tar -C $(DIST) --sort=name --owner=0 --group=0 --numeric-owner --mtime="$$(git log -1 --format=%cI)" -czf $$dir.tar.gz $$name; \
		rm -r $$dir; \
	done
	cd $(DIST) && sha256sum *.tar.gz >SHA256SUMS

clean: ## remove what was built
	rm -rf bin

$(GOLANGCI_LINT): package := github.com/golangci/golangci-lint/v2/cmd/golangci-lint
$(ACTIONLINT): package := github.com/rhysd/actionlint/cmd/actionlint
$(KUSTOMIZE): package := sigs.k8s.io/kustomize/kustomize/v5
$(KUBECONFORM): package := github.com/yannh/kubeconform/cmd/kubeconform
$(APIDIFF): package := golang.org/x/exp/cmd/apidiff
$(CYCLONEDX): package := github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod
$(GOLANGCI_LINT) $(ACTIONLINT) $(KUSTOMIZE) $(KUBECONFORM) $(APIDIFF) $(CYCLONEDX):
	@mkdir -p bin
	GOBIN=$(CURDIR)/$@.new $(GO) install $(package)@$(lastword $(subst -v, v,$@))
	mv $@.new/* $@ && rmdir $@.new
