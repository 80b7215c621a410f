# Everything runs in .venv, made here with pip and the pinned versions of constraints.txt.
# `make demo` and `make test` need only Python 3.11, pip and make.
PYTHON ?= python3.11
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready

.PHONY: demo test test-slow check bench bench-stacks clean

$(READY): pyproject.toml constraints.txt
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(READY)  ## train a real network on the embedded digits, about a minute on two cores
	$(PY) -m freezeout train --preset demo

test: $(READY)  ## the default tests, two at a time, each in one thread
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile

test-slow: $(READY)  ## the tests too slow for every run
	$(PY) -m pytest -m slow

check: $(READY)  ## lint, format, types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

bench: $(READY)  ## step-cost ratios on this machine
	$(PY) benchmarks/step_cost.py

bench-stacks: $(READY)  ## several processes, torch.compile, trainers, examples; an hour
	$(PY) benchmarks/ddp_step.py
	$(PY) benchmarks/compile_run.py
	$(PY) benchmarks/callback_overhead.py
	$(PY) benchmarks/examples.py
	$(PY) benchmarks/stack_tables.py

clean:
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
