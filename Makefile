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

.PHONY: help run test check lint build devstack clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: build devstack ## start the whole system with throwaway servers and demo users (PORT=5000 make run for another port)
	@exec bin/devstack -- bin/demo -bin bin

test: devstack ## run the quick tests, against throwaway servers or those that the environment names
	bin/devstack $(DEVSTACK_FLAGS) -- $(GO) test -race $(TEST_FLAGS) ./...
	cd devstack && $(GO) test -race $(TEST_FLAGS) ./...

check: devstack ## run the slow tests: what becomes of a run whose worker is killed
	bin/devstack $(DEVSTACK_FLAGS) -- $(GO) test -race -tags slow -run Slow $(TEST_FLAGS) ./e2e

lint: $(GOLANGCI_LINT) ## look for mistakes and departures from style
	$(GOLANGCI_LINT) run
	cd devstack && ../$(GOLANGCI_LINT) run --config ../.golangci.yml

build: ## build the deployables into bin/
	@mkdir -p bin
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

devstack: ## build the throwaway servers and the demo into bin/
	@mkdir -p bin
	cd devstack && $(GO) build -o ../bin/ . ./demo

clean: ## remove what was built
	rm -rf bin

$(GOLANGCI_LINT):
	@mkdir -p bin
	GOBIN=$(CURDIR)/bin/.lint $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
	mv bin/.lint/golangci-lint $@ && rmdir bin/.lint
