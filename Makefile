# Headrace. `make` alone lists the targets.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
CHECK := .venv-check

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

demo-terraform: setup  ## the same on what Terraform made, with IAM enforced and a role for each process
	$(RUN)/headrace --stack demo-terraform demo --terraform

glue-bundle:  ## what the Glue jobs run, under its content hash, in build/glue (BUNDLE=--without-wheels for the laptop)
	$(PYTHON) -m ops.glue_bundle $(BUNDLE)

terraform-check: setup $(CHECK)/.ready  ## style, plan tests, examples, checkov and parliament on terraform/
	$(RUN)/python -m ops.terraform_check

$(CHECK)/.ready: requirements-check.txt
	$(PYTHON) -m venv --clear $(CHECK)
	$(CHECK)/bin/pip install --quiet --no-deps --require-hashes -r requirements-check.txt
	@touch $@

picture: setup  ## draw docs/architecture.svg from its text
	$(RUN)/d2 docs/architecture.d2 docs/architecture.svg

aws-smoke: setup  ## prove on a real account what only AWS can show (WORDS="--var-file mine.tfvars")
	$(RUN)/python -m ops.aws_smoke $(WORDS)

aws-smoke-rehearsal: setup  ## the same on the laptop's AWS; takes minutes
	HEADRACE_REHEARSAL=1 $(RUN)/pytest tests/ops/test_ops_aws_smoke_rehearsal.py

lint: setup  ## style, types, and the direction of imports
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy
	$(RUN)/lint-imports

test: setup lint  ## everything that CI runs
	$(RUN)/pytest

test-postgres: setup  ## the capture's tests against another PostgreSQL, 14 or newer (BIN=/usr/lib/postgresql/15/bin)
	HEADRACE_POSTGRES_BIN=$(BIN) $(RUN)/pytest tests/producer_postgres

large-transaction: setup  ## memory and CPU for a transaction of a million rows (WORDS="--rows 5000000 --streamed")
	$(RUN)/python -m tests.producer_postgres.large_transaction $(WORDS)

bench-path: setup  ## changes/s, bytes and CPU of the whole path and of each stage
	$(RUN)/python -m bench.path

bench-streaming: setup  ## the streaming job against Spark's from_avro and from_json (WORDS="--rows 100000 --runs 1": short)
	$(RUN)/python -m bench.streaming $(WORDS)

bench-agent: setup  ## the agent against Debezium Server and pg_recvlogical (WORDS="--changes 20000 --runs 1 --without debezium": short)
	$(RUN)/python -m bench.agent $(WORDS)

outage-agent: setup  ## Kinesis unreachable while a million changes arrive, the agent restarted twice (N=1000000)
	HEADRACE_OUTAGE_CHANGES=$(or $(N),1000000) $(RUN)/pytest tests/producer/test_producer_outage.py

bench-fold: setup  ## the fold against Iceberg's MERGE and rewrite_data_files (WORDS="--only merge", "--rows 20000")
	$(RUN)/python -m bench.fold $(WORDS)

figure: setup  ## draw docs/fold-growth.svg from bench/results/fold.json
	$(RUN)/python -m bench.figure

large-fold: setup  ## fold a table of ten times the memory that a fold may use (WORDS="--rows 30000000")
	$(RUN)/python -m tests.fold.large_fold $(WORDS)

chaos-streaming: setup  ## kill the agent and the streaming job at random, again and again (N=200)
	$(RUN)/python -m tests.streaming.chaos --rounds $(or $(N),200) $(WORDS)

torn-streaming: setup  ## query the cut while a transaction of a million rows arrives block by block (ROWS=1000000)
	HEADRACE_TORN_ROWS=$(or $(ROWS),1000000) $(RUN)/pytest tests/streaming/test_streaming_torn.py -k large --durations 3

requirements:  ## pin the requirements*.in again (needs uv)
	uv pip compile --universal --python-version 3.11 --no-header --no-emit-index-url --generate-hashes requirements.in -o requirements.txt
	uv pip compile --universal --python-version 3.11 --no-header --no-emit-index-url --generate-hashes requirements-check.in -o requirements-check.txt
	uv pip compile --python-version 3.13 --python-platform x86_64-manylinux_2_34 --only-binary :all: --no-header --no-emit-index-url --generate-hashes requirements-glue.in -o requirements-glue.txt

clean:  ## remove what the demo and the tests left behind
	rm -rf .headrace build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

.PHONY: help check-machine setup demo demo-terraform glue-bundle terraform-check picture aws-smoke aws-smoke-rehearsal lint test test-postgres large-transaction bench-path bench-agent bench-streaming bench-fold figure large-fold outage-agent chaos-streaming torn-streaming requirements clean
