# Both `make demo` and `make test` set up all they need: Python ≥ 3.11 and a C library are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: install demo test tests long bench lint

install: $(INSTALLED)

# torch and torchvision are resolved by one call, so that they match.
$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[demo,dev]'
	touch $@

demo: install
	$(BIN)/riemannopt demo --output demo-run

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Modules are compiled once, not by each of Ray's workers, also in containers that turn that off.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# Lint and types beside the tests, which often wait.
test: install
	$(MAKE) --jobs 2 lint tests

# Two processes of one thread each, on two cores. Tests of one file run in one process.
tests: install
	$(PYTEST) -m 'not long'

# Speed against the bare model and others, in about an hour on a quiet machine of two cores.
bench: install
	$(BIN)/python -m benchmarks.bench --json bench.json --docs docs/bench.md

long: install
	$(PYTEST) -m long
