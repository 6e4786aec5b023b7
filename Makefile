# make demo    starts a private memcached, stores and reads typed objects, prints them
# make test    the whole check: lint, mypy, pyright, then pytest against a real memcached
# make check   lint and types only
# make bench   instructions and times, side by side with other clients
# make docs    the documentation, as HTML in docs/_build
# Each installs what is missing: a virtual environment, memcached and, for bench, valgrind.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
APT := $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get
PROJECTS := $(wildcard pyproject.toml plugins/*/pyproject.toml)
PLUGINS := $(patsubst %/pyproject.toml,%,$(wildcard plugins/*/pyproject.toml))
EDITABLE_PLUGINS := $(foreach plugin,$(PLUGINS),-e ./$(plugin))
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test check lint types pytest bench docs clean memcached valgrind

demo: $(VENV)/.installed memcached
	$(BIN)/python -m metacache demo

test: check pytest

check: lint types

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy
	$(BIN)/basedpyright

pytest: $(VENV)/.dev memcached
	$(BIN)/python -m pytest

bench: $(VENV)/.dev memcached valgrind
	$(BIN)/python -m benchmarks

docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -n -W --keep-going -q -b html docs docs/_build
	@echo "docs/_build/index.html"

clean:
	rm -rf $(VENV) docs/_build .mypy_cache .pytest_cache .ruff_cache .hypothesis

# --- what is needed ----------------------------------------------------------------------------------------------

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "metacache needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); $(APT) update -qq && $(APT) install -y -qq python3-venv && $(PYTHON) -m venv $(VENV); }

$(VENV)/.installed: $(PROJECTS) | $(BIN)/python
	$(PIP) -e . $(EDITABLE_PLUGINS)
	@touch $@

# The other clients too: the benchmarks are type-checked with everything else.
$(VENV)/.dev: $(PROJECTS) | $(BIN)/python
	$(PIP) -e '.[dev,bench,docs]' $(EDITABLE_PLUGINS)
	@touch $@ $(VENV)/.installed $(VENV)/.docs

# The reference is made from the docstrings of the installed package.
$(VENV)/.docs: $(PROJECTS) | $(BIN)/python
	$(PIP) -e '.[docs]'
	@touch $@

memcached:
	@command -v memcached >/dev/null || { $(APT) update -qq && $(APT) install -y -qq memcached; }

valgrind:
	@command -v valgrind >/dev/null || { $(APT) update -qq && $(APT) install -y -qq valgrind; }
