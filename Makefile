# SPDX-License-Identifier: Apache-2.0
# The set-up finds a Python that fits by itself; this one only has to start it.
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.10 python; do \
	$$p -c '' 2>/dev/null && echo $$p && break; done)
TASK ?= det

.PHONY: demo test setup lint

demo: setup
	.venv/bin/python tools/demo.py --task $(TASK)

test: lint
	.venv/bin/python -m pytest

lint: setup
	.venv/bin/ruff check
	.venv/bin/ruff format --check

setup:
	@$(or $(PYTHON),$(error no Python on the PATH; install one, for example apt-get install python3.11 python3.11-dev python3.11-venv)) tools/setup_env.py
