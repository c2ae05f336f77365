# Everything this project does, from a fresh machine with Go on it. `make help` lists it.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

GO ?= go
TOOL := $(GO) tool -modfile=tools/go.mod
PACKAGES := ./...
# What needs neither root nor the lab, and compiles no release.
UNIT = $$($(GO) list ./... | grep -v -e /e2e$$ -e /e2e/testbed -e /e2e/lab -e /e2e/image -e /e2e/act$$ -e nix-builds/release$$)
HAVE_ROOT := [ "$$(uname)" = Linux ] && { [ "$$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }
E2E := ./e2e ./e2e/testbed ./e2e/act ./e2e/lab ./e2e/image
# The lab needs root. Whoever is not root and has sudo gets it from there; whoever has
# neither is told what is skipped.
ROOT := $(shell [ "$$(id -u)" = 0 ] || ! sudo -n true 2>/dev/null || echo sudo env "PATH=$$PATH" "CI=$${CI:-}")

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build the programs into bin/; CI builds them for every platform
	$(GO) build -trimpath -o bin/ ./cmd/...

.PHONY: generate
generate: ## generate the API client from openapi.yaml; CI runs it through generated
	cd internal/apiclient && $(GO) tool -modfile=../../tools/go.mod oapi-codegen -config oapi-codegen.yaml ../../openapi.yaml

.PHONY: prepare
prepare: ## install and build what the lab needs (apt, a Debian image with Nix, tailscaled)
	$(ROOT) $(GO) run ./e2e/lab prepare

.PHONY: demo
demo: prepare ## run a coordinator and three builders on real hosts of this machine, build, stop
	$(ROOT) $(GO) run ./e2e/demo

.PHONY: test
test: lint unit cross generated release-test e2e ## run every check and test, and the demo

.PHONY: unit
unit: post ## run the tests that need neither root nor the lab
	$(GO) test -race $(UNIT)

.PHONY: release-test
release-test: release-snapshot ## test install.sh, and that releases are the same bytes wherever they are built
	$(GO) test -race -timeout 20m ./release

.PHONY: post
post: ## test the action's teardown with the test runner of node; CI runs it through unit
	@if ! command -v node >/dev/null && $(HAVE_ROOT); then $(MAKE) prepare; fi
	@if command -v node >/dev/null; then node --test post/post.test.js; \
	  elif [ "$${CI:-}" = true ]; then echo "node is missing"; exit 1; \
	  else echo "post: skipped, there is no node"; fi

# Package after package: two labs at once make a small machine slow, and waits long.
.PHONY: e2e
e2e: ## run the tests on real hosts, and the demo (Linux and root; else they say that they are skipped)
	if $(HAVE_ROOT); then $(MAKE) prepare; fi
	$(ROOT) $(GO) test -race -run '^$$' $(E2E) >/dev/null # builds them, side by side
	$(ROOT) $(GO) test -race -p 1 -parallel 4 -timeout 30m $(E2E) # most of them wait
	if $(HAVE_ROOT); then $(MAKE) demo; else echo "demo: skipped, it needs Linux and root"; fi

# What goes wrong in the random part depends on SEED alone, which the report names.
SEED ?= $(shell date +%s)
FOR ?= 5m
FROM ?= 0
FAULTS := ^Test(Faults|Suspend|Clock|HalfOpen|Links|Abuse|Drain|Stop|Signals|ServerDies|KillEverything|UnevenBuilders)
.PHONY: chaos
chaos: prepare ## run every story of faults, then a random mix of them for FOR=5m by SEED (FROM=step); CI runs a bounded part through e2e
	$(ROOT) $(GO) test -race -timeout 1h -run '$(FAULTS)' ./e2e -chaos
	$(MAKE) mix

.PHONY: mix
mix: ## the random mix of chaos alone; CI runs a bounded part of it through e2e
	$(ROOT) $(GO) test -race -timeout 6h -run '^TestChaos$$' -v ./e2e -seed "$(SEED)" -for "$(FOR)" -from "$(FROM)"

.PHONY: lint
lint: shellcheck ## gofmt, go vet, staticcheck, shellcheck, actionlint, tidy module files
	@unformatted=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go')); \
	  test -z "$$unformatted" || { echo "gofmt these:"; echo "$$unformatted"; exit 1; }
	$(GO) vet $(PACKAGES)
	$(TOOL) staticcheck $(PACKAGES)
	$(TOOL) actionlint .github/workflows/*.yml examples/*.yml
	$(GO) mod tidy -diff
	$(GO) mod verify

.PHONY: shellcheck
shellcheck: ## check every shell script (installs shellcheck with apt where it is missing)
	@if ! command -v shellcheck >/dev/null && $(HAVE_ROOT); then \
	  echo "installing shellcheck"; \
	  root=; [ "$$(id -u)" = 0 ] || root=sudo; \
	  $$root apt-get install -y --no-install-recommends shellcheck >/dev/null 2>&1 || \
	  { $$root apt-get update -qq && $$root apt-get install -y --no-install-recommends shellcheck >/dev/null; }; fi
	@if command -v shellcheck >/dev/null; then shellcheck .ci/run $$(git ls-files '*.sh'); \
	  elif [ "$${CI:-}" = true ]; then echo "shellcheck is missing"; exit 1; \
	  else echo "shellcheck: skipped, it is not installed and there is no root to install it"; fi

.PHONY: cross
cross: ## compile for every platform that runners have
	@for target in linux/amd64 linux/arm64 darwin/amd64 darwin/arm64; do \
	  echo "build $$target"; \
	  GOOS=$${target%/*} GOARCH=$${target#*/} CGO_ENABLED=0 $(GO) build ./cmd/...; \
	done
	GOOS=darwin $(GO) vet ./cmd/... ./coordinator/... ./httpapi/... ./builder/... ./internal/...

.PHONY: generated
generated: generate ## check that generated code is up to date
	git diff --exit-code -- internal/apiclient

# Another version of Go would make other bytes.
RELEASE := GOTOOLCHAIN=$$(awk '$$1 == "toolchain" { print $$2 }' go.mod) $(GO) run ./release

.PHONY: release-snapshot
release-snapshot: ## the dry run of a release: every platform, into dist/
	rm -rf dist
	$(RELEASE) -version v0.0.0-snapshot -o dist

.PHONY: reproducible
reproducible: ## build a release of HEAD in two clones and compare; not in CI, which compares one platform
	@tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; \
	for i in 1 2; do \
	  git clone -q . "$$tmp/clone-$$i"; \
	  (cd "$$tmp/clone-$$i" && $(RELEASE) -version v0.0.0-snapshot -o "$$tmp/made-$$i" >/dev/null); \
	done; \
	diff -r "$$tmp/made-1" "$$tmp/made-2"; \
	cat "$$tmp/made-1/checksums.txt"

.PHONY: release
release: ## build the release VERSION=v1.2.3 and write its checksums; not in CI, it is for who cuts one (docs/releasing.md)
	rm -rf dist
	$(RELEASE) -version "$(VERSION)" -o dist -write

.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME (default 20s) each; not in CI, it takes minutes
	./scripts/fuzz.sh "$${FUZZTIME:-20s}"

.PHONY: bench
bench: prepare ## measure stop, gathering, idle builders, and the peer's way beside ours; not in CI, it wants a quiet machine
	$(ROOT) $(GO) run ./e2e/bench

.PHONY: bench-nix
bench-nix: prepare ## measure builds as Nix does them by itself and as it does them with us, on both versions; not in CI, it wants a quiet machine for hours
	NIX_BUILDERS_LAB_SUITE=sid $(ROOT) $(GO) run ./e2e/lab prepare
	$(ROOT) $(GO) run ./e2e/benchnix

.PHONY: clean
clean: ## remove what was built, and a lab that was left behind; CI starts clean
	rm -rf bin dist
	$(ROOT) $(GO) run ./e2e/lab down
