# SPDX-License-Identifier: Apache-2.0
# The set-up finds a Python that fits by itself; this one only has to start it.
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.10 python; do \
	$$p -c '' 2>/dev/null && echo $$p && break; done)
TASK ?= det
# Each test process takes up to 2 GiB.
WORKERS ?= 2

.PHONY: demo test setup lint

demo: setup
	.venv/bin/python tools/demo.py --task $(TASK)

test: lint
	.venv/bin/python -m pytest -n $(WORKERS) --dist loadfile

lint: setup
	.venv/bin/ruff check
	.venv/bin/ruff format --check

setup:
	@$(or $(PYTHON),$(error no Python on the PATH; install one, for example apt-get install python3.11 python3.11-dev python3.11-venv)) tools/setup_env.py
