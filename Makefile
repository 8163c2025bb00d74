# SPDX-License-Identifier: Apache-2.0
# The set-up finds a Python that fits by itself; this one only has to start it.
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.10 python; do \
	$$p -c '' 2>/dev/null && echo $$p && break; done)
TASK ?= det
# Each test process takes up to 2 GiB.
WORKERS ?= 2

# A worker that is done takes over what another has not begun.
PYTEST = .venv/bin/python -m pytest -n $(WORKERS) --dist worksteal

.PHONY: demo test test-all setup lint foreign

demo: setup
	.venv/bin/python tools/demo.py --task $(TASK)

test: lint
	$(PYTEST) -m 'not slow'

# Everything, which a release needs: the slow tests and those with packages of others.
test-all: lint foreign
	$(PYTEST)

foreign: setup
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements/foreign.txt

lint: setup
	.venv/bin/ruff check
	.venv/bin/ruff format --check

setup:
	@$(or $(PYTHON),$(error no Python on the PATH; install one, for example apt-get install python3.11 python3.11-dev python3.11-venv)) tools/setup_env.py
