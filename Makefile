# One line of help a target: `make` or `make help` prints them.
PYTHON ?= python3
BIN := .venv/bin
# Large blocks are kept instead of returned: the default allocator spends about 40 % of the CPU time
# of a convolutional net in page faults (measured: 24.6 -> 45.9 images a second).
export MALLOC_MMAP_THRESHOLD_ ?= 4000000000
export MALLOC_TRIM_THRESHOLD_ ?= 16000000000
export MALLOC_TOP_PAD_ ?= 500000000
# Threads that wait must not spin: on a busy machine a training step spins away two thirds of its
# CPU time and takes 2.4 times as long (make bench measures it).
export GOMP_SPINCOUNT ?= 1000
# Nor must those of BLAS, whose problems here are too small to be parted.
export OPENBLAS_NUM_THREADS ?= 1
# Texts are UTF-8 also where the locale of a cluster is another.
export PYTHONUTF8 ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test check notebooks lab bench readme clean

help:  ## print this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## /  make \1\t/' | expand -t 18

setup: .venv/.installed  ## virtual environment in .venv with the locked packages
.venv/.installed: pyproject.toml requirements.lock
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[dev]'
	touch $@

# One thread a notebook, by which the README's rows and figures/phantom/ were made: bits follow it.
demo: setup  ## the whole thesis chapter on synthetic radiographs (about 25 CPU minutes)
	OMP_NUM_THREADS=1 $(BIN)/bonelib run --profile demo --jobs 2

test: setup check notebooks  ## set-up, ruff, types, unit tests and all notebooks on the tiny profile

check: setup  ## ruff, the types of the spine and the unit tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyrefly check --python-interpreter-path $(BIN)/python
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not notebooks'

notebooks: setup  ## all notebooks on the tiny profile, in order
	$(BIN)/python -m pytest -m notebooks

# What JupyterLab writes into a notebook that runs. Git strips it (.gitattributes), so that Run All
# leaves the checkout as it was.
RUN_KEYS := metadata.papermill cell.metadata.papermill cell.metadata.execution \
	$(addprefix metadata.language_info.,codemirror_mode file_extension mimetype nbconvert_exporter \
	pygments_lexer version)
STRIP := nbstripout --keep-id --extra-keys "$(strip $(RUN_KEYS))"

lab: setup  ## JupyterLab on notebook 01; what a Run All writes stays out of git (LAB=options)
	-git config filter.notebooks.clean '"$(CURDIR)/$(BIN)"/$(STRIP) | sed "s/Python 3 (ipykernel)/Python 3/"'
	$(BIN)/bonelib lab -- $(LAB)

# The rivals that nothing else needs, so that each is measured and none is left out.
.venv/.installed-bench: .venv/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[bench]'
	touch $@
bench: setup .venv/.installed-bench  ## ours beside the alternative, also in benchmarks/results.json
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/run.py

readme: setup  ## write the results tables of README.md and docs from the kept figures
	$(BIN)/bonelib results

clean:  ## strip notebook outputs, remove caches and tiny runs
	$(BIN)/$(STRIP) notebooks/*.ipynb
	rm -rf runs/tiny .pytest_cache .ruff_cache build *.egg-info
