# make demo      starts private memcached servers, stores and reads typed objects, prints them
# make test      the whole check: lint, mypy, pyright, then pytest against a real memcached
# make check     lint and types only
# make test-django  Django's own tests of caches and sessions, on metacache-django
# make test-all  pytest on every Python from 3.11 to 3.14 that is found on PATH or in pyenv
# make test-servers  the tests that talk to memcached, with the one on PATH and with that of Debian 13
# make test-pydantic  the fingerprints of models, on pydantic 2.7, 2.10 and the newest
# make coverage  pytest with coverage; fails below 95 % of the lines of metacache/
# make docs      the documentation, as HTML in docs/_build
# make test-pure  the tests of code that has compiled primitives, with these turned off
# make test-sanitized  the tests of the primitives under ASan and UBSan
# make bench     goals, instructions and times, side by side with other clients
# make bench-results  measures the comparison with other clients again: docs/explanation/benchmarks.md and its charts
# make bench-check  fails if an instruction count rose by more than 5 % (5 min on a quiet machine)
# make storm     random faults under load, 10,000,000 operations; OPERATIONS=N MINUTES=N SEED=N limit and repeat it
# make fuzz      random bytes for everything that reads bytes of others, for MINUTES=20
# Each installs what is missing: a virtual environment, memcached, a C compiler and, for bench, valgrind. Without a
# compiler everything goes on in pure Python.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
APT := $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get
PROJECTS := $(wildcard pyproject.toml plugins/*/pyproject.toml)
SPEED := plugins/metacache-speed
PLUGINS := $(filter-out $(SPEED),$(patsubst %/pyproject.toml,%,$(wildcard plugins/*/pyproject.toml)))
EDITABLE_PLUGINS := $(foreach plugin,$(PLUGINS),-e ./$(plugin))
PIP := $(BIN)/python -m pip --disable-pip-version-check install --progress-bar off
STEP := scripts/step
# How long each part of `make test` took; shown at its end.
TIMES := $(VENV)/times
PYTEST := $(BIN)/python -m pytest -q
PARALLEL := -m "not alone" --numprocesses=auto --dist=worksteal
ALONE := -m alone
# The tests that reach compiled primitives.
PRIMITIVE := $(addprefix tests/,acceleration protocol transports client cluster pool routing live observe test_interrupts.py)
# Installs a Debian package.
apt = $(STEP) --quiet apt "$(1), which is missing (30 s)" \
    sh -c '$(APT) update -qq && $(APT) install -y -qq --no-install-recommends $(1)'
COVERAGE := --cov=metacache --cov-report= --cov-fail-under=0

.PHONY: demo test test-all test-pure test-sanitized test-django test-pydantic check lint types mypy pyright pytest pytest-parallel pytest-alone coverage bench bench-results bench-check storm fuzz docs clean \
    memcached memcached-if-possible valgrind python3-venv
.NOTPARALLEL:

demo: $(VENV)/.installed memcached-if-possible
	@$(STEP) demo "typed objects in private memcached servers (2 s)" $(BIN)/python -m metacache demo

test: $(VENV)/.dev $(VENV)/.speed memcached
	@rm -f $(TIMES)
	@STEP_TIMES=$(TIMES) $(MAKE) --no-print-directory check pytest test-pure; status=$$?; \
	    echo; echo "    How long each part took:"; cat $(TIMES); exit $$status

test-all: memcached
	@scripts/test-all

test-servers: $(VENV)/.dev memcached
	@PYTHON=$(BIN)/python scripts/test-servers

test-pydantic: $(BIN)/python
	@$(STEP) test-pydantic "fingerprints on three versions of pydantic (40 s)" env PYTHON=$(BIN)/python scripts/test-pydantic

test-django: $(BIN)/python memcached
	@$(STEP) test-django "Django's own tests, on two versions of Django (3 min)" scripts/test-django $(BIN)/python

check: lint types

lint: $(VENV)/.dev
	@$(STEP) lint "ruff, mistakes and style (1 s)" $(BIN)/ruff check .
	@$(STEP) format "ruff, the layout of every file (1 s)" $(BIN)/ruff format --check .

types: mypy pyright

mypy: $(VENV)/.dev
	@$(STEP) mypy "strict types (1 min, later runs 5 s)" $(BIN)/mypy

pyright: $(VENV)/.dev
	@$(STEP) pyright "strict types, by basedpyright (1 min)" $(BIN)/basedpyright

pytest: pytest-parallel pytest-alone

pytest-parallel: $(VENV)/.dev $(VENV)/.speed memcached
	@$(STEP) pytest-parallel "tests that can share the machine (6 min)" $(PYTEST) $(PARALLEL)

pytest-alone: $(VENV)/.dev $(VENV)/.speed memcached
	@$(STEP) pytest-alone "tests that need it for themselves (2 min)" $(PYTEST) $(ALONE)

test-pure: $(VENV)/.dev $(VENV)/.speed memcached
	@$(BIN)/python -c 'import sys, metacache; sys.exit(not metacache.accelerated)' || \
	    { echo "    test-pure: nothing to do, the tests ran in pure Python already"; exit 0; }; \
	    export METACACHE_PURE=1; \
	    $(STEP) pure-parallel "the same in pure Python (3 min)" $(PYTEST) $(PARALLEL) $(PRIMITIVE) && \
	    $(STEP) pure-alone "the same in pure Python (1 min)" $(PYTEST) $(ALONE) $(PRIMITIVE)

test-sanitized: $(VENV)/.dev $(VENV)/.speed memcached
	@$(STEP) test-sanitized "the primitives under ASan and UBSan (3 min)" scripts/test-sanitized $(BIN)/python

coverage: $(VENV)/.dev memcached
	@$(STEP) coverage-parallel "as pytest-parallel, counting lines (4 min)" $(PYTEST) $(PARALLEL) $(COVERAGE)
	@$(STEP) coverage-alone "as pytest-alone, counting lines (2 min)" $(PYTEST) $(ALONE) $(COVERAGE) --cov-append
	@$(STEP) coverage "lines that no test runs; fails below 95 %" $(BIN)/coverage report --fail-under=95

bench: $(VENV)/.dev $(VENV)/.speed memcached valgrind
	$(BIN)/python -m benchmarks

bench-results: $(VENV)/.dev $(VENV)/.speed memcached valgrind
	@$(STEP) bench-results "every figure of docs/explanation/benchmarks.md (10 min, on a quiet machine)" \
	    $(BIN)/python -m benchmarks.suite all

bench-check: $(VENV)/.dev memcached valgrind
	METACACHE_PURE=1 $(BIN)/python -m benchmarks.check

storm: $(VENV)/.dev memcached
	@$(STEP) storm "random faults under load (up to 40 min; MINUTES=20 ends it earlier)" $(BIN)/python -m storms \
	    $(if $(OPERATIONS),--operations $(OPERATIONS)) $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED))

fuzz: $(VENV)/.dev $(VENV)/.speed
	@$(STEP) fuzz "random bytes, by atheris ($(or $(MINUTES),20) min)" $(BIN)/python -m fuzzing --minutes $(or $(MINUTES),20)

docs: $(VENV)/.docs
	@$(STEP) docs "HTML in docs/_build/index.html (20 s)" \
	    $(BIN)/python -m sphinx -n -W --keep-going -q -b html docs docs/_build

clean:
	rm -rf $(VENV) .venvs .servers docs/_build .mypy_cache .pytest_cache .ruff_cache .hypothesis .fuzz .coverage

# --- what is needed ----------------------------------------------------------------------------------------------

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "metacache needs Python 3.11 or newer")'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || $(MAKE) --no-print-directory python3-venv
	@$(STEP) venv "a virtual environment in $(VENV) (5 s)" $(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(PROJECTS) | $(BIN)/python
	@$(STEP) --pip pip "metacache and its plugins (15 s)" $(PIP) -e . $(EDITABLE_PLUGINS)
	@touch $@

# The other clients too: the benchmarks are type-checked with everything else.
$(VENV)/.dev: $(PROJECTS) | $(BIN)/python
	@$(STEP) --pip pip "metacache, its plugins, checkers and test tools (1 min)" \
	    $(PIP) -e '.[dev,bench,docs]' $(EDITABLE_PLUGINS)
	@touch $@ $(VENV)/.installed $(VENV)/.docs

# The reference is made from the docstrings of the installed package.
$(VENV)/.docs: $(PROJECTS) | $(BIN)/python
	@$(STEP) --pip pip "metacache and Sphinx (30 s)" $(PIP) -e '.[docs]'
	@touch $@

# Compiled primitives, built from source. Without a compiler, headers or xxhash.h everything else works in pure Python.
$(VENV)/.speed: $(VENV)/.installed $(wildcard $(SPEED)/src/*) $(SPEED)/pyproject.toml
	@scripts/build-speed $(BIN)/python $(SPEED)
	@touch $@

memcached:
	@command -v memcached >/dev/null || $(call apt,memcached)

# Without memcached and without apt, the demo uses the embedded server.
memcached-if-possible:
	@command -v memcached >/dev/null || ! command -v apt-get >/dev/null || $(call apt,memcached) || \
	    echo "memcached could not be installed; the demo uses the embedded server"

valgrind:
	@command -v valgrind >/dev/null || $(call apt,valgrind)

python3-venv:
	@$(call apt,python3-venv)
