# Every target is listed by `make help`; CONTRIBUTING.md has the time that each takes.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
COMPARE := benches/compare/Cargo.toml
PYTHON := bindings/python/Cargo.toml
FUZZ := fuzz/Cargo.toml
HOST := x86_64-unknown-linux-gnu
# What the benchmarks are given: `make bench-compare ARGS="--quick --peers quick_cache,moka"`.
ARGS ?=
# The stress tests, whose names begin with `stress`: how many times the rounds of `make test`.
STRESS ?= 20
# `some TESTS`: fails where a filter matches no test, instead of passing without a test.
some = $(1) --list | grep -c ': test$$' >/dev/null || { echo 'no test matches: $(1)' >&2; exit 1; }
# `need COMMAND,PACKAGE`: installs Debian's package where the command is missing.
need = command -v $(1) >/dev/null || { sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; $$sudo apt-get update -qq; $$sudo apt-get install -y -qq $(2); }
# `need_service COMMAND,PACKAGE,OPTIONS`: the same for a server, whose package would start it:
# policy-rc.d forbids that, and it is disabled. The options are those of apt-get.
need_service = PATH="$$PATH:/usr/sbin"; command -v $(1) >/dev/null || { sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	policy=/usr/sbin/policy-rc.d; \
	[ -e "$$policy" ] || { trap "$$sudo rm -f $$policy" EXIT; printf '\#!/bin/sh\nexit 101\n' | $$sudo tee "$$policy" >/dev/null; $$sudo chmod 755 "$$policy"; }; \
	$$sudo apt-get update -qq; $$sudo apt-get install -y -qq $(3) $(2); \
	! command -v systemctl >/dev/null || $$sudo systemctl disable --quiet $(2) 2>/dev/null || true; }
VALGRIND = $(call need,valgrind,valgrind)
LOOM_TEST := $(CARGO) test --release --features async,tiered --lib loom_ --
STRESS_TEST := $(CARGO) test --release --features async --test stress --
STRESS_CROSSBEAM := $(CARGO) test --release --features async,crossbeam --test stress --
# What `sanitize` runs: all that has threads, hostile callbacks or corrupt files.
SANITIZED := --features async,serde --test stress --test linearizability --test model --test expiry_model --test faults --test reentrancy \
             --test loads --test async_loads --test snapshot
STRESS_ASAN := cargo +nightly test --release --features async --target $(HOST) --test stress --
LOOM_DEEP_PREEMPTIONS ?= 3
# How long each fuzz target runs.
SECONDS ?= 60
# The seeds of `miri`, each of which is another order of threads.
SEEDS ?= 0..4
MIRI := cargo +nightly miri test
# The interpreters and targets of `wheels`, where they are given: PYTHONS="3.13 3.14t"
# TARGETS=x86_64-unknown-linux-gnu.
WHEELS = $(foreach name,PYTHONS TARGETS,$(if $(filter command line environment,$(origin $(name))),$(name)="$($(name))"))
# What `check-targets` checks, tests included.
TARGETS ?= i686-unknown-linux-gnu aarch64-unknown-linux-gnu armv7-unknown-linux-gnueabihf
# The systems that are not Linux, which it checks the wheel for, too.
DESKTOPS := aarch64-apple-darwin x86_64-apple-darwin x86_64-pc-windows-msvc
# The environment of `build-python` with the newest interpreter.
NEWEST_PYTHON = $$(ls -d target/python/3.*/bin/python | sort -V | tail -1)
# The recipes of metrics for Rust, a crate with dependencies of its own.
METRICS := examples/metrics
# Which part of the mutants `mutants` tries: K/N, every Nth from the Kth on.
SHARD ?= 0/100

.PHONY: help docs test-docs-screens test-quickstarts test-screens build test fmt-check clippy test-rules test-default test-crossbeam test-minimal test-msrv doc test-loom demo demo-advise demo-advise-programs bench-advise examples bench bench-cache bench-compare bench-wheel \
        bench-profile check-estimates bench-stats-file bench-threads bench-snapshot bench-time bench-zipf instructions heap loom stress asan fuzz fmt tools clean build-c header-c test-c test-c-valgrind asan-c \
        install uninstall test-c-install demo-c bench-c tools-c soak adversaries sanitize mutants build-python test-python bench-python instructions-python \
        test-freethreaded miri check-targets test-python-new test-peers test-adapters bench-adapters \
        release release-check test-release check-versions check-workflows artifacts checksums publish-crate publish-github tools-sbom test-portable \
        tools-redis tools-memcached test-memcached race-memcached bench-memcached tools-wrk tools-prometheus deb test-deb test-capi tools-capi test-metrics test-metrics-rust test-tier2 tools-hiredis test-tiered test-tiered-tls test-tiered-c test-tiered-c-memcached test-tiered-memcached test-tiered-python race-tier2 test-redis-clients bench-tier2 bench-tiered bench-tiered-c demo-tier2 demo-tier2-all demo-fleet test-tier2-sim \
        wheels check-wheels sdist test-artifacts check-packages licenses check-crate check-deny check-semver check-minimal-versions doc-docsrs tools-release tools-crate

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## Build the crate, optimized
	$(CARGO) build --release --workspace

# One after another, cheapest first: `make -j` would only have them wait for the same build lock.
TESTS := fmt-check check-versions test-rules clippy test-default test-crossbeam test-minimal test-c test-c-valgrind test-c-install test-python doc \
         test-loom
test: ## All that must pass: format, clippy, tests (both reclaimers, C, Python), documentation, bounded loom models (SKIP=test-loom)
	for target in $(filter-out $(SKIP),$(TESTS)); do $(MAKE) --no-print-directory $$target; done

fmt-check: ## The format of every source file
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path $(COMPARE) --check
	$(CARGO) fmt --manifest-path $(FUZZ) --check
	$(CARGO) fmt --manifest-path $(PYTHON) --check
	$(CARGO) fmt --manifest-path benches/c/rust/Cargo.toml --check
	$(CARGO) fmt --manifest-path $(METRICS)/Cargo.toml --check
	$(CARGO) fmt --manifest-path examples/tiered_tls/Cargo.toml --check

# Tests and examples without features are those of test-minimal.
clippy: ## Lints, as errors
	$(CARGO) clippy --workspace -- -D warnings
	$(CARGO) clippy --workspace --all-targets --features async,crossbeam,json,memcached,metrics,redis,serde -- -D warnings
	PYO3_BUILD_EXTENSION_MODULE=1 $(CARGO) clippy --manifest-path $(PYTHON) --target-dir target/python/clippy -- -D warnings

# They use std only: without cargo, the crates that other tests depend on need not be compiled.
test-rules: export CARGO_MANIFEST_DIR = $(CURDIR)
test-rules: ## The rules for texts and sources, in seconds: terms, links, lines, layers, workflows
	mkdir -p target/rules
	for name in docs tidy words workflows; do \
		rustc --edition 2024 --test -o target/rules/$$name tests/$$name.rs && target/rules/$$name --quiet || exit 1; \
	done

test-default: ## The tests, the features async, serde and tier2 included
	$(CARGO) test --workspace --features async,memcached,metrics,serde

# Unit tests that neither use a cache nor depend on a feature.
WITHOUT_CACHE := --skip policy:: --skip profile::

# Without default features the crate's only dependencies are two crates of pure Rust.
test-minimal: ## The library without default features, and each feature alone: dependencies, lints, tests
	test "$$($(CARGO) tree -p hotset --no-default-features --edges normal --prefix none | cut -d ' ' -f 1 | sort | xargs)" = "foldhash hashbrown hotset"
	for feature in async crossbeam huge-pages json memcached metrics redis serde snapshot stats-file tier2 tiered; do \
		$(CARGO) clippy -p hotset --no-default-features --features $$feature -- -D warnings || exit 1; \
	done
	$(CARGO) clippy -p hotset --all-targets --no-default-features -- -D warnings
	$(CARGO) test -p hotset --lib --test model --test loads --test refresh --test expiry --no-default-features -- $(WITHOUT_CACHE)

# The oldest compiler that is supported, as Cargo.toml declares it.
MSRV = $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml).0
test-msrv: export CARGO_TARGET_DIR = target/msrv
test-msrv: ## Check the crate, its tests and the C library with the oldest supported compiler (rustup installs it)
	rustup toolchain install $(MSRV) --profile minimal
	cargo +$(MSRV) check --workspace --all-targets --features async,metrics,serde,tier2
	cargo +$(MSRV) check --features async,crossbeam,metrics,serde,tier2
	cargo +$(MSRV) check --no-default-features
	cargo +$(MSRV) test --lib

build-c: ## Build the C library, optimized: libhotset.so and libhotset.a
	$(CARGO) build --release -p hotset-c

header-c: ## Write include/hotset.h anew from the sources
	HOTSET_WRITE_HEADER=1 $(CARGO) test -p hotset-c --test header

test-c: build-c ## The C library: header, symbols, every function, callbacks, threads, fork, memory
	bindings/c/tests/run.sh

test-c-valgrind: build-c ## The same under valgrind (installed if it is missing)
	$(VALGRIND)
	bindings/c/tests/run.sh valgrind

asan-c: build-c ## The same with AddressSanitizer in the tests, and every allocation of the library checked
	bindings/c/tests/run.sh asan

build-python: ## Build the Python wheel for each interpreter at hand, and install it into target/python/VERSION (PYTHONS="3.13 /a/python")
	bindings/python/build.sh

test-python: tools-redis tools-memcached build-python ## The Python wheel on each interpreter: CPython's own tests of lru_cache, pytest, documentation, examples, types
	bindings/python/test.sh

# Not in `test`: it builds an interpreter, unless it is given one.
test-freethreaded: ## The Python wheel and its tests on a free-threaded Python (FREETHREADED=/path/to/python3.13t, or else one is built)
	bindings/python/freethreaded.sh

# Not in `test`: it installs a Debian of the suite that has these interpreters, and needs root and
# the network.
test-python-new: ## The Python wheel and its tests on Debian's newest interpreters, in a chroot (INTERPRETERS="3.14 3.15")
	$(call need,debootstrap,debootstrap)
	bindings/python/newest.sh

# The servers are started by the tests themselves, on free ports.
tools-redis: ## Install redis-server, redis-sentinel and nginx (Debian), and valkey-server where Debian has it, for the second tier's tests and demo
	@$(call need_service,redis-server,redis-server)
	@$(call need_service,redis-sentinel,redis-sentinel)
	@$(call need_service,nginx,nginx)
	@command -v valkey-server >/dev/null || ! apt-cache show valkey-server >/dev/null 2>&1 || { $(call need_service,valkey-server,valkey-server); }

tools-memcached: ## Install memcached (Debian), without starting it, for the second tier's tests
	@$(call need_service,memcached,memcached)

# Without what it recommends: an exporter of the machine's figures, which would be another server.
tools-prometheus: ## Install prometheus and promtool (Debian), without starting it, for the tests of metrics
	@$(call need_service,promtool,prometheus,--no-install-recommends)

tools-wrk: ## Install wrk (Debian), which loads the fleet of demo-fleet
	@$(call need,wrk,wrk)

# Not in `test`, except for the part with one steady server: servers fail here, and the cost of an
# outage is measured.
test-tier2: tools-redis build-python ## The second tier with servers that fail, Sentinel, a cluster, gunicorn, and a race of processes, on the newest interpreter at hand
	$(NEWEST_PYTHON) -m pip install --quiet --disable-pip-version-check uvicorn==0.54.0 celery==5.7.0
	$(NEWEST_PYTHON) -m pytest -q -p no:cacheprovider bindings/python/tests/tier2

test-tiered: tools-redis ## The second tier in Rust with a redis-server, in several processes
	cargo test --features redis,json --test tiered --test tiered_topologies

test-tiered-tls: tools-redis ## The second tier in Rust with a redis-server that speaks TLS
	@$(call need,openssl,openssl)
	CARGO_TARGET_DIR=target/tiered-tls $(CARGO) clippy --locked --manifest-path examples/tiered_tls/Cargo.toml -- -D warnings
	CARGO_TARGET_DIR=target/tiered-tls $(CARGO) build --locked --manifest-path examples/tiered_tls/Cargo.toml
	examples/tiered_tls/test.sh target/tiered-tls/debug/hotset-tiered-tls-example

tools-hiredis: ## Install hiredis (Debian), for the second tier in C
	@pkg-config --exists hiredis 2>/dev/null || { $(call need,libhiredis-dev-is-missing,libhiredis-dev pkg-config); }

# The services of examples in Rust and in C.
define TIERED_C
$(CARGO) build --features redis --example tiered
mkdir -p target/tiered-c
$(CC) -std=gnu99 -O2 -g -Wall -Wextra -Werror -Iinclude examples/c/tiered.c examples/c/tier2_redis.c examples/c/tier2_memcached.c \
    -o target/tiered-c/tiered target/release/libhotset.a $$(pkg-config --cflags --libs hiredis) -lpthread -lm -ldl
endef
test-tiered-c: tools-redis tools-memcached tools-hiredis build-c build-python ## The second tier in C, by hiredis, with services in Rust and Python on one redis-server
	$(TIERED_C)
	$(NEWEST_PYTHON) bindings/c/tests/services.py target/tiered-c/tiered target/debug/examples/tiered

test-tiered-memcached: tools-memcached build-python ## The second tier in Rust with three memcached servers that fail, in several processes, and values that Rust and Python write for each other
	HOTSET_PYTHON=$(NEWEST_PYTHON) cargo test --features json,memcached --test tiered_memcached -- --include-ignored

test-tiered-c-memcached: tools-memcached build-c ## The example of a transport in C with three memcached servers that fail, eight processes, and servers that send nonsense, then under AddressSanitizer
	bindings/c/tests/tiered_memcached.sh

test-tiered-python: tools-redis build-python ## Values and keys of the second tier that Rust and Python write and read, on the newest interpreter at hand
	cargo build --features redis --example tiered
	$(NEWEST_PYTHON) bindings/python/tests/rust_parity.py target/debug/examples/tiered
	HOTSET_PYTHON=$(NEWEST_PYTHON) cargo test --features json,redis --test tiered_python

RACE_SECONDS ?= 600
race-tier2: tools-redis build-python ## Processes race for the same keys while servers and networks fail, every read checked (RACE_SECONDS=600, ARGS="--quiet")
	$(NEWEST_PYTHON) bindings/python/tests/tier2/race.py --seconds $(RACE_SECONDS) $(ARGS)

# Not in `test`, except for the part with one steady server.
test-memcached: tools-redis tools-memcached build-python ## The second tier on memcached servers that fail, a herd and a race of processes, on the newest interpreter at hand
	$(NEWEST_PYTHON) -m pip install --quiet --disable-pip-version-check pymemcache==4.0.0
	$(NEWEST_PYTHON) -m pytest -q -p no:cacheprovider bindings/python/tests/tier2/test_tier2_memcached.py bindings/python/tests/tier2/test_tier2_memcached_faults.py

race-memcached: tools-memcached build-python ## race-tier2 on three memcached servers, for two minutes (RACE_SECONDS=60)
	$(NEWEST_PYTHON) bindings/python/tests/tier2/race.py --memcached --seconds $(if $(filter file,$(origin RACE_SECONDS)),120,$(RACE_SECONDS)) $(ARGS)

bench-memcached: tools-memcached build-python ## A hit in the second tier on memcached beside pymemcache's get and json.loads
	$(NEWEST_PYTHON) -m pip install --quiet --disable-pip-version-check pymemcache==4.0.0
	$(NEWEST_PYTHON) bindings/python/bench_memcached.py $(ARGS)

# Not in `test`: it installs older clients.
test-redis-clients: tools-redis build-python ## The tests of the second tier with redis-py 5, 6, 7 and valkey-py, on the newest interpreter at hand (CLIENTS="redis==5.0.0")
	bindings/python/clients.sh

bench-tier2: tools-redis build-python ## The second tier beside redis-py, its client-side cache, and GET and SET by hand (ARGS=--quick)
	$(NEWEST_PYTHON) bindings/python/bench_tier2.py $(ARGS)

bench-tiered-c: tools-redis tools-hiredis build-c ## A hit in the second tier in C beside hiredis' own GET (ARGS=rounds)
	mkdir -p target/tiered-c
	$(CC) -std=gnu99 -O2 -g -Wall -Wextra -Werror -Iinclude benches/c/tiered.c examples/c/tier2_redis.c \
	    -o target/tiered-c/bench target/release/libhotset.a $$(pkg-config --cflags --libs hiredis) -lpthread -lm -ldl
	benches/c/tiered.sh target/tiered-c/bench $(ARGS)

bench-tiered: tools-redis ## The second tier in Rust beside redis-rs, and what a stopped server costs (ARGS="hit in tier 2")
	$(CARGO) bench --features redis --bench tiered -- $(if $(ARGS),"$(ARGS)")

# Not in `test`: it installs a browser.
test-screens: build-python ## The dashboard in headless Chromium (Debian; installed if it is missing), light and dark, wide and narrow; pictures in target/screens (ARGS=--docs: those of the pages, too)
	$(call need,chromium,chromium)
	$(NEWEST_PYTHON) bindings/python/screens.py target/screens $(ARGS)

# Not in `test`: it fetches the suites of others.
test-peers: build-python ## The tests of cachetools and async-lru, unmodified, on hotset through adapters, on the newest interpreter at hand
	bindings/python/peers/run.sh

# Not in `test`: it fetches frameworks and their suites. CI runs it after that.
test-adapters: tools-redis tools-wrk build-python ## The adapters to Django, Flask, hishel and others: their tests, the frameworks' own suites on hotset, the demo of a fleet, types (ARGS="own django61")
	bindings/python/adapters/run.sh $(ARGS)

# Not in `test`: it installs prometheus, and fetches the packages that metrics are for.
test-metrics: tools-redis tools-prometheus build-python ## Metrics for Prometheus and OpenTelemetry: a Prometheus that scrapes gunicorn, uvicorn and Django, promtool, the dashboard, types, on the newest interpreter at hand
	bindings/python/metrics/run.sh $(ARGS)

bench-adapters: tools-redis build-python ## The adapters beside what the frameworks have built in (ARGS="--quick --job django"; `make test-adapters` first)
	target/adapters/newest/bin/python bindings/python/bench_adapters.py $(ARGS)

instructions-python: build-python ## Instructions per hit of the wheel (callgrind), on the newest interpreter at hand
	$(NEWEST_PYTHON) bindings/python/instructions.py

bench-python: build-python ## The Python wheel beside functools, dict and cachebox, on the newest interpreter at hand (ARGS="--quick --job hit")
	python=$$(ls -d target/python/3.*/bin/python | sort -V | tail -1); \
	"$$python" -m pip install --quiet --disable-pip-version-check cachebox; \
	"$$python" bindings/python/bench.py $(ARGS)

wheels: ## Build the wheels that are published: CPython 3.11 to 3.15 and 3.14t, glibc and musl, x86-64 and ARM64, into target/packages/wheels (PYTHONS="3.13 3.14t" TARGETS=x86_64-unknown-linux-gnu)
	env -u PYTHONS -u TARGETS $(WHEELS) packaging/wheels.sh

check-wheels: ## Check these wheels: metadata, contents, platform, size, components; use each on its interpreter, where that is here
	"$$(packaging/tools.sh)/python" packaging/check_wheels.py target/packages/wheels

sdist: ## Build the source distribution of the Python package, into target/packages/sdist
	packaging/sdist.sh

# Not in `test`: it compiles the wheel from the sdist for each interpreter, and runs its tests.
test-artifacts: ## Install the wheels and the sdist by pip in fresh folders, run the tests of the sdist, and check what pip prints without a compiler (PYTHONS="3.11 3.13 3.14 3.15" TESTS=3.13)
	$(if $(filter command line environment,$(origin PYTHONS)),PYTHONS="$(PYTHONS)") packaging/test_artifacts.sh

licenses: ## Write the licenses of others in the wheel and the C library anew, after their dependencies have changed
	python3 packaging/licenses.py --write

check-packages: ## What is published, quickly: the crate's files and quickstart; licenses; an sdist, a wheel built from it without optimization, its contents, metadata and use
	python3 packaging/licenses.py
	python3 packaging/check_crate.py
	packaging/quick.sh

check-crate: ## The crate's files, size and metadata, and the README's quickstart in a crate that depends on it
	python3 packaging/check_crate.py

check-deny: ## Licenses, sources and duplicates of what the crate and the wheel depend on (cargo-deny; ADVISORIES=1 for known faults)
	packaging/crate.sh deny

check-semver: ## The crate's API beside the last release (cargo-semver-checks; BASELINE=commit)
	packaging/crate.sh semver

check-minimal-versions: ## The crate with the oldest versions of its dependencies (a nightly compiler)
	packaging/crate.sh minimal

doc-docsrs: ## The crate's documentation as docs.rs builds it, without a warning (a nightly compiler)
	RUSTDOCFLAGS="--cfg docsrs -D warnings" CARGO_TARGET_DIR=target/docsrs cargo +nightly doc --package hotset --all-features --no-deps

# Each is compiled, which takes minutes.
tools-release: tools-crate
tools-crate: ## Install cargo-deny and cargo-semver-checks, which check the crate before a release
	command -v cargo-deny >/dev/null || $(CARGO) install --locked cargo-deny@0.20.2
	command -v cargo-semver-checks >/dev/null || $(CARGO) install --locked cargo-semver-checks@0.51.0

# The tests that retire entries, tables and waiters under load. What frees them is of no concern to
# the others, and some test hotset's own epochs.
CROSSBEAM_TESTS := $(addprefix --test ,alloc_failure async_loads edge_cases expiry_model faults linearizability loads model reentrancy regressions snapshot stress table_memory)
test-crossbeam: ## The tests, on crossbeam-epoch
	$(CARGO) test --features async,crossbeam --lib $(CROSSBEAM_TESTS) -- $(WITHOUT_CACHE) --skip prim:: --skip snapshot::codec:: --skip snapshot::format::

doc: ## The documentation, without a warning
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --features async,metrics,serde,tier2

# Not in `test`: it fetches Sphinx.
docs: doc ## The site of the documentation: every page, the APIs of Python, C and Rust, links checked, in target/docs/html
	docs/site/build.sh

# Not in `test`: it installs a browser.
test-docs-screens: docs ## The site in headless Chromium (Debian; installed if it is missing), light and dark, wide and narrow; pictures in target/docs/screens
	$(call need,chromium,chromium)
	target/docs/venv/bin/python docs/site/screens.py target/docs/html target/docs/screens $(ARGS)

test-quickstarts: docs build-c build-python ## What the site's front page prints, typed in a new environment, a new crate, and against a new installation of the C library
	$(call need,pkg-config,pkg-config)
	$(NEWEST_PYTHON) docs/site/quickstarts.py target/docs/html

# The environment of the loom targets and of asan; a target directory each, so that they undo no
# other build.
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

# `test-default` runs the same with few seeds.
SIM_SEEDS ?= 50000
SIM_DEVIATIONS ?= 2
test-tier2-sim: ## The simulation of the second tier: SIM_SEEDS=50000 random schedules of each kind, all with SIM_DEVIATIONS=2 deviations
	HOTSET_SIM_SEEDS=$(SIM_SEEDS) HOTSET_SIM_DEVIATIONS=$(SIM_DEVIATIONS) $(CARGO) test --release --features tier2 --lib tier2::sim -- --nocapture

# A trace to restart on; a workload of its own where there is none.
TRACES ?= ../shared/traces
TRACE ?= $(wildcard ../shared/traces/arc_oltp.u32.gz)

demo: ## Replay the example trace; kill a process and restart it warm
	$(CARGO) run --release --example replay
	$(CARGO) run --release --example warm_restart -- $(TRACE)

demo-tier2-all: tools-redis tools-hiredis build-c build-python ## Services in C, Rust and Python in front of one Redis that is killed, restarted, stopped and continues
	$(TIERED_C)
	$(NEWEST_PYTHON) examples/tier2/all.py target/tiered-c/tiered target/debug/examples/tiered

demo-tier2: tools-redis build-python ## Four gunicorn workers in front of a Redis that stops, continues, dies and returns: figures and a chart (ARGS="--seconds 5")
	examples/tier2/demo.sh $(ARGS)

demo-fleet: tools-redis tools-wrk build-python ## Twelve workers of Django, Flask and FastAPI behind nginx, with hotset, Redis only, functools, no cache: figures and a chart (ARGS="--seconds 2")
	examples/fleet/demo.sh $(ARGS)

demo-advise: build-python ## A web service under load: which of its functions are worth caching, how big a cache should be, and what that saves
	examples/advise/demo.sh service

# It fetches packages of others.
demo-advise-programs: build-python ## The same with three programs that use packages from PyPI
	examples/advise/demo.sh programs

bench-advise: build-python ## What recording for advice costs, on each interpreter at hand (ARGS=--quick)
	for python in target/python/3.*/bin/python; do "$$python" bindings/python/bench_advise.py $(ARGS) || exit 1; done

examples: ## Run the other example programs
	$(CARGO) run --release --example basics
	$(CARGO) run --release --features async --example async_loads
	$(CARGO) run --release --example rate_limiter
	$(CARGO) run --release --example session_store
	$(CARGO) run --release --example stampede

test-metrics-rust: ## The recipes of examples/metrics: clippy, tests, and their text as Prometheus' promtool parses it
	CARGO_TARGET_DIR=target/metrics $(CARGO) clippy --locked --manifest-path $(METRICS)/Cargo.toml --all-targets -- -D warnings
	CARGO_TARGET_DIR=target/metrics $(CARGO) test --locked --manifest-path $(METRICS)/Cargo.toml
	$(METRICS)/check.sh target/metrics

# DESTDIR stages the files of PREFIX, for packagers. Run as root after `make build-c`, install
# compiles nothing.
PREFIX ?= /usr/local
LIBDIR ?= lib
DESTDIR ?=
install uninstall: export PREFIX := $(PREFIX)
install uninstall: export LIBDIR := $(LIBDIR)
install uninstall: export DESTDIR := $(DESTDIR)
install: build-c ## Install the C library, its headers, pkg-config and CMake files (PREFIX=/usr/local LIBDIR=lib DESTDIR=)
	bindings/c/install/install.sh install

uninstall: ## Remove what install put there (the same PREFIX, LIBDIR and DESTDIR)
	bindings/c/install/install.sh uninstall

test-c-install: build-c ## Programs against the installed C library: pkg-config, CMake, shared and static, C++, README
	$(call need,c++,g++)
	$(call need,pkg-config,pkg-config)
	$(call need,cmake,cmake)
	bindings/c/tests/install.sh

deb: build-c ## Build the Debian packages of the C library, into target/deb
	@$(call need,dpkg-gensymbols,dpkg-dev)
	bindings/c/deb/build.sh

# Not in `test`: it needs Debian.
test-deb: deb ## The Debian packages: lintian, installed and removed by dpkg in a root of their own, programs against them
	@$(call need,lintian,lintian)
	@$(call need,pkg-config,pkg-config)
	@$(call need,cmake,cmake)
	bindings/c/deb/test.sh

# Not in `test`: cargo-c compiles the library again, for a target that it names.
test-capi: build-c ## The tree that cargo-c installs beside that of make install, and programs against it (make tools-capi first)
	bindings/c/tests/capi.sh

# It contains cargo, which takes many minutes to compile. A newer one needs a newer compiler.
tools-capi: ## Install cargo-c, which installs C libraries of Rust as packagers do
	command -v cargo-cinstall >/dev/null || $(CARGO) install --locked cargo-c@0.10.24

demo-c: build-c ## A C proxy before a slow backend: hit ratio and latencies with and without the cache
	mkdir -p target/demo-c
	PREFIX=$(CURDIR)/target/demo-c LIBDIR=lib DESTDIR= bindings/c/install/install.sh install
	$(CC) -std=c11 -O2 -Wall -Wextra -Iinclude examples/c/hello.c -o target/demo-c/hello target/demo-c/lib/libhotset.so \
	    -Wl,-rpath,$(CURDIR)/target/demo-c/lib
	$(CC) -std=c11 -O2 -Wall -Wextra -Iinclude examples/c/proxy.c -o target/demo-c/proxy target/demo-c/lib/libhotset.so \
	    -Wl,-rpath,$(CURDIR)/target/demo-c/lib -lpthread -lm
	target/demo-c/hello
	target/demo-c/proxy --demo

bench-c: build-c ## Reads and writes from C: hotset, an LRU behind a mutex, memcached, Rust (make tools-c first)
	benches/c/bench.sh

bench: instructions heap bench-cache bench-wheel bench-snapshot bench-compare ## Every figure: instructions, heap, microbenchmarks, timers, the snapshot, and side by side with quick_cache

bench-cache: ## Microbenchmarks of one cache, by criterion, against the run before (ARGS="--quick get")
	$(CARGO) bench --bench cache -- $(ARGS)

bench-compare: ## hotset side by side with quick_cache (ARGS="--quick --peers quick_cache,moka")
	benches/compare.sh all $(ARGS)

bench-time: ## What a time to live costs, a hit through a loading call, and a herd its neighbors
	benches/compare.sh time $(ARGS)

bench-zipf: ## Reads through caches of 1k to 1M entries, zipf 0.99 and 0.7, 1 to 4 threads, beside quick_cache, with hit ratios
	benches/compare.sh zipf-all $(ARGS)

bench-snapshot: ## What saving and loading costs, beside std::fs and an eager load
	$(CARGO) bench --bench snapshot

bench-threads: ## What threads that ended, and a long reader, cost an insertion
	$(CARGO) bench --bench threads

bench-profile: ## What a profile costs: throughput and memory at 100,000 entries
	$(CARGO) bench --bench profile

bench-stats-file: ## What a name and a stats file cost a hit and an insertion (callgrind)
	$(CARGO) bench --bench stats_file

check-estimates: ## Estimates of the miss-ratio curve against replays of the traces in TRACES
	@ls $(TRACES)/*.gz >/dev/null 2>&1 || echo "check-estimates: no traces in $(TRACES): skipped (TRACES=directory)"
	HOTSET_ALL_TRACES=1 HOTSET_TRACES=$(abspath $(TRACES)) $(CARGO) test --release --test profile within_the_bars -- --nocapture --test-threads=1

bench-wheel: ## What ten million timers cost
	$(CARGO) bench --bench wheel

adversaries: ## Floods, scans, hot keys, a stubborn writer: latency and hit ratio beside quick_cache's and moka's (ARGS=--quick)
	$(CARGO) run --release --quiet --manifest-path $(COMPARE) --bin adversaries -- $(ARGS)

# How long `soak` runs.
MINUTES ?= 10
soak: ## Mixed operations for MINUTES=10, with memory watched: fails if it is not flat
	$(CARGO) bench --bench soak -- $(MINUTES)

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

# ThreadSanitizer must see std's synchronization, so that is built, too. Under LeakSanitizer, which
# is part of AddressSanitizer, leaks of the compiler when a destructor panics are suppressed: the
# tests that cause them count their objects.
sanitize: ## Tests of the crate and the C library under Address-, Leak- and ThreadSanitizer (a nightly compiler with rust-src)
	rustup +nightly component add rust-src
	LSAN_OPTIONS=suppressions=$(CURDIR)/tests/leaks.supp:fast_unwind_on_malloc=0:malloc_context_size=40 CARGO_TARGET_DIR=target/asan RUSTFLAGS=-Zsanitizer=address \
	    cargo +nightly test --release --target $(HOST) $(SANITIZED)
	$(MAKE) --no-print-directory asan-c
	CARGO_TARGET_DIR=target/tsan RUSTFLAGS=-Zsanitizer=thread cargo +nightly test --release -Zbuild-std --target $(HOST) $(SANITIZED)
	CARGO_TARGET_DIR=target/tsan RUSTFLAGS=-Zsanitizer=thread cargo +nightly build --release -Zbuild-std --target $(HOST) -p hotset-c
	LIB=$(CURDIR)/target/tsan/$(HOST)/release bindings/c/tests/run.sh tsan

# Slot words and rings hold pointers as numbers: their provenance is exposed, which strict
# provenance does not know. Tests that are too long for an interpreter are left out, or smaller
# under `cfg(miri)`; so are backtraces.
miri: export RUST_BACKTRACE = 0
miri: ## Small tests under Miri, with both borrow models, the smallest concurrent ones with SEEDS=0..4 (a nightly compiler)
	rustup +nightly component add miri rust-src
	for model in "" -Zmiri-tree-borrows; do \
		flags="-Zmiri-permissive-provenance -Zmiri-disable-isolation $$model"; \
		MIRIFLAGS="$$flags" $(MIRI) --lib -- map:: engine:: prim::ring prim::ghost a_jump_of_centuries capacity_one && \
		MIRIFLAGS="$$flags" $(MIRI) --test miri -- $${model:+--skip mixed_calls_under_every_policy_are_sound} && \
		MIRIFLAGS="$$flags -Zmiri-many-seeds=$(SEEDS)" $(MIRI) --test miri -- growth_beside shared_loads_are_sound && \
		MIRIFLAGS="$$flags" $(MIRI) --features async,tiered --lib -- tiered::tests::hostile futures::a_dropped_load && \
		MIRIFLAGS="$$flags" $(MIRI) -p hotset-c --lib || exit 1; \
	done

# `cargo check` does not see arithmetic that overflows on 32 bits: that takes MIR. Nothing is
# linked, so the C part of a test's dependency need not be compiled (CC=true).
check-targets: ## Check the crate for 32 and 64 bits, ARM, WebAssembly, macOS and Windows, with tests; the wheel for the last two (rustup installs the targets)
	rustup target add $(TARGETS) $(DESKTOPS) wasm32-unknown-unknown
	for target in $(TARGETS); do \
		CC=true AR=true RUSTFLAGS="--emit=mir,metadata" CARGO_TARGET_DIR=target/check \
		    $(CARGO) check --target $$target --lib --tests --features async,serde; \
	done
	CARGO_TARGET_DIR=target/check $(CARGO) check --target wasm32-unknown-unknown --features async,serde
	for target in $(DESKTOPS); do \
		CC=true AR=$(CURDIR)/packaging/no_ar.sh CARGO_TARGET_DIR=target/check $(CARGO) check --locked --target $$target $(PORTABLE) || exit 1; \
		packaging/check_wheel_target.sh $$target || exit 1; \
	done
	CARGO_TARGET_DIR=target/check $(CARGO) check --target aarch64-apple-darwin --package hotset-c

# What GitHub's machines for macOS and Windows run of the tests, where `make test` cannot.
PORTABLE := --package hotset --lib --features async,metrics,serde,tier2 --test api --test edge_cases --test expiry --test expiry_model \
            --test loads --test async_loads --test model --test reentrancy --test refresh --test tier2
test-portable: ## The tests that run on every platform, Windows and macOS included
	$(CARGO) test --locked $(PORTABLE)

# Each target starts from what the runs before found; the seeds are written anew.
fuzz: ## Run every fuzz target, or those in FUZZ_TARGETS="tier2_frame wheel" (SECONDS=60 each; a nightly compiler)
	command -v cargo-fuzz >/dev/null || $(CARGO) install --locked cargo-fuzz
	$(CARGO) run --quiet --manifest-path fuzz/Cargo.toml --example seeds
	cd fuzz && for target in $(or $(FUZZ_TARGETS),$$(cargo +nightly fuzz list)); do \
		cargo +nightly fuzz run "$$target" -- -max_total_time=$(SECONDS) -max_len=8192; \
	done

# In a copy, beside which the traces are, where there are any: without them the hit ratios are not
# checked.
mutants: ## Change the engine, map, policies and primitives in small ways, and check that the tests fail (SHARD=0/100 ARGS="--file src/map/*.rs")
	command -v cargo-mutants >/dev/null || $(CARGO) install --locked cargo-mutants
	mkdir -p target/mutants/copy
	test ! -d ../shared || ln -sfn "$$(realpath ../shared)" target/mutants/copy/shared
	TMPDIR=$(CURDIR)/target/mutants/copy CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_TEST_DEBUG=0 \
	    nice $(CARGO) mutants --output target/mutants --shard $(SHARD) --sharding round-robin $(ARGS)

# It changes nothing where a step fails; what publishes is printed, not run.
release: ## Release VERSION=X.Y.Z: versions, changelog, commit, tag, artifacts, checksums, and the commands that publish (make tools-sbom first)
	@packaging/release.sh "$(VERSION)"

# Without wheels, which `make wheels` tries by itself.
release-check: ## A release in a temporary clone: what it refuses, then the source, the crate, the C library and the Debian packages
	ARTIFACTS="source crate c deb" packaging/test_release.sh

test-release: ## The same with the source only
	@packaging/test_release.sh

check-versions: ## The version is the same wherever the tree has it (TAG=vX.Y.Z: and in that tag), and every Cargo.lock is up to date
	packaging/version.py check $(if $(TAG),--tag "$(TAG)")
	packaging/locks.sh

check-workflows: ## The workflows of GitHub, by actionlint and zizmor, which are installed into target/workflows
	@packaging/workflows.sh

# ARTIFACTS="source crate sdist wheels c deb sbom" and DIST=target/dist are read by the script.
artifacts: ## Build what a release consists of into DIST=target/dist (ARTIFACTS="source crate sdist wheels c deb sbom")
	ARTIFACTS="$(or $(ARTIFACTS),source crate sdist wheels c deb sbom)" DIST="$(or $(DIST),target/dist)" packaging/artifacts.sh

checksums: ## Write SHA256SUMS and NOTES.md into DIST=target/dist, after copying the files of FROM there
	FROM="$(FROM)" DIST="$(or $(DIST),target/dist)" packaging/checksums.sh

# The two that publish, for release.yml. A crate that is there already is no failure: a release that
# stopped in the middle can be run again.
publish-crate: ## Publish the crate on crates.io (CARGO_REGISTRY_TOKEN)
	packaging/publish.sh crate

publish-github: ## Publish the files of DIST as GitHub's release of TAG=vX.Y.Z (GH_TOKEN)
	TAG="$(TAG)" DIST="$(or $(DIST),target/dist)" packaging/publish.sh github

tools-sbom: ## Install cargo-cyclonedx, which writes the bills of materials of a release
	command -v cargo-cyclonedx >/dev/null || $(CARGO) install --locked cargo-cyclonedx@0.5.9

tools-release: tools-capi tools-sbom

fmt: ## Format every source file
	$(CARGO) fmt --all
	$(CARGO) fmt --manifest-path $(COMPARE)
	$(CARGO) fmt --manifest-path $(FUZZ)
	$(CARGO) fmt --manifest-path $(PYTHON)
	$(CARGO) fmt --manifest-path benches/c/rust/Cargo.toml
	$(CARGO) fmt --manifest-path $(METRICS)/Cargo.toml
	$(CARGO) fmt --manifest-path examples/tiered_tls/Cargo.toml

tools: ## Install what the other targets need: valgrind, a nightly compiler, rustfmt, clippy
	$(VALGRIND)
	rustup component list --installed | grep -q '^clippy' || rustup component add clippy
	rustup component list --installed | grep -q '^rustfmt' || rustup component add rustfmt
	rustup toolchain list | grep -q '^nightly' || rustup toolchain install nightly --profile minimal

tools-c: ## Install what bench-c and the CMake test need: memcached, uthash, CMake, pkg-config
	sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; $$sudo apt-get update -qq; \
	    $$sudo apt-get install -y -qq memcached uthash-dev cmake pkg-config g++

clean: ## Remove all build output
	$(CARGO) clean
	$(CARGO) clean --manifest-path $(COMPARE)
	$(CARGO) clean --manifest-path $(FUZZ)
	$(CARGO) clean --manifest-path $(PYTHON)
