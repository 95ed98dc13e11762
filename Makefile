# Every target may be called on a fresh clone; `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help run cluster setup parts test thorough journeys simulate chaos fuzz check format bench docs pin clean

BIN := .venv/bin
# Words added to the command: make run ARGS="--config my.yaml", make test ARGS="-k log tests/unit".
ARGS ?=
# What `make simulate` runs; tests.simulation.test_membership:any_faults is the members of a cluster, test_cluster:any_faults
# (of the same folder) whole nodes.
SCENARIO ?= tests.simulation.test_log:any_weather
# Test processes at once (pytest-xdist); 0 is one after the other. A file of tests with real parts stays in one process.
TEST_WORKERS ?= 2

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 16

run: ## set up what is missing, then a running Headwater (Ctrl-C drains and stops it)
	@scripts/setup run
	@exec $(BIN)/headwater run $(ARGS)

cluster: ## set up what is missing, then three nodes behind HAProxy with Redis (Ctrl-C ends all); ARGS="--fresh --nodes 5"
	@scripts/setup run
	@exec $(BIN)/headwater cluster try $(ARGS)

setup: ## .venv with everything for tests and gates
	@scripts/setup dev

parts: setup ## the real parts that tests use (browser, proxy, other people's trackers)
	@$(BIN)/python -m scripts.parts

test: setup parts check ## the gates, then every test but the long ones (make thorough)
	@$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadscope --durations=10 --durations-min=1 $(ARGS)

thorough: setup parts ## tests with real servers and nodes, as often and as long as the promises say (half an hour)
	@HEADWATER_THOROUGH=1 $(BIN)/python -m pytest --durations=10 tests/contracts tests/cluster tests/journeys $(ARGS)

journeys: setup parts ## every journey on three nodes instead of one (half an hour); ARGS="-k kill"
	@HEADWATER_JOURNEYS_NODES=3 $(BIN)/python -m pytest --durations=10 tests/journeys $(ARGS)

simulate: setup ## 1,000 random histories on a disk that loses and lies; ARGS="--seed 17 --count 1", ARGS="--minutes 20 --report FILE"
	@exec $(BIN)/python -m headwater.kit.simulate $(SCENARIO) --count 1000 $(ARGS)

chaos: setup ## faults of every kind on real nodes under load, 200 kills, with the oracle outside; ARGS=--help
	@exec $(BIN)/python -m tests.chaos $(ARGS)

fuzz: setup ## a million requests that nobody should send, on a real node; ARGS=--help
	@exec $(BIN)/python -m tests.fuzz $(ARGS)

check: setup ## the gates: style, types, direction of imports, generated documents
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet . || { echo "run 'make format'"; exit 1; }
	@$(BIN)/mypy --no-error-summary
	@scripts/imports
	@$(BIN)/python -m scripts.docs --check
	@echo "check: fine"

format: setup ## write the style that check wants
	@$(BIN)/ruff check --fix --exit-zero . >/dev/null
	@$(BIN)/ruff format --quiet .

bench: setup ## measure (40 minutes; wants a quiet machine); ARGS=--list says what
	@exec $(BIN)/python -m benchmarks $(ARGS)

docs: setup ## write the generated documents anew
	@$(BIN)/python -m scripts.docs

pin: ## write requirements/ anew from pyproject.toml (ARGS=--upgrade for newer versions)
	@scripts/pin $(ARGS)

clean: ## remove what was made here, but no data folder
	rm -rf .venv .cache build dist .hypothesis .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
