# Every task of the project. `make help` lists them; each target makes .venv first if it is missing.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help install demo up test lint types bench latency fuzz crash storm clean constraints

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

install: $(STAMP) ## make .venv with everything (server, e2b, demo, compat and dev extras)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "NOVA needs Python 3.11 or newer: give one by PYTHON=/path/to/python3"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
	  || { echo "python cannot make a virtual environment: install the package python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[server,e2b,demo,compat,dev]'
	@touch $@

demo: $(STAMP) ## run the main job on real servers on this machine and show what came of it
	$(BIN)/nova demo

up: $(STAMP) ## start NOVA with the Dagster UI (keeps what the demo left); Ctrl-C stops it
	$(BIN)/nova demo --keep

# two more than there are processors: servers that start and processes that end are waited for
test: $(STAMP) ## lint, types, architecture and all tests (as root on Debian installs what they need)
	@.ci/packages
	@$(BIN)/python -m compileall -q nova_pipelines nova_pipelines_tests # hundreds of processes would each do it anew
	$(BIN)/python -m pytest -n $$(( $$(getconf _NPROCESSORS_ONLN) + 2 )) --dist worksteal $(PYTEST_ARGS)

lint: $(STAMP) ## ruff and import-linter
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports

types: $(STAMP) ## basedpyright, strict in domain and compiler
	$(BIN)/basedpyright

bench: $(STAMP) ## CPU seconds for one invoice and for a run's start; the sandbox's milliseconds; what E2B would cost; the mail intake
	$(BIN)/python -m benchmarks

latency: $(STAMP) ## seconds from a mail's delivery to its row, part by part (some minutes, on a quiet machine)
	$(BIN)/python -m benchmarks.latency

fuzz: $(STAMP) ## schemathesis over the HTTP API for longer than the suite does (NOVA_FUZZ_EXAMPLES, 200)
	NOVA_FUZZ_EXAMPLES=$${NOVA_FUZZ_EXAMPLES:-200} $(BIN)/python -m pytest --timeout 7200 nova_pipelines_tests/web/api/test_fuzz.py $(PYTEST_ARGS)

crash: $(STAMP) ## what is too long for the suite: SIGKILL before and after every node, a thousand sandbox jobs (7 minutes)
	$(BIN)/python -m pytest -m crash $(PYTEST_ARGS)

storm: $(STAMP) ## 200 mails and 60 blows on every part, with one watcher and with two; a day of an idle mailbox (an hour at most)
	$(BIN)/python -m pytest -m storm -s $(PYTEST_ARGS)

constraints: ## write constraints.txt anew from a fresh environment
	rm -rf build/constraints && $(PYTHON) -m venv build/constraints
	build/constraints/bin/pip install --quiet --upgrade '.[server,e2b,demo,compat,dev]'
	build/constraints/bin/pip freeze --exclude nova-pipelines --exclude-editable | grep -E '^[A-Za-z0-9._-]+==' | LC_ALL=C sort -f > constraints.txt

clean: ## remove .venv and what builds left (never .nova, where your data is)
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
