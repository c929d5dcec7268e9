# Two commands take a newcomer from a clone to a promoted model: `make install` and `make run`.
VENV ?= .venv
PYTHON ?= python3
BIN := $(abspath $(VENV))/bin
PORT ?= 5000
RUN := $(shell date +%Y%m%d-%H%M%S)
export PATH := $(BIN):$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true
export DVC_NO_ANALYTICS := true

.PHONY: install run test test-slow test-containers lint ui clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

run: install
	ONLINEVPO_RUN=$(RUN) $(BIN)/dvc repro
	@$(BIN)/python -m components.registry show
	@$(BIN)/python -m components.evaluation table

test: install
	$(BIN)/python -m pytest -m "not slow and not containers"

test-slow: install
	$(BIN)/python -m pytest -m slow

test-containers: install
	tests/containers/run.sh

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

ui: install
	@echo "MLflow: http://127.0.0.1:$(PORT)  (Ctrl-C ends it)"
	$(BIN)/mlflow server --backend-store-uri sqlite:///mlflow.db --workers 1 --host 127.0.0.1 --port $(PORT)

clean:
	rm -rf artifacts artifacts.partial mlflow.db mlruns build *.egg-info .pytest_cache .mypy_cache .ruff_cache
