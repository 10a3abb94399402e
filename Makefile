# Both `make demo` and `make test` set up all they need: Python ≥ 3.11 and a C library are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: install demo test lint

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

# Three processes of one thread each, on two cores: tests wait for actors, servers and retries, too. A file's tests
# share its Ray.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder
