# Everything from a fresh clone, in its own .venv. `make demo` and `make test` are all a newcomer needs.
PYTHON ?= python3
BIN := .venv/bin
# Test processes: as many as there are cores to use.
WORKERS ?= 2
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

.PHONY: demo test check types quick bench-test format docs matrix bench clean

# What the demonstration needs, without the extra dev. A module is compiled when it is first imported: most never are.
.venv/.installed: pyproject.toml
	@echo "Installing afresh into .venv, in half a minute if its packages are near at hand"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check -q --no-compile -e .
	touch $@

.venv/.ready: .venv/.installed
	$(BIN)/pip install --disable-pip-version-check -q -e '.[dev]'
	touch $@

demo: .venv/.installed
	$(BIN)/afresh demo

test: .venv/.ready
	$(PYTEST)

check: .venv/.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(MAKE) --no-print-directory -j 2 types quick

types: .venv/.ready
	$(BIN)/mypy

quick: .venv/.ready
	$(PYTEST) -m "not slow"

bench-test: .venv/.ready
	$(PYTEST) benchmarks/tests

format: .venv/.ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: .venv/.ready
	$(BIN)/python -m docs.generate

matrix: .venv/.ready
	$(BIN)/python -m tests.matrix --seeds 3 --write

bench: .venv/.ready
	$(BIN)/pip install --disable-pip-version-check -q -e '.[dev,bench]'
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache
