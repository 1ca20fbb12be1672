# Everything starts here. `make` alone lists the targets.
PYTHON ?= python3
BIN := .venv/bin
DATASET ?= python-api
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help install demo ui tidy test check format warmup repro bench-linear bench-large bench-encoder bench-dense bench-disentangle clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

install: .venv/installed ## make .venv with everything the pipeline needs

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info < (3, 14); sys.exit(0 if ok else \
	  "xmc needs Python 3.11 to 3.13, " + sys.executable + " is " + sys.version.split()[0] + \
	  "; name another one: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv || (rm -rf .venv; echo "No venv could be made; on Debian and Ubuntu: apt install python3-venv"; exit 1)

.venv/installed: pyproject.toml constraints.txt | .venv/bin/pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[encoder,orchestration,demo]'
	$(BIN)/xmc warmup
	@touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[encoder,orchestration,demo,deploy,dev]'
	@touch $@

demo: .venv/installed ## run the whole pipeline on the built-in data, from source code to a champion
	$(BIN)/python -m orchestration.demo --dataset $(DATASET)

ui: .venv/installed ## open Dagster on port 3000 and MLflow on port 5000 (DAGSTER_PORT=, MLFLOW_PORT=)
	$(BIN)/python -m orchestration.ui $(if $(DAGSTER_PORT),--dagster-port $(DAGSTER_PORT)) $(if $(MLFLOW_PORT),--mlflow-port $(MLFLOW_PORT))

tidy: .venv/installed ## say which old versions and cached files can go; YES=1 deletes them
	$(BIN)/python -m orchestration.tidy $(if $(YES),--yes)

repro: .venv/installed ## bring everything up to date with DVC alone
	$(BIN)/dvc repro

test: .venv/installed-dev ## run every test
	$(BIN)/python -m pytest

check: .venv/installed-dev ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/installed-dev ## let ruff tidy the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

warmup: .venv/installed ## compile all kernels into the cache
	$(BIN)/xmc warmup

.xmc/peers/installed: benchmarks/requirements-peers.txt
	$(PYTHON) -m venv .xmc/peers
	.xmc/peers/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

bench-linear: .venv/installed .xmc/peers/installed ## XR-Linear beside its peers: speed, memory, accuracy; RESUME=1 goes on
	$(BIN)/python benchmarks/linear.py --peers .xmc/peers/bin/python $(if $(RESUME),--resume)

bench-large: .venv/installed ## the large real set and three million labels; RESUME=1 goes on
	$(BIN)/python benchmarks/large.py $(if $(RESUME),--resume)

.xmc/peers-encoder/installed: benchmarks/requirements-encoder-peer.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info[:2] in ((3, 11), (3, 12)) else \
	  "libpecos 1.2.8 has wheels for Python 3.11 and 3.12, " + sys.executable + " is " + \
	  sys.version.split()[0] + "; name another one: make PYTHON=python3.12 bench-encoder")'
	$(PYTHON) -m venv .xmc/peers-encoder
	.xmc/peers-encoder/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

bench-encoder: .venv/installed .xmc/peers-encoder/installed ## XR-Transformer beside libpecos, with and without an encoder; RESUME=1 goes on
	$(BIN)/python benchmarks/encoder.py --peers .xmc/peers-encoder/bin/python $(if $(RESUME),--resume)

bench-dense: .venv/installed ## what an embedding beside the words costs the rankers; RESUME=1 goes on
	$(BIN)/python benchmarks/dense.py $(if $(RESUME),--resume)

bench-disentangle: .venv/installed ## labels in several clusters: figures, misses, cost, meanings; RESUME=1 goes on
	$(BIN)/python benchmarks/disentangle.py $(if $(RESUME),--resume)

clean: ## remove the environment and all local state; data/raw stays
	rm -rf .venv .xmc .dvc/cache .dvc/tmp data/artifacts data/reports data/presets data/scratch
