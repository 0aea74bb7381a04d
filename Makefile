# Two commands do everything on a machine that has only Python 3.11 and make: `make demo` and `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test test-all lint docs bench clean

demo: $(INSTALLED)
	$(BIN)/archsearch data make demo/clips
	$(BIN)/archsearch search search_spaces/demo.yaml demo/clips --out demo/run --recipe recipes/demo.yaml
	$(BIN)/archsearch front demo/run --figure demo/front.png
	@echo "the front as a picture: demo/front.png"

test: lint
	$(BIN)/pytest -n 3 --dist loadfile -m "not slow and not gpu"

test-all: lint
	$(BIN)/pytest -n 2 --dist worksteal

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(INSTALLED)
	$(BIN)/python docs/api_reference.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "the documentation: build/site/index.html"

# Every short benchmark, each at most five minutes, into docs/benchmarks.md; on a machine that does nothing else.
bench: $(INSTALLED)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python benchmarks/bench.py

$(INSTALLED): pyproject.toml constraints.txt
	@echo "installing into $(VENV); this takes a few minutes"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[ray,check,dev]'
	@touch $@

clean:
	rm -rf $(VENV) demo build dist .mypy_cache .ruff_cache .pytest_cache
