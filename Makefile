# The one door: every target sets up what it needs, and does nothing when that is in place.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Imports are compiled once at set-up; a machine that forbids bytecode would pay for it at every start.
export PYTHONDONTWRITEBYTECODE :=

FRAMEWORKS := .venv-frameworks

.PHONY: help up down demo test test-frameworks check mutants coverage bench clean setup-dev dev-up test-all lock format openapi

help: ## print the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

$(READY): requirements/dev.lock requirements/bootstrap.lock pyproject.toml
	@echo "Setting up $(VENV) (only when the lock files changed)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.lock
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip sync --quiet --require-hashes requirements/dev.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.lock
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation -e .
	@$(BIN)/python -m compileall -q -j 0 $(VENV)/lib >/dev/null 2>&1 || true
	@touch $@

.venv-mlflow/.ready: requirements/mlflow.lock $(READY)
	@echo "Setting up .venv-mlflow: a stock MLflow client and server, for tests and comparisons"
	@test -x .venv-mlflow/bin/python || $(PYTHON) -m venv .venv-mlflow
	@VIRTUAL_ENV=.venv-mlflow $(BIN)/uv pip sync --quiet --require-hashes requirements/mlflow.lock
	@.venv-mlflow/bin/python -m compileall -q -j 0 .venv-mlflow/lib >/dev/null 2>&1 || true
	@touch $@

$(FRAMEWORKS)/.ready: requirements/frameworks.lock requirements/torch.txt $(READY)
	@echo "Setting up $(FRAMEWORKS): torch, Lightning, Keras, XGBoost, LightGBM, MLflow (large)"
	@test -x $(FRAMEWORKS)/bin/python || $(PYTHON) -m venv $(FRAMEWORKS)
	@VIRTUAL_ENV=$(FRAMEWORKS) $(BIN)/uv pip sync --quiet --require-hashes requirements/frameworks.lock
	@$(BIN)/python -m pip --python $(FRAMEWORKS)/bin/python install --quiet --disable-pip-version-check -r requirements/torch.txt
	@$(FRAMEWORKS)/bin/python -m compileall -q -j 0 $(FRAMEWORKS)/lib >/dev/null 2>&1 || true
	@touch $@

up: $(READY) ## start the platform: PostgreSQL, five services, a worker (Ctrl-C stops them)
	@$(BIN)/mlops up

down: $(READY) ## stop the platform that runs under MLOPS_HOME
	@$(BIN)/mlops down

demo: $(READY) ## the main job on real data, against the running platform
	@$(BIN)/mlops demo

dev-up: $(READY) ## like up, and restarts when a source file changes
	@$(BIN)/mlops up --reload

setup-dev: $(READY) ## environment and git hooks for contributors
	@git config core.hooksPath .githooks
	@echo "Ready. 'make check' before a commit, 'make test' before a push."

format: $(READY) ## format the code
	@$(BIN)/ruff check --fix-only --quiet . && $(BIN)/ruff format --quiet .

check: $(READY) ## format, lint, types, import contracts, architecture (under a minute)
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m pytest -q -n 2 tests/architecture

test: $(READY) .venv-mlflow/.ready ## the suite, faults and end-to-end included, against a real PostgreSQL, in parallel
	@$(BIN)/python -m pytest -n $${PYTEST_WORKERS:-4} tests

test-all: $(READY) .venv-mlflow/.ready ## test, plus the slow ones: whole corpora, gigabytes
	@$(BIN)/python -m pytest -n $${PYTEST_WORKERS:-4} -m "not frameworks" tests

test-frameworks: $(READY) $(FRAMEWORKS)/.ready ## trainings with torch, Lightning, Keras, XGBoost, LightGBM, as they record themselves
	@$(BIN)/python -m pytest -n $${PYTEST_WORKERS:-2} --dist loadfile -m frameworks tests/frameworks

coverage: $(READY) ## the suite once more, measured: which share of each package it runs (at least 90 %)
	@rm -rf .coverage .coverage.*
	@$(BIN)/python -m coverage run -m pytest -q -n $${PYTEST_WORKERS:-4} tests
	@$(BIN)/python -m coverage combine --quiet && $(BIN)/python -m coverage json --quiet -o .coverage.json
	@$(BIN)/python scripts/coverage_by_package.py .coverage.json

mutants: $(READY) ## break authorisation, leases and statistics in small ways: a test must fail for each (hours)
	@$(BIN)/python -m scripts.mutants

bench: $(READY) ## measure the hot paths against a floor and print ratios
	@$(BIN)/python -m benchmarks

openapi: $(READY) ## write the reviewed snapshot of the public API to openapi/
	@$(BIN)/python -m mlops_platform.server.openapi openapi

lock: $(READY) ## resolve the dependencies anew into requirements/*.lock
	@$(BIN)/python scripts/lock.py

clean: ## remove the environment and caches (never MLOPS_HOME)
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage* htmlcov dist build
