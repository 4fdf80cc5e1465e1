# Everything runs in a virtual environment that is made here, from setup.py.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export TF_CPP_MIN_LOG_LEVEL ?= 2

# Each process of the tests has a core, and threads would only wait for it.
test test-all: export TF_NUM_INTRAOP_THREADS ?= 1
test test-all: export TF_NUM_INTEROP_THREADS ?= 1

.PHONY: test test-all lint demo clean

# Lints, then tests all but what is marked slow.
test: lint
	$(BIN)/python -m pytest -q -n auto -m "not slow"

# Of the largest networks two at once need too much memory: one file, one process.
test-all: lint
	$(BIN)/python -m pytest -q -n auto --dist loadfile

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Trains a ResNet on handwritten digits, dense and pruned 10, 100 and 1000 times.
demo: $(VENV)/installed
	$(BIN)/python examples/train.py --output_dir=results/digits

$(VENV)/installed: setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[test]"
	touch $@

clean:
	rm -rf $(VENV) results
