# Two commands on a fresh machine: `make demo` and `make test`. Everything lives in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Pinned by version and hash: what installs (bootstrap), what builds (build), and everything else (requirements.lock).
LOCKS := scripts/locks
BUILD_PINS := --build-constraints $(LOCKS)/build.txt --require-build-hashes

.PHONY: sbom setup demo test quick check proto bench lock wheels format clean

# All that is needed, into .venv; every other target does it too.
setup: $(READY)

demo: $(READY)
	@$(BIN)/hutong demo

# Two tests at a time: most of them wait for processes, fsyncs and timers.
test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist worksteal

# Within a minute: all but what starts processes or takes seconds.
quick: $(READY)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not process and not slow"

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python scripts/supply.py licences
	scripts/check_proto.sh
	$(BIN)/python scripts/generate_docs.py --check

# The messages in proto/gen, and their documentation in docs/api and docs/errors.md.
proto: $(READY)
	scripts/generate_proto.sh
	$(BIN)/python scripts/generate_docs.py

# Accepts that answers or rows of the journal have changed: writes tests/golden anew, for `git diff` to show.
golden: $(READY)
	HUTONG_GOLDEN=accept $(BIN)/python -m pytest -q tests/golden -k "as_they_were and sqlite"
	$(BIN)/python -m pytest -q tests/golden

bench: $(READY)
	$(BIN)/hutong bench

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Pins every dependency, extras and development tools included, for all platforms of Python >= 3.11.
lock: $(READY)
	$(BIN)/uv pip compile --quiet pyproject.toml --all-extras --group dev --universal --python-version 3.11 \
	  --generate-hashes --no-header --no-annotate --no-emit-package hutong-client -o requirements.lock
	printf 'uv\n' | $(BIN)/uv pip compile --quiet - --universal --python-version 3.11 --generate-hashes --no-header --no-annotate -o $(LOCKS)/bootstrap.txt
	printf 'hatchling\neditables\n' | $(BIN)/uv pip compile --quiet - --universal --python-version 3.11 --generate-hashes --no-header --no-annotate -o $(LOCKS)/build.txt

# Both wheels and source distributions, into dist/.
wheels: $(READY)
	$(BIN)/uv build --all-packages --build-constraints $(LOCKS)/build.txt --require-hashes

# What it is made of, as CycloneDX: dist/hutong.cdx.json.
sbom: $(READY)
	$(BIN)/python scripts/supply.py sbom dist/hutong.cdx.json

$(READY): requirements.lock $(LOCKS)/bootstrap.txt $(LOCKS)/build.txt pyproject.toml clients/python/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Hutong needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "python3 cannot make a virtual environment; on Debian: apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r $(LOCKS)/bootstrap.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps $(BUILD_PINS) --editable clients/python --editable .
	@touch $@

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
