# headrace: `make` prints the targets. Each makes .venv by itself.
.DEFAULT_GOAL := help
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help demo test check full mutants torture failovers soak matrix bench versus systems load screenshots docs format clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml
	@test -n "$(PYTHON)" || { echo "headrace needs Python 3.11 or newer: install it, or run make PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

demo: $(READY) ## run the main job: pages counted by ten processes, one killed on the way
	$(BIN)/headrace demo

test: $(READY) ## run the tests (10 minutes)
	$(BIN)/python -m pytest -n 3

check: $(READY) ## lint, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/basedpyright
	$(BIN)/lint-imports

full: $(READY) check ## everything, the long proofs too
	$(BIN)/python -m pytest -n 3 -m "long or not long" --timeout 1200

torture: $(READY) ## every fault on real workers: SECONDS=60 SEED=11 PROGRAM=/usr/bin/redis-server LEDGER=postgresql
	$(if $(LEDGER),PYTHONPATH=. $(BIN)/python tests/effects/postgres_server.py) $(BIN)/headrace torture --seconds $(or $(SECONDS),60) \
		$(if $(SEED),--seed $(SEED)) $(if $(PROGRAM),--server-program $(PROGRAM)) $(if $(LEDGER),--ledger)

failovers: $(READY) ## lose the primary in every way, on Sentinel and on Cluster: TIMES=20 of each
	PYTHONPATH=tests:tests/scenarios $(BIN)/python tests/scenarios/failovers.py --times $(or $(TIMES),20)

soak: $(READY) ## a day on a clock 20 times as fast: nothing may grow or be left: MINUTES=72
	$(BIN)/python benchmarks/soak.py --minutes $(or $(MINUTES),72)

mutants: $(READY) ## see every small fault, planted on purpose, noticed (10 minutes)
	$(BIN)/python -m pytest -n 3 -m "long or not long" tests/mutants

matrix: $(READY) ## run the tests of every fault, write docs/fault-matrix.md (15 minutes)
	PYTHONPATH=tests/faults $(BIN)/python tests/faults/matrix_page.py

bench: $(READY) ## measure the budgets, print the table, write benchmarks/results/
	$(BIN)/python benchmarks/run.py

versus: $(READY) ## the same chaos on other job queues, side by side (half an hour): SEED=11 ONLY=rq,saq SCENARIO=sigkill JOBS=400
	$(BIN)/python benchmarks/versus/run.py $(if $(SEED),--seed $(SEED)) $(if $(ONLY),--only $(ONLY)) $(if $(SCENARIO),--scenario $(SCENARIO)) $(if $(JOBS),--jobs $(JOBS))

systems: $(READY) ## start the example systems behind one front page: PORT=8000
	$(BIN)/python -m systems --port $(or $(PORT),8000)

load: $(READY) ## the systems' load tests, and one table of their figures (15 minutes)
	$(BIN)/python -m systems.load

screenshots: $(READY) ## take the pictures of the systems' pages and the dashboard anew, with this machine's Chromium
	SCREENSHOTS=1 $(BIN)/python -m pytest -n 1 tests/systems tests/web/test_pages_in_a_browser.py -k "(systems and in_a_browser) or every_page_fits"

docs: $(READY) ## build the documentation into site/
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	$(BIN)/mkdocs build --strict

format: $(READY) ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove the environment and what was built
	rm -rf $(VENV) .versus site dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
