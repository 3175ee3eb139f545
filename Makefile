# Headrace. `make` alone lists the targets.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin

.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 20

check-machine:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo "Headrace needs Python 3.11 or newer: install it, or name it with make PYTHON=/path/to/python3.11"; exit 1; }
	@java -version 2>&1 | grep -qE 'version "(1[7-9]|[2-9][0-9])' \
	  || { echo "Headrace needs Java 17 for Spark: install a JDK 17 (Debian: apt-get install openjdk-17-jre-headless)"; exit 1; }

setup: check-machine $(VENV)/.ready  ## make the virtual environment from the pinned requirements

$(VENV)/.ready: requirements.txt pyproject.toml
	@test -x $(RUN)/pip || $(PYTHON) -m venv --clear $(VENV)
	$(RUN)/pip install --quiet --no-deps --require-hashes -r requirements.txt
	$(RUN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup  ## real changes from PostgreSQL to Athena, proven equal to the source
	$(RUN)/headrace demo

lint: setup  ## style, types, and the direction of imports
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy
	$(RUN)/lint-imports

test: setup lint  ## everything that CI runs
	$(RUN)/pytest

bench-path: setup  ## changes/s, bytes and CPU of the whole path and of each stage
	$(RUN)/python -m bench.path

requirements:  ## pin requirements.in again (needs uv)
	uv pip compile --universal --python-version 3.11 --no-header --no-emit-index-url --generate-hashes requirements.in -o requirements.txt

clean:  ## remove what the demo and the tests left behind
	rm -rf .headrace build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

.PHONY: help check-machine setup demo lint test bench-path requirements clean
