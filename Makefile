# `make demo` and `make test` need nothing before them: each calls `setup`, which installs
# what is missing and takes a moment when nothing is.

BIN := .venv/bin
# Tests mostly wait for servers, so three files run at a time, the long ones of end_to_end first;
# WORKERS= runs them one by one. Servers' files are in memory where there is plenty of it;
# TMPDIR=/tmp puts them there. KERNEL_FUZZ_MUTATIONS=100000 lets the kernels' fuzzers try more.
PROCESSES ?= 3
WORKERS ?= --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder
# The same random programs each time, so that a change is judged by what it changed; the
# matrix draws new ones.
RANDOM_SEED ?= 3

.DEFAULT_GOAL := help
.PHONY: help setup setup-matrix demo test test-faults test-matrix test-matrix-quick lint style types format bench bench-peers install uninstall clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install servers and .venv where missing; starts no service (DRY_RUN=1 only says what)
	@.ci/setup

demo: setup ## Watch the pipeline work on throwaway servers for DEMO_SECONDS (30)
	@$(BIN)/replicator sandbox demo

test: setup ## Run the tests on real servers but test-faults'; ARGS="-k words" narrows them
	@RANDOM_SEED=$(RANDOM_SEED) $(BIN)/pytest $(WORKERS) --ignore=tests/faults $(ARGS)

test-faults: setup ## Break everything on purpose; FAULTS_TIMES=5, SOAK_MINUTES=60, LOAD_FULL=1 for more
	@$(BIN)/pytest $(WORKERS) tests/faults $(ARGS)

setup-matrix: setup ## Fetch MySQL 9.7, MariaDB 11.8 and PostgreSQL 18 into the user's cache
	@.ci/setup-matrix

test-matrix: setup-matrix ## Run the tests on other servers and settings (.ci/matrix); MATRIX="mysql-9.7" narrows
	@.ci/test-matrix $(MATRIX)

test-matrix-quick: setup-matrix ## Each line, but of it what its servers or settings change (.ci/test-matrix)
	@.ci/test-matrix quick $(MATRIX)

lint: style types ## Check style, formatting and types

style: setup ## Check style and formatting (ruff)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: setup ## Check types (mypy --strict)
	@$(BIN)/mypy

format: setup ## Apply ruff's formatting and safe fixes
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

bench: ## Run the benchmarks; JSON lines on standard output; ARGS="--list", or names
	@.ci/setup bench
	@$(BIN)/python -m bench $(ARGS)

bench-peers: setup ## Repeat the pipeline's benchmark with pg_chameleon, in .venv-peers
	@$(BIN)/python -m bench.peers $(ARGS)

install: ## Install both daemons as systemd services (as root; DESTDIR= stages)
	@systemd/install

uninstall: ## Take the services away again; settings stay
	@systemd/install --remove

clean: ## Remove what builds, tests and tools left; .venv stays
	@rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .sandbox dbt/target dbt/logs
	@find loader replicator -name '*.c' -delete -o -name '*.so' -delete
	@find . -path ./.venv -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf
