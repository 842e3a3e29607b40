# One line of help a target: `make` or `make help` prints them.
PYTHON ?= python3
BIN := .venv/bin
# Large blocks are kept instead of returned: the default allocator spends about 40 % of the CPU time
# of a convolutional net in page faults (measured: 24.6 -> 45.9 images a second).
export MALLOC_MMAP_THRESHOLD_ := 4000000000
export MALLOC_TRIM_THRESHOLD_ := 16000000000
export MALLOC_TOP_PAD_ := 500000000

.DEFAULT_GOAL := help
.PHONY: help setup demo test check notebooks lab bench clean

help:  ## print this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## /  make \1\t/' | expand -t 18

setup: .venv/.installed  ## virtual environment in .venv with the locked packages
.venv/.installed: pyproject.toml requirements.lock
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[dev]'
	touch $@

demo: setup  ## the whole thesis chapter on synthetic radiographs (about 20 minutes)
	$(BIN)/bonelib run --profile demo

test: setup check notebooks  ## set-up, ruff, unit tests and all notebooks on the tiny profile

check: setup  ## ruff and the unit tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not notebooks'

notebooks: setup  ## all notebooks on the tiny profile, in order
	$(BIN)/python -m pytest -m notebooks

lab: setup  ## JupyterLab in notebooks/
	$(BIN)/jupyter lab --ServerApp.root_dir=notebooks

bench: setup  ## ours beside the alternative: ratio and target, also in benchmarks/results.json
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/run.py

clean:  ## strip notebook outputs, remove caches and tiny runs
	$(BIN)/nbstripout --keep-id --extra-keys "metadata.papermill cell.metadata.papermill" notebooks/*.ipynb
	rm -rf runs/tiny .pytest_cache .ruff_cache build *.egg-info
