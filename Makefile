# make verify   install into .venv, then compare every framework and strategy with the reference
# make test     install into .venv, then run the whole test suite
# make matrix   verify every derivative, and write the outcome into README.md
# make bench    measure fpicore beside its peers: SPEED_ARGS="--problems conv --libs torchdeq fpicore-torch"
# make lint     ruff and pyright
# make build    source archive and wheel, in dist/
# make clean    remove .venv and everything that was built
#
# A fresh machine needs Python 3.11 or newer and make. Another interpreter: make verify PYTHON=python3.12

PYTHON ?= python3
WORKERS ?= 2
PYTEST_ARGS ?=
SPEED_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt
INPUTS := pyproject.toml constraints.txt

# A stamp stands for a finished installation; it is out of date when one of INPUTS changed.
USER_STAMP := $(VENV)/.installed-all
DEVELOPER_STAMP := $(VENV)/.installed-dev
BENCH_STAMP := $(VENV)/.installed-bench

# The test workers share the cores, and on an accelerator its memory.
TEST_ENV := OMP_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1 \
	TF_CPP_MIN_LOG_LEVEL=2 TF_FORCE_GPU_ALLOW_GROWTH=true XLA_PYTHON_CLIENT_PREALLOCATE=false

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help verify test matrix bench lint build clean

help:
	@sed -n 's/^# \(make \)/\1/p' Makefile

verify: $(USER_STAMP)
	TF_CPP_MIN_LOG_LEVEL=2 $(BIN)/fpicore verify

test: $(DEVELOPER_STAMP)
	$(TEST_ENV) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

matrix: $(USER_STAMP)
	TF_CPP_MIN_LOG_LEVEL=2 $(BIN)/fpicore verify --only matrix --markdown README.md

bench: $(BENCH_STAMP)
	$(BIN)/python -m benchmarks.speed $(SPEED_ARGS)

lint: $(DEVELOPER_STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright

build: $(DEVELOPER_STAMP)
	rm -rf dist
	$(BIN)/python -m build

clean:
	rm -rf $(VENV) dist build .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "fpicore needs Python 3.11 or newer; '$(PYTHON)' is: $$($(PYTHON) --version 2>&1)." >&2; \
		echo "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(USER_STAMP): $(INPUTS) | $(BIN)/python
	$(INSTALL) --editable '.[all]'
	touch $@

$(BENCH_STAMP): $(INPUTS) | $(BIN)/python
	$(INSTALL) --editable '.[all,bench]'
	touch $@

# The developer's installation contains the user's.
$(DEVELOPER_STAMP): $(INPUTS) | $(BIN)/python
	$(INSTALL) --editable '.[all,test,dev]'
	touch $(USER_STAMP) $@
