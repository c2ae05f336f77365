# Everything this project does, from a fresh machine with Go on it. `make help` lists it.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

GO ?= go
TOOL := $(GO) tool -modfile=tools/go.mod
PACKAGES := ./...
# Everything that runs without root, in seconds.
UNIT := $(shell $(GO) list ./... 2>/dev/null | grep -v '/e2e')

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build nix-builders into bin/
	$(GO) build -trimpath -o bin/ ./cmd/nix-builders

.PHONY: generate
generate: ## generate the API client from openapi.yaml
	cd internal/apiclient && $(GO) tool -modfile=../../tools/go.mod oapi-codegen -config oapi-codegen.yaml ../../openapi.yaml

.PHONY: prepare
prepare: ## install and build what the lab needs (apt, a Debian image with Nix, tailscaled)
	$(GO) run ./e2e/lab prepare

.PHONY: demo
demo: prepare ## run a coordinator and three builders on real hosts of this machine, build, stop
	$(GO) run ./e2e/demo

.PHONY: test
test: lint unit cross generated e2e ## run every check and test

.PHONY: unit
unit: ## run the tests that need neither root nor the lab
	$(GO) test -race $(UNIT)

.PHONY: e2e
e2e: prepare ## run the tests on real hosts (root, Linux)
	$(GO) test -race -timeout 30m ./e2e/...

.PHONY: lint
lint: ## gofmt, go vet, staticcheck, shellcheck, tidy module files
	@unformatted=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go')); \
	  test -z "$$unformatted" || { echo "gofmt these:"; echo "$$unformatted"; exit 1; }
	$(GO) vet $(PACKAGES)
	$(TOOL) staticcheck $(PACKAGES)
	$(GO) mod tidy -diff
	$(GO) mod verify

.PHONY: cross
cross: ## compile for every platform that runners have
	@for target in linux/amd64 linux/arm64 darwin/amd64 darwin/arm64; do \
	  echo "build $$target"; \
	  GOOS=$${target%/*} GOARCH=$${target#*/} CGO_ENABLED=0 $(GO) build -o /dev/null ./cmd/nix-builders; \
	done
	GOOS=darwin $(GO) vet ./cmd/... ./coordinator/... ./httpapi/... ./builder/... ./internal/...

.PHONY: generated
generated: generate ## check that generated code is up to date
	git diff --exit-code -- internal/apiclient

.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME (default 20s) each
	./scripts/fuzz.sh "$${FUZZTIME:-20s}"

.PHONY: bench
bench: prepare ## measure stop, gathering, idle builders, and the peer's way beside ours
	$(GO) run ./e2e/bench

.PHONY: clean
clean: ## remove what was built, and labs that were left behind
	rm -rf bin dist
	$(GO) run ./e2e/lab down --all
