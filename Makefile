# Two commands take a newcomer from a clone to a promoted model: `make install` and `make run`.
VENV ?= .venv
PYTHON ?= python3
BIN := $(abspath $(VENV))/bin
PORT ?= 5000
RUN := $(shell date +%Y%m%d-%H%M%S)
export PATH := $(BIN):$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true
export DVC_NO_ANALYTICS := true

# `make run STACK=1`: against the servers of `make stack`, with a copy of every result in their store.
STACK ?=
STACKED := $(if $(STACK),set -a && . ./.stack/env && set +a &&,)

.PHONY: install run stack stack-down test test-slow test-containers lint audit ui clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

run: install $(if $(STACK),stack)
	$(STACKED) ONLINEVPO_RUN=$(RUN) $(BIN)/dvc repro
	$(if $(STACK),$(STACKED) $(BIN)/dvc push --remote stack)
	@$(STACKED) $(BIN)/python -m components.registry show
	@$(BIN)/python -m components.evaluation table

stack: install
	@$(BIN)/python -m pipelines.stack up
	@$(BIN)/dvc remote add --quiet --local --force stack s3://onlinevpo/dvc
	@. ./.stack/env && $(BIN)/dvc remote modify --quiet --local stack endpointurl "$$AWS_ENDPOINT_URL_S3"

stack-down: install
	@$(BIN)/python -m pipelines.stack down

# A thread for each worker: threads of two processes on the same cores hold each other up. Each worker gets
# neighbouring tests, which share what their fixtures build; who is through takes over from the others.
test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal -m "not slow and not containers"

test-slow: install
	$(BIN)/python -m pytest -m slow

test-containers: install
	tests/containers/run.sh

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# What is in the images (build/bom, CycloneDX), and which pinned version has a known vulnerability.
audit: install
	$(BIN)/python -m images bom
	$(BIN)/python -m images audit

ui: install
	@echo "MLflow: http://127.0.0.1:$(PORT)  (Ctrl-C ends it)"
	$(BIN)/mlflow server --backend-store-uri sqlite:///mlflow.db --workers 1 --host 127.0.0.1 --port $(PORT)

clean:
	rm -rf artifacts artifacts.partial mlflow.db mlruns build *.egg-info .pytest_cache .mypy_cache .ruff_cache
