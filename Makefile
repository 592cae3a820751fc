# The front door. `make help` prints what there is.

SHELL := /bin/bash
.DEFAULT_GOAL := help

# Build products live outside the clone, so that a fresh clone builds warm and RocksDB is compiled once.
KONTIKI_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/kontiki
export KONTIKI_CACHE
export CARGO_TARGET_DIR ?= $(KONTIKI_CACHE)/target
ROCKSDB_VERSION := $(shell sed -n '/^name = "librocksdb-sys"/{n;s/version = "\(.*\)"/\1/p}' Cargo.lock 2>/dev/null)
export ROCKSDB_LIB_DIR ?= $(KONTIKI_CACHE)/rocksdb-$(ROCKSDB_VERSION)
export ROCKSDB_STATIC := 1
BIN := $(CARGO_TARGET_DIR)/release/kontiki

.PHONY: help
help: ## Prints the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

.PHONY: up
up: build ## Builds, starts a node on this machine, deploys the sample and prints its answer
	tests/scripts/up $(BIN)

.PHONY: down
down: ## Stops the node and removes every process, mount, link, rule and namespace that it made
	tests/scripts/down $(BIN)

.PHONY: build
build: setup-build ## Builds the program in release mode
	cargo build --release --locked -p kontiki

.PHONY: test
test: setup-test ## Installs what is needed and runs all tests
	cargo nextest run --locked --workspace --no-fail-fast

.PHONY: unit
unit: setup-build ## Runs the tests that need no cluster
	cargo nextest run --locked --workspace --exclude kontiki-tests

.PHONY: lint
lint: setup-build ## Format, clippy, tiers, file sizes, and advisories where cargo-deny is there
	cargo fmt --all --check
	tests/scripts/tiers
	cargo clippy --locked --workspace --all-targets --all-features -- -D warnings
	@if command -v cargo-deny >/dev/null; then cargo deny check; else echo "LEFT OUT: cargo-deny is not installed (cargo install cargo-deny)"; fi

.PHONY: bench
bench: build setup-test ## Measures speed, memory and start-up, and prints them with the machine's load
	cargo build --release --locked -p kontiki-tests --bin bench
	$(CARGO_TARGET_DIR)/release/bench --kontiki $(BIN)

.PHONY: apicheck
apicheck: build ## Replays upstream's recorded answers: make apicheck RECORDINGS=DIR [ONLY='kind.core/*']
	tests/scripts/apicheck $(BIN) "$(RECORDINGS)" "$(ONLY)"

.PHONY: setup-build
setup-build:
	@tests/scripts/setup build
	@tests/scripts/rocksdb

.PHONY: setup-test
setup-test: setup-build
	@tests/scripts/setup test
	@echo "sample image: $$(tests/scripts/web-image)"
