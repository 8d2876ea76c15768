# Every target installs what it needs first. Behind them stands the command line: bigger-boat --help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TEMPLATES := deploy/platform.yaml deploy/api.yaml deploy/team.yaml
export DAGSTER_HOME ?= $(CURDIR)
export PYTHONHASHSEED := 0
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install run up test test-slow bench lint lock fuzz soak kills clean

help:  ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

install: $(VENV)/.installed  ## virtual environment from the lock, checked by hash

$(VENV)/.installed: requirements.lock requirements-installer.lock setup.py
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else "Bigger Boat needs Python 3.11, 3.12 or 3.13 and this is %d.%d: try make PYTHON=python3.12 install" % v)'
	@echo "Installing into $(VENV) (a few minutes the first time) ..."
	$(PYTHON) -m venv --clear $(VENV)  # what an older lock left is no part of this one
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-installer.lock
	$(BIN)/uv --system-certs pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv --system-certs pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	$(BIN)/bigger-boat prepare
	@touch $@

run: install  ## a shop, the whole graph, two live endpoints and their answers
	@$(BIN)/bigger-boat run --demo

up: install  ## web UI and endpoint, until Ctrl-C
	@$(BIN)/bigger-boat up

test: install  ## the tests (at most 12 minutes on two cores)
	$(BIN)/python -m pytest -n 2 --dist=worksteal -m "not slow"

test-slow: install  ## the long tests
	$(BIN)/python -m pytest -n 2 --dist=worksteal -m slow

bench: install  ## benchmarks, each a ratio against a peer
	$(BIN)/bigger-boat bench

lint: install  ## style and formatting, the templates and their policies
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/cfn-lint $(TEMPLATES)
	$(BIN)/python tests/aws/iam_policies.py $(TEMPLATES)

lock: install  ## resolve the lock again from setup.py
	$(BIN)/uv --system-certs pip compile --quiet --universal --python-version 3.11 --generate-hashes --extra dev --extra team \
	  --custom-compile-command 'make lock' setup.py -o requirements.lock
	$(BIN)/uv --system-certs pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --constraint requirements.lock --custom-compile-command 'make lock' deploy/requirements-serving.in \
	  -o deploy/requirements-serving.lock

fuzz: install  ## 100,000 rude requests to a server of its own
	$(BIN)/python tests/serving/fuzz_server.py --requests 100000

soak: install  ## ten minutes of requests and swaps: memory stays, nothing fails
	$(BIN)/python tests/serving/soak_server.py --minutes 10

kills: install  ## kill -9, 50 times: a server that collects; runs, daemon and server of up. Nothing is lost or doubled
	$(BIN)/python tests/serving/kill_server.py --kills 30
	$(BIN)/python -m pytest -q -s tests/integration/test_kill_daemon.py --kills 20

clean:  ## remove the virtual environment and all data
	rm -rf $(VENV) data
