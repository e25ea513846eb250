# Two commands on a fresh machine: `make demo` and `make test`. Everything happens inside .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test lint types docs wheel bench clean

demo: $(STAMP)
	$(BIN)/v3s demo --out demo --overwrite

test: $(STAMP)
	$(BIN)/pytest -q -n auto --dist loadfile --cov --cov-report=
	$(BIN)/coverage report --format=total

lint: $(STAMP)
	$(BIN)/ruff check src tests benchmarks docs
	$(BIN)/ruff format --check src tests benchmarks docs

types: $(STAMP)
	$(BIN)/mypy

docs: $(STAMP)
	$(BIN)/pip install -q -c constraints.txt -e '.[docs]'
	$(BIN)/python docs/make_commands.py
	$(BIN)/sphinx-build -W -q docs docs/_build

# Builds what is published, and tries it where there is no checkout.
wheel: $(STAMP)
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python -m tests.release dist/*.whl

bench: $(STAMP)
	$(BIN)/pip install -q -c constraints.txt -e '.[bench]'
	$(BIN)/python -m benchmarks.data_path --quick
	$(BIN)/python -m benchmarks.train_step --quick
	$(BIN)/python -m benchmarks.embed --quick
	$(BIN)/python -m benchmarks.search --quick
	$(BIN)/python -m benchmarks.scaling --quick

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt -e '.[test,dev]'
	touch $(STAMP)

clean:
	rm -rf $(VENV) demo dist docs/_build .mypy_cache .ruff_cache .pytest_cache
