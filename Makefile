# Everything runs in .venv, made here with pip and the pinned versions of constraints.txt.
# `make demo` and `make test` need only Python 3.11, pip and make.
PYTHON ?= python3.11
VENV := .venv
PY := $(VENV)/bin/python
# Two states of .venv: what the tool needs (enough for the demo), and all that the project needs.
LAB := $(VENV)/.ready-lab
ALL := $(VENV)/.ready
NETWORKS := $(VENV)/networks
REAL := tests/layers/test_real_networks.py
# Without --no-compile pip compiles all of torch, most of which no run imports.
INSTALL = $(PY) -m pip install --quiet --no-compile -c constraints.txt

.PHONY: demo test test-slow test-networks check docs bench bench-stacks reliability reliability-short clean

$(PY):
	$(PYTHON) -m venv $(VENV)

$(LAB): pyproject.toml constraints.txt | $(PY)
	$(INSTALL) -e '.[lab]'
	@touch $@

$(ALL): pyproject.toml constraints.txt | $(PY)
	$(INSTALL) -e '.[dev]'
	@touch $(LAB) $@

demo: $(LAB)  ## train a real network on the embedded digits, about a minute on two cores
	$(PY) -m freezeout train --preset demo

test: $(ALL)  ## the default tests, two at a time, each in one thread
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile

test-slow: $(ALL)  ## the tests too slow for every run
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile -m "slow and not gpu" --ignore $(REAL)

# torchvision and timm lie apart from .venv (see the extra "networks" in pyproject.toml); without
# their requirements, which .venv has, so that no other torch and no CUDA package comes along.
$(NETWORKS): pyproject.toml constraints.txt | $(ALL)
	$(INSTALL) --no-deps --upgrade --target $(NETWORKS) timm torchvision
	@touch $@

test-networks: $(NETWORKS)  ## how real networks of timm, torchvision and transformers are cut
	OMP_NUM_THREADS=1 PYTHONPATH=$(NETWORKS) $(PY) -m pytest -n 2 -m slow $(REAL)
	OMP_NUM_THREADS=1 PYTHONPATH=$(NETWORKS) $(PY) -m pytest tests/lab/models/test_examples.py -k timm

check: $(ALL)  ## lint, format, types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

docs: $(ALL)  ## run every example of the pages, parse every command, follow every link
	$(PY) -m pytest tests/test_docs.py

bench: $(ALL)  ## step-cost ratios on this machine
	$(PY) -m benchmarks.step.cost
	$(PY) -m benchmarks.step.witness

bench-stacks: $(ALL)  ## several processes, torch.compile, trainers, examples; an hour
	$(PY) -m benchmarks.stacks.ddp
	$(PY) -m benchmarks.stacks.compile
	$(PY) -m benchmarks.stacks.callbacks
	$(PY) -m benchmarks.stacks.examples
	$(PY) -m benchmarks.stacks.tables

reliability: $(ALL)  ## kills, damage, hostile words and texts: nothing may be lost or wrong; an hour
	OMP_NUM_THREADS=1 $(PY) -m benchmarks.reliability --minutes 60 --processes 2 \
	  --out benchmarks/results/reliability.json

reliability-short: $(ALL)  ## the same for a minute and a half
	OMP_NUM_THREADS=1 $(PY) -m benchmarks.reliability --minutes 1.5 --processes 2

clean:
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
