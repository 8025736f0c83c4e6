# The only task surface: people and CI call the same targets.
# `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

BOOTSTRAP_PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PYTHON := $(BIN)/python
STAMP := $(VENV)/.installed
NODE_STAMP := clients/ts/node_modules/.installed
PROTOS := $(wildcard proto/gpuarbiter/v1/*.proto)
WORLDS ?= 100000
# Where the faults are; what takes long has a short form in `make test` and its full one here.
FAULTS := tests/e2e/test_kill.py tests/e2e/test_arbiter_faults.py tests/e2e/test_arbiter_disk.py tests/e2e/test_network.py tests/e2e/test_network_cuts.py \
	tests/e2e/test_invalid.py tests/e2e/test_holders.py tests/e2e/test_degradation.py tests/e2e/test_churn.py \
	tests/e2e/test_plugging.py tests/e2e/test_out_of_memory.py tests/e2e/test_resume.py tests/e2e/test_soak.py tests/e2e/test_catalogue_live.py tests/server/api/test_cancel_everywhere.py tests/server/store/test_journal_fuzz.py
PYTHON_CODE := server clients/python tests bench tools

.PHONY: help run test test-typescript soak check fix proto bench lock clean

help:  ## Lists the targets.
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): requirements-dev.txt pyproject.toml clients/python/pyproject.toml
	@echo "== setting up $(VENV) with $(BOOTSTRAP_PYTHON)"
	$(BOOTSTRAP_PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "GpuArbiter needs Python 3.11 or newer, found " + sys.version.split()[0])'
	$(BOOTSTRAP_PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --require-hashes -r requirements-dev.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e clients/python -e .
	@touch $@

$(NODE_STAMP): clients/ts/package-lock.json
	@echo "== installing the npm packages"
	cd clients/ts && npm ci --silent --no-audit --no-fund
	@touch $@

run: $(STAMP)  ## Runs an arbiter with a small workload on it, and shows a live table; Ctrl-C ends it.
	@$(PYTHON) -m tools.demo

test: $(STAMP)  ## Runs every test; lists what was skipped for want of a tool. COVERAGE=1 measures as well.
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory $(NODE_STAMP); fi
	@echo "== tests (those whose tools are missing are listed at the end)"
ifdef COVERAGE
	rm -f .coverage .coverage.*
	$(PYTHON) -m coverage run -m pytest -n 2 --dist worksteal
	$(PYTHON) -m coverage combine --quiet
	$(PYTHON) -m coverage report --fail-under=95
	$(PYTHON) -m coverage report --include='*/gpuarbiter_server/core/*' --fail-under=100
else
	$(PYTHON) -m pytest -n 2 --dist worksteal
endif
	@$(MAKE) --no-print-directory test-typescript

# After the Python tests, because it starts arbiters as they do. Skipped without npm, as they are without their tools.
test-typescript: $(STAMP)
	@echo "== tests of the TypeScript client"
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory $(NODE_STAMP) && cd clients/ts && npm test --silent; \
	elif [ -n "$${GPU_ARBITER_REQUIRE_TOOLS:-}" ]; then echo "npm is not in PATH, and GPU_ARBITER_REQUIRE_TOOLS is set" >&2; exit 1; \
	else echo "npm is missing: the tests of the TypeScript client were not run"; fi

soak: $(STAMP)  ## Lives through WORLDS=100000 simulated worlds, plants known bugs, runs every fault in full; prints the figures.
	cd tests && $(CURDIR)/$(PYTHON) -m core.soak $(WORLDS)
	cd tests && $(CURDIR)/$(PYTHON) -m core.soak --mutations
	GPU_ARBITER_SOAK=1 GPU_ARBITER_FUZZ=20000 $(PYTHON) -m pytest -s -n 0 --timeout=1800 $(FAULTS)

check: $(STAMP) $(NODE_STAMP)  ## Lint, types, layers, contract, generated code: everything but the tests.
	$(BIN)/ruff check $(PYTHON_CODE)
	$(BIN)/ruff format --check $(PYTHON_CODE)
	$(BIN)/mypy
	$(BIN)/mypy clients/python/tests/api_samples.py clients/python/examples/*.py
	clients/ts/node_modules/.bin/pyright --pythonpath $(PYTHON)
	$(BIN)/lint-imports
	cd clients/ts && npx --no-install buf lint ../.. && npx --no-install buf format --diff --exit-code ../..
	cd clients/ts && npm run --silent check
	$(PYTHON) -m tools.breaking
	$(PYTHON) -m tools.generate --check

fix: $(STAMP) $(NODE_STAMP)  ## Mends what can be mended: format, lint, generated code.
	$(BIN)/ruff format $(PYTHON_CODE)
	$(BIN)/ruff check --fix $(PYTHON_CODE)
	cd clients/ts && npx --no-install buf format -w ../.. && npm run --silent fix
	$(PYTHON) -m tools.generate

proto: $(STAMP) $(NODE_STAMP)  ## Regenerates everything generated: stubs in both languages, the synchronous client, reference pages.
	$(PYTHON) -m tools.generate

bench: $(STAMP)  ## Measures beside bare floors and other locks, writes bench/results.md. QUICK=1 only shows that it runs; ONLY="pairs locks".
	$(PYTHON) -m bench $(if $(QUICK),--quick) $(foreach module,$(ONLY),--only $(module))

lock: $(STAMP)  ## Locks the dependencies anew.
	$(BIN)/uv pip compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --universal --python-version 3.11 --no-emit-package gpu-arbiter-client pyproject.toml -o requirements.txt
	$(BIN)/uv pip compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --universal --python-version 3.11 --no-emit-package gpu-arbiter-client --extra dev pyproject.toml -o requirements-dev.txt

clean:  ## Removes what the other targets made.
	rm -rf $(VENV) .build clients/ts/node_modules
