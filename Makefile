# make demo: everything from nothing to a report.    make test: the whole test suite.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export MLFLOW_TRACKING_URI ?= sqlite:///mlflow.db

.PHONY: demo test docs notebooks lint install clean
.DELETE_ON_ERROR:

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --constraint constraints.txt --editable ".[demo,solvers,test,docs,dev]"
	touch $@

demo: install
	$(BIN)/bpqp demo .

# One worker a core, each with one thread: more threads than cores wait for each other.
test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile

# The pages under docs/, in build/docs; a warning is an error.
docs: install
	$(BIN)/sphinx-build -W --keep-going -b html docs build/docs

# The notebooks again, in place, with their outputs: some ten minutes.
notebooks: install
	$(BIN)/python docs/execute_notebooks.py

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
