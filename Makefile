# Everything that a developer runs. `make` alone lists it.

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X github.com/codex-api/codex-jobs/internal/config.version=$(VERSION)

# The linter is built from its module, pinned here, outside of the product's go.mod.
GOLANGCI_LINT := bin/golangci-lint-v2.15.0

# Given to devstack before the tests, such as --require-redis-server.
DEVSTACK_FLAGS ?=
# Given to go test, such as -run TestTrigger.
TEST_FLAGS ?=
# The race detector needs cgo, and so a C compiler.
RACE := $(shell [ "$$($(GO) env CGO_ENABLED)" = 1 ] && command -v $$($(GO) env CC) >/dev/null && echo -race)

# Given to the benchmarks, such as --json; see make bench ARGS=--help.
ARGS ?=

.PHONY: help run test check bench lint build devstack clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: build devstack ## start the whole system with throwaway servers and demo users (PORT=5000 make run for another port)
	@exec env -u REDIS_HOST -u REDIS_PORT -u REDIS_PASSWORD -u REDIS_PASSWORD_FILE -u REDIS_DB \
		-u MONGODB_URI -u MONGODB_URI_FILE -u MONGODB_DATABASE bin/devstack -- bin/demo -bin bin

test: devstack ## run the quick tests, against throwaway servers or those that the environment names
	bin/devstack $(DEVSTACK_FLAGS) -- $(GO) test $(RACE) $(TEST_FLAGS) ./...
	cd devstack && $(GO) test $(RACE) $(TEST_FLAGS) ./...
	@[ -n "$(RACE)" ] || echo 'test: WITHOUT the race detector, there is no C compiler'

check: build devstack ## run the slow tests: a worker that is killed, the Compose file on a Docker engine, the pages in a browser
	bin/devstack $(DEVSTACK_FLAGS) -- $(GO) test $(RACE) -tags slow -run Slow $(TEST_FLAGS) ./e2e
	@if [ -n "$$COMPOSE_TEST_REQUIRED" ] || docker info >/dev/null 2>&1; then \
		$(GO) test -tags compose -count 1 -v -timeout 25m $(TEST_FLAGS) ./e2e/compose; \
	else \
		echo 'compose: LEFT OUT, no Docker engine answers'; \
	fi
	@if [ -n "$$BROWSER_TEST_REQUIRED" ] || command -v chromium >/dev/null; then \
		bin/devstack $(DEVSTACK_FLAGS) -- $(GO) -C devstack test $(RACE) -tags browser -count 1 $(TEST_FLAGS) ./browser; \
	else \
		echo 'browser: LEFT OUT, there is no chromium'; \
	fi

bench: build devstack ## measure the whole system (ARGS=--help lists what can be measured)
	@bin/devstack -- bin/bench -bin bin $(ARGS)

lint: $(GOLANGCI_LINT) ## look for mistakes and departures from style
	$(GOLANGCI_LINT) run
	cd devstack && ../$(GOLANGCI_LINT) run --config ../.golangci.yml

build: ## build the deployables into bin/
	@mkdir -p bin
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

devstack: ## build the throwaway servers, the demo and the benchmarks into bin/
	@mkdir -p bin
	cd devstack && $(GO) build -o ../bin/ . ./demo ./bench ./bench/slowworker

clean: ## remove what was built
	rm -rf bin

$(GOLANGCI_LINT):
	@mkdir -p bin
	GOBIN=$(CURDIR)/bin/.lint $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
	mv bin/.lint/golangci-lint $@ && rmdir bin/.lint
