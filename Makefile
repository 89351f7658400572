# Every target is listed by `make help`; CONTRIBUTING.md says how long each takes.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
COMPARE := benches/compare/Cargo.toml
FUZZ := fuzz/Cargo.toml
HOST := x86_64-unknown-linux-gnu
# What the benchmarks are given: `make bench-compare ARGS="--quick --peers quick_cache,moka"`.
ARGS ?=
# The stress tests, whose names begin with `stress`: how many times the rounds of `make test`.
STRESS ?= 20
# `some TESTS`: fail where a filter matches no test, instead of passing without having tested anything.
some = $(1) --list | grep -c ': test$$' >/dev/null || { echo 'no test matches: $(1)' >&2; exit 1; }
LOOM_TEST := $(CARGO) test --release --features async --lib loom_ --
STRESS_TEST := $(CARGO) test --release --features async --test stress --
STRESS_CROSSBEAM := $(CARGO) test --release --features async,crossbeam --test stress --
STRESS_ASAN := cargo +nightly test --release --features async --target $(HOST) --test stress --
LOOM_DEEP_PREEMPTIONS ?= 3
# How long each fuzz target runs.
SECONDS ?= 60

.PHONY: help build test fmt-check clippy test-default test-crossbeam doc test-loom demo examples bench bench-compare bench-wheel \
        bench-snapshot bench-time instructions heap loom stress asan fuzz fmt tools clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## Build the crate, optimised
	$(CARGO) build --release --workspace

# One after another, cheapest first: `make -j` would only have them wait for the same build lock.
test: ## All that must pass: format, clippy, tests (both reclaimers), documentation, bounded loom models
	$(MAKE) --no-print-directory fmt-check
	$(MAKE) --no-print-directory clippy
	$(MAKE) --no-print-directory test-default
	$(MAKE) --no-print-directory test-crossbeam
	$(MAKE) --no-print-directory doc
	$(MAKE) --no-print-directory test-loom

fmt-check: ## The format of every source file
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path $(COMPARE) --check
	$(CARGO) fmt --manifest-path $(FUZZ) --check

clippy: ## Lints, as errors
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) clippy --workspace --all-targets --features async,crossbeam -- -D warnings

test-default: ## The tests, the feature async included
	$(CARGO) test --workspace --features async

test-crossbeam: ## The tests, on crossbeam-epoch
	$(CARGO) test --features async,crossbeam

doc: ## The documentation, without a warning
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --features async

# The environment of the loom targets and of asan; a target directory each, so that they undo no other build.
test-loom loom: export CARGO_TARGET_DIR = target/loom
test-loom loom: export RUSTFLAGS = --cfg loom
test-loom: export LOOM_MAX_PREEMPTIONS = 2
loom: export LOOM_MAX_PREEMPTIONS = $(LOOM_DEEP_PREEMPTIONS)
asan: export CARGO_TARGET_DIR = target/asan
asan: export RUSTFLAGS = -Zsanitizer=address
stress asan: export HOTSET_STRESS := $(STRESS)

test-loom: ## The loom models, two preemptions
	$(call some,$(LOOM_TEST))
	$(LOOM_TEST)

# A trace to restart on; a workload of its own where there is none.
TRACE ?= $(wildcard ../shared/traces/arc_oltp.u32.gz)

demo: ## Replay the example trace; kill a process and restart it warm
	$(CARGO) run --release --example replay
	$(CARGO) run --release --example warm_restart -- $(TRACE)

examples: ## Run the other example programs
	$(CARGO) run --release --example rate_limiter
	$(CARGO) run --release --example session_store
	$(CARGO) run --release --example stampede

bench: instructions heap bench-wheel bench-snapshot bench-compare ## Every figure: instructions, heap, timers, the snapshot, and side by side with quick_cache

bench-compare: ## hotset side by side with quick_cache (ARGS="--quick --peers quick_cache,moka")
	benches/compare.sh all $(ARGS)

bench-time: ## What a time to live costs, a hit through a loading call, and a herd its neighbours
	benches/compare.sh time $(ARGS)

bench-snapshot: ## What saving and loading costs, beside std::fs and an eager load
	$(CARGO) bench --bench snapshot

bench-wheel: ## What ten million timers cost
	$(CARGO) bench --bench wheel

instructions: ## Instructions per get and per evicting insert, by callgrind
	benches/instructions.sh

heap: ## Heap bytes per entry, empty and small caches
	benches/compare.sh heap $(ARGS)

loom: ## The loom models, deep (LOOM_DEEP_PREEMPTIONS=3)
	$(call some,$(LOOM_TEST))
	$(LOOM_TEST) --include-ignored --nocapture

stress: ## The stress tests, longer (STRESS=20 times the rounds), on both reclaimers
	$(call some,$(STRESS_TEST))
	$(STRESS_TEST) --nocapture
	$(STRESS_CROSSBEAM) --nocapture

asan: ## The stress tests under AddressSanitizer (a nightly compiler)
	$(call some,$(STRESS_ASAN))
	$(STRESS_ASAN) --nocapture

# Each target starts from what the runs before found; the seeds are written anew.
fuzz: ## Run every fuzz target (SECONDS=60 each; a nightly compiler)
	command -v cargo-fuzz >/dev/null || $(CARGO) install --locked cargo-fuzz
	$(CARGO) run --quiet --manifest-path fuzz/Cargo.toml --example seeds
	cd fuzz && for target in $$(cargo +nightly fuzz list); do \
		cargo +nightly fuzz run "$$target" -- -max_total_time=$(SECONDS) -max_len=8192; \
	done

fmt: ## Format every source file
	$(CARGO) fmt --all
	$(CARGO) fmt --manifest-path $(COMPARE)
	$(CARGO) fmt --manifest-path $(FUZZ)

tools: ## Install what the other targets need: valgrind, a nightly compiler, rustfmt, clippy
	command -v valgrind >/dev/null || { sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; $$sudo apt-get update -qq; $$sudo apt-get install -y -qq valgrind; }
	rustup component list --installed | grep -q '^clippy' || rustup component add clippy
	rustup component list --installed | grep -q '^rustfmt' || rustup component add rustfmt
	rustup toolchain list | grep -q '^nightly' || rustup toolchain install nightly --profile minimal

clean: ## Remove all build output
	$(CARGO) clean
	$(CARGO) clean --manifest-path $(COMPARE)
	$(CARGO) clean --manifest-path $(FUZZ)
