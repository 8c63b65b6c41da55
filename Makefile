# What a person or CI does with pagefleet. Everything runs from .venv, which `install` makes.
#
#   make demo           a study of nine recorded guests on one small host; ends with a table and report.html
#   make test           every test: compiled, then those marked three_ways checked and uncompiled
#   make lint           format, ruff, types, import contracts
#   make bench          the benchmarks beside their C twins
#   make kernel-check   the simulated kernel against a real one's counters
#   make mutation       one-line faults seeded into kernels: a check or a test must see each
#   make clean          removes .venv and what tools left (runs/ stays)
#
# PYTHON names the interpreter that .venv is made with (3.11 or later).

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
NEED := @.ci/need-packages
PYTEST := $(BIN)/python -m pytest
WARM := $(BIN)/python -m node.warm

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help install demo test test-compiled test-checked test-uncompiled lint bench kernel-check mutation clean

help:
	@sed -n 's/^#   //p' Makefile

install: $(INSTALLED)

# The marker is younger than what it was made from, so a second `make install` does nothing.
$(INSTALLED): pyproject.toml constraints.txt
	$(NEED) install
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt setuptools
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
	    --no-build-isolation --editable '.[dev]'
	@touch $@

demo: install
	$(NEED) demo
	$(WARM)
	$(BIN)/pagefleet run scenarios/consolidation.yaml

test: test-compiled test-checked test-uncompiled

test-compiled: install
	$(NEED) test
	$(WARM)
	$(PYTEST) -n 2

# A checked build tests every table index.
test-checked: install
	PAGEFLEET_CHECKED=1 $(WARM)
	PAGEFLEET_CHECKED=1 $(PYTEST) -n 2 -m three_ways

# The same source as plain Python.
test-uncompiled: install
	NUMBA_DISABLE_JIT=1 $(PYTEST) -n 2 -m three_ways

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install
	$(NEED) bench
	$(BIN)/python -m benchmarks

# First against recordings that are kept, then against two made afresh: a kernel boots in QEMU.
kernel-check: install
	$(NEED) kernel-check
	$(BIN)/pagefleet check tests/golden/*.json.gz
	$(BIN)/pagefleet check tests/golden/own/*.json.gz
	$(BIN)/python -m tests.kernel.compare tests/kernel/cases/*.pf

# Every fault goes into a scratch copy; kernels run as plain Python.
mutation: install
	$(BIN)/python -m tests.mutation --jobs 2

clean:
	rm -rf .venv build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
