# What there is to run. `make test` is the whole gate, on a machine with the Rust toolchain and apt;
# CI calls it (.ci/run) and nothing else.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help

CARGO ?= cargo
# Debian keeps mkfs and losetup where people who aren't root don't look.
export PATH := $(PATH):/usr/sbin:/sbin

# bench: the image, how many rounds count, and which settings of peers (see benches/README.md).
IMAGE ?= $(or $(TIDEGATE_CORPUS),/var/tmp/tidegate-corpus)/os.img
ROUNDS ?= 5
SETTINGS ?= all
# fuzz: seconds for each decoder, inputs for each property. soak: rounds, each with a seed of its own, and 10^9 bytes that pass.
FUZZ_SECONDS ?= 600
FUZZ_CASES ?= 200000
SOAK_ROUNDS ?= 50
SOAK_GB ?= 100
# Where builds go, and reports.
TARGET := $(or $(CARGO_TARGET_DIR),target)

.PHONY: help demo test bench fuzz soak fmt lint tools

help: ## Show this list.
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 14

demo: tools ## The main job end to end: a real file system over TLS into a vault and back.
	$(CARGO) run --locked --release -- demo

test: tools ## The whole gate: format, clippy, import rules, licences, benches as smoke, tests.
	$(CARGO) fetch --locked
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	# The runner that closes the output is the one that ran the tests, so the small ones go first:
	# examples in documents, and a short turn of the benches.
	$(CARGO) test --locked --workspace --doc --quiet
	$(CARGO) test --locked --bench kernels --quiet
	$(CARGO) test --locked --bench stages --quiet -- --smoke
	benches/report/run --smoke --tidegate '$(TARGET)/debug/tidegate' --out '$(TARGET)/smoke'
	# What this machine can't run is told at the end.
	not_run='$(TARGET)/tmp/not-run'
	rm -f "$$not_run"
	trap 'if [ -s "$$not_run" ]; then echo "NOT RUN on this machine:"; sort -u "$$not_run"; fi' EXIT
	if $(CARGO) nextest --version >/dev/null 2>&1; then
	  $(CARGO) nextest run --locked --workspace --no-fail-fast
	else
	  $(CARGO) test --locked --workspace --lib --bins --tests --no-fail-fast
	fi

bench: ## All that must hold of speed, against bare kernels and peers: one report, in under 30 minutes.
	$(CARGO) bench --locked --bench stages --bench restore --no-run
	$(CARGO) build --locked --release
	[ -e '$(IMAGE)' ] || benches/peers/corpus --out '$(dir $(IMAGE))'
	benches/report/run --image '$(IMAGE)' --runs '$(ROUNDS)' --settings '$(SETTINGS)' \
	  --tidegate '$(TARGET)/release/tidegate' --out '$(TARGET)/bench'

fuzz: ## Any bytes for every decoder, FUZZ_SECONDS each; then FUZZ_CASES inputs for each property.
	fuzz/run --seconds '$(FUZZ_SECONDS)' --out '$(TARGET)/fuzz'
	PROPTEST_CASES='$(FUZZ_CASES)' $(CARGO) test --locked --workspace --exclude tidegate --lib --tests

soak: tools ## SOAK_GB through the pipeline; SOAK_ROUNDS times, by seeds, processes killed and every LSN recovered.
	$(CARGO) build --locked --release
	benches/report/run --only soak --soak-gb '$(SOAK_GB)' --must-hold \
	  --tidegate '$(TARGET)/release/tidegate' --out '$(TARGET)/soak'
	$(CARGO) test --locked --tests --no-run
	for round in $$(seq '$(SOAK_ROUNDS)'); do
	  seed=$$(od -An -N6 -tu8 /dev/urandom | tr -d ' ')
	  echo "soak: round $$round of $(SOAK_ROUNDS), TIDEGATE_SEED=$$seed"
	  TIDEGATE_SEED=$$seed TIDEGATE_MOMENTS=12 $(CARGO) test --locked --tests -- kill
	  TIDEGATE_SEED=$$seed TIDEGATE_EVERY_LSN=1 \
	    $(CARGO) test --locked -p tidegate-vault --lib -- at_every_lsn
	done

fmt: ## Format the code.
	$(CARGO) fmt --all

lint: ## Only format and clippy, as the gate runs them.
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

tools: ## Install what the gate needs and isn't there.
	tests/support/tools
