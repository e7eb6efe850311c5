# Everything runs in .venv, made here with the pinned versions of constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo_output

.PHONY: demo test lint bench sample clean

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(VENV)/.ready
	$(BIN)/geo-refdiff demo $(DEMO)

test: $(VENV)/.ready
	$(BIN)/python -m pytest

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build/typed && mkdir -p build/typed/geo_refdiff   # the import names, as links to the folders, for mypy
	ln -s $(CURDIR)/geo_refdiff/* $(CURDIR)/cli $(CURDIR)/models $(CURDIR)/sample_tiles build/typed/geo_refdiff
	cd build/typed && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml -p geo_refdiff

bench: $(VENV)/.ready
	$(BIN)/python -m benchmarks

sample: $(VENV)/.ready
	$(BIN)/python -m geo_refdiff.sample_tiles.generate

clean:
	rm -rf $(VENV) build dist *.egg-info $(DEMO)
