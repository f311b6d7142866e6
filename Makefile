# Everything from a fresh clone, in its own .venv. `make demo` and `make test` are all a newcomer needs.
PYTHON ?= python3
BIN := .venv/bin
# Test processes: as many as there are cores to use.
WORKERS ?= 2
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

# Tests start many processes. Where bytecode may not be written, each would compile all that it imports anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test complete check types quick bench-test nightly test-browser fuzz kills format docs site matrix bench lowest audit clean

# What the demonstration needs, without the extra dev. A module is compiled when it is first imported: most never are.
.venv/.installed: pyproject.toml
	@echo "Installing afresh into .venv, in half a minute if its packages are near at hand"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check -q --no-compile -e '.[serve]'
	touch $@

.venv/.ready: .venv/.installed
	$(BIN)/pip install --disable-pip-version-check -q -e '.[dev]'
	touch $@

demo: .venv/.installed
	$(BIN)/afresh demo --force

test: .venv/.ready
	$(PYTEST) -m "not browser"

# What some tests need: Ray, wandb, a server of S3 and a browser. Each installs in a minute; a machine that cannot have one
# of them skips its tests. moto comes after s3fs is there: together, pip tries a hundred versions of botocore for both.
complete: .venv/.ready
	-timeout 300 $(BIN)/pip install --disable-pip-version-check -q 'moto[s3,server]>=5'
	-timeout 300 $(BIN)/pip install --disable-pip-version-check -q -e '.[cluster]' wandb
	-command -v chromium || command -v chromium-browser || command -v google-chrome || \
		(apt-get update -qq && apt-get install -y -qq chromium)

check: .venv/.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(MAKE) --no-print-directory -j 2 types quick

types: .venv/.ready
	$(BIN)/mypy

quick: .venv/.ready
	$(PYTEST) -m "not slow and not browser"

# With TRL and verl, whose steps of alignment ours are compared with; without them, these tests are skipped. Types tell
# where a benchmark, which takes hours, no longer fits the package.
bench-test: .venv/.ready
	-timeout 300 $(BIN)/pip install --disable-pip-version-check -q 'trl>=1.16'
	-$(BIN)/pip install --disable-pip-version-check -q --no-deps verl
	$(BIN)/mypy benchmarks
	$(PYTEST) benchmarks/tests

# What takes minutes and seldom changes: every family on a device without float64, and random requests to every endpoint
# of the server, whose answers must be those that its description promises (EXAMPLES of each, 50 if not given).
nightly: .venv/.ready
	$(BIN)/pip install --disable-pip-version-check -q 'schemathesis>=4'
	$(PYTEST) --timeout 3600 tests/core/without_float64.py tests/core/without_waiting.py tests/faces/http/conformance.py

# The studio and the site in a browser, which is installed if there is none.
test-browser: .venv/.ready
	command -v chromium || command -v chromium-browser || command -v google-chrome || apt-get install -y chromium
	BROWSER_REQUIRED=1 $(PYTEST) -m browser tests/faces/http/studio tests/services/catalogue tests/test_site.py

# Files of tiny runs of every kind are changed at random; every command must work or say what is wrong. `--first N` goes
# on from mutation N: `.venv/bin/python -m tools.fuzz --first N --mutations 1` repeats one.
fuzz: .venv/.ready
	$(BIN)/python -m tools.fuzz --mutations 10000

# Runs of every kind, and of every way to end early, are killed at 40 points each; all must end with the same bits.
kills: .venv/.ready
	$(BIN)/python -m tools.kills 40

format: .venv/.ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: .venv/.ready
	$(BIN)/python -m docs.generate

# The pages as a site that needs no network, in build/site; a link that leads nowhere ends the build.
site: .venv/.ready
	$(BIN)/python -m sphinx -W --keep-going -q docs build/site

matrix: .venv/.ready
	$(BIN)/python -m tools.matrix --seeds 3 --write

bench: .venv/.ready
	$(BIN)/pip install --disable-pip-version-check -q -e '.[dev,bench]'
	$(BIN)/python -m benchmarks all

# The quick tests with the lowest versions that pyproject.toml allows; FREE=torch where there is one build of it.
lowest:
	$(PYTHON) -m venv .venv-lowest
	$(PYTHON) -m tools.lowest $(FREE) > .venv-lowest/constraints.txt
	.venv-lowest/bin/pip install -q -c .venv-lowest/constraints.txt -e '.[dev]'
	.venv-lowest/bin/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow and not browser"

# Known weaknesses of the dependencies, a bill of materials (CycloneDX), and hashes of what a release is installed with.
audit: .venv/.installed
	mkdir -p build
	$(PYTHON) -m venv build/audit
	build/audit/bin/pip install --disable-pip-version-check -q pip-audit cyclonedx-bom
	build/audit/bin/cyclonedx-py environment --output-file build/sbom.cdx.json $(BIN)/python
	$(BIN)/pip install -q --dry-run --ignore-installed --report build/release.json .
	build/audit/bin/pip-audit --skip-editable --path "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"

clean:
	rm -rf .venv .venv-lowest build dist .pytest_cache .mypy_cache .ruff_cache
