# Everything a new user or a developer types; `make help` lists it. Each target sets up what it needs by itself.

SHELL := /bin/sh
VENV := .venv/bin
# Further arguments for pytest:  make test ARGS='-k leases -x'
ARGS ?=
# How many times as many examples `make fuzz` tries
FUZZ ?= 20
# Test processes at a time, each with servers of its own; tests of one file stay together.  make test WORKERS=0: one by one
WORKERS ?= 2
# Code, for the checks
ROOMS := schemas broker producers consumers pilot compose

.DEFAULT_GOAL := help
.PHONY: help demo setup setup-dev test check lint fuzz pilot bench bench-matcher docs lock clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

demo: setup ## set up, then run the whole chain on this machine: broker, consumers, pilots, real jobs
	@$(VENV)/pilotage demo

setup: ## virtual environment with locked dependencies, and RabbitMQ where it is missing
	@sh compose/bootstrap.sh rabbitmq

setup-dev:
	@sh compose/bootstrap.sh --dev rabbitmq postgres grid

test: setup-dev ## the whole test suite, with private servers: RabbitMQ, PostgreSQL, VOMS, MyProxy
	@$(VENV)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

lint:
	@sh compose/bootstrap.sh --dev
	@$(VENV)/ruff check .
	@$(VENV)/ruff format --check .
	@$(VENV)/mypy
	@$(VENV)/lint-imports --no-logo

check: lint ## lint, types, architecture contracts, and the tests that need no server
	@$(VENV)/python -m pytest -q -n 2 tests/unit tests/properties $(ARGS)

fuzz: ## damaged inputs for every parser, and the matcher against its specification, FUZZ (20) times as many as in `make check`
	@sh compose/bootstrap.sh --dev
	@PILOTAGE_FUZZ=$(FUZZ) $(VENV)/python -m pytest -q -n 2 --timeout 3600 tests/properties -k "fuzz or chain or delegation or envelope or reference or whole_life or matching or limits" $(ARGS)

pilot: setup ## build the pilot as one file, pilot.pyz
	@$(VENV)/python -m pilot.build

bench: ## measure the whole path and print a table
	@sh compose/bootstrap.sh --dev rabbitmq postgres
	@$(VENV)/python -m tests.benchmarks.run $(ARGS)

bench-matcher: ## measure the matcher: its core, beside an SQL matcher, and end to end
	@sh compose/bootstrap.sh --dev rabbitmq postgres
	@$(VENV)/python -m tests.benchmarks.bench_matcher $(ARGS)

docs: ## write the generated reference pages anew
	@sh compose/bootstrap.sh --dev
	@$(VENV)/python docs/generate.py

lock: ## renew the lock files from pyproject.toml (needs uv)
	uv pip compile pyproject.toml $(LOCK_OPTIONS) --upgrade -o requirements.lock
	uv pip compile pyproject.toml $(LOCK_OPTIONS) --upgrade --extra dev --constraint requirements.lock -o requirements-dev.lock

LOCK_OPTIONS := --quiet --universal --generate-hashes --python-version 3.11 --no-emit-index-url --no-annotate \
	--custom-compile-command 'make lock'

clean: ## remove everything that was made here, the virtual environment included (installed servers stay)
	rm -rf .venv build dist *.egg-info pilot.pyz .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find $(ROOMS) tests -name __pycache__ -type d -prune -exec rm -rf {} +
