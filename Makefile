# The project's commands. All make .venv and install into it the first time.

VENV := .venv
PYTHON := $(VENV)/bin/python
WORKDIR ?= runs/digits
OUTPUT ?= runs/accelerator

# Which Python makes the environment: 3.11, 3.12 or 3.13.
SYSTEM_PYTHON ?= python3

# Which Python measures the accelerator; one that has the packages needs no .venv.
ACCELERATOR_PYTHON ?= $(PYTHON)

.PHONY: pretrain test docs accelerator clean

# Pre-trains on real images (scikit-learn's digits) and shows what was learned.
pretrain: $(VENV)/installed
	$(PYTHON) -m experiments.pretrain --config=configs/pretrain/digits.py --workdir=$(WORKDIR)

# Lint and types, then the whole suite, its files in order: the long ones do not come last.
test: $(VENV)/installed-test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy --cache-dir=$(VENV)/mypy_cache
	$(PYTHON) -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder $(PYTEST_ARGS)

# Writes the configuration reference anew, and builds the pages of docs/ as a site.
docs: $(VENV)/installed-test
	$(PYTHON) -m docs.reference
	$(PYTHON) -m sphinx -W --keep-going --quiet docs build/docs
	@echo 'open build/docs/index.html'

# Checks and measures on the accelerator of this machine, in nine minutes at most.
accelerator: $(if $(filter $(PYTHON),$(ACCELERATOR_PYTHON)),$(VENV)/installed)
	$(ACCELERATOR_PYTHON) -m benchmarks.accelerator --output_dir=$(OUTPUT) $(ACCELERATOR_ARGS)

$(VENV)/installed: requirements.txt setup.py
	@echo 'installing into $(VENV), which takes a minute or more'
	$(SYSTEM_PYTHON) -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --requirement requirements.txt
	$(PYTHON) -m pip install --quiet --no-deps --editable .
	touch $@

$(VENV)/installed-test: $(VENV)/installed docs/requirements.txt
	@echo 'installing what the tests need'
	$(PYTHON) -m pip install --quiet --constraint requirements.txt \
	  --constraint docs/requirements.txt --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV) .jax_cache
