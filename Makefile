# Two commands take a newcomer from a clone to a promoted model: `make install` and `make run`.
VENV ?= .venv
PYTHON ?= python3
BIN := $(abspath $(VENV))/bin
PORT ?= 5000
export PATH := $(BIN):$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true
export DVC_NO_ANALYTICS := true

# `make run STACK=1`: against the servers of `make stack`, with a copy of every result in their store.
STACK ?=
STACKED := $(if $(STACK),set -a && . ./.stack/env && set +a &&,)

# Makes the virtual environment, or says in one line what is wrong. Any Python must be able to read it, even an old one.
define MAKE_VENV
import os, subprocess, sys
folder, origin = sys.argv[1:]
good = ("3.11", "3.12")
own, python = "%d.%d" % sys.version_info[:2], os.path.join(folder, "bin", "python")
if os.path.isdir(folder) and os.listdir(folder):
    if not os.path.exists(os.path.join(folder, "pyvenv.cfg")):
        sys.exit("%s: holds no virtual environment; name another folder: make install VENV=FOLDER" % folder)
    try:
        ask = [python, "-c", "import sys, pip; print('%d.%d' % sys.version_info[:2])"]
        made = subprocess.Popen(ask, stdout=subprocess.PIPE, stderr=subprocess.PIPE).communicate()[0].decode().strip()
    except OSError:
        made = ""
    if made not in good or (origin != "file" and made != own):
        about = "is of Python %s, not %s" % (made, own if origin != "file" else " or ".join(good)) if made else "does not run, or has no pip"
        sys.exit("%s: its Python %s; remove that folder, or name another: make install VENV=FOLDER" % (folder, about))
    sys.exit(0)
if own not in good or sys.implementation.name != "cpython":
    sys.exit("needs Python %s, and %s is %s; name one: make install PYTHON=/path/to/python3.11"
             % (" or ".join(good), sys.executable, sys.version.split()[0]))
try:
    import ensurepip, venv
except ImportError:
    sys.exit("%s has no venv; on Debian and Ubuntu: apt install python%s-venv" % (sys.executable, own))
subprocess.check_call([sys.executable, "-m", "venv", folder])
endef
export MAKE_VENV

.PHONY: install checkout run stack stack-down test test-slow test-containers lint audit ui clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@command -v $(PYTHON) > /dev/null || \
		{ echo "no $(PYTHON) here; name a Python 3.11 or 3.12: make install PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c "$$MAKE_VENV" "$(VENV)" "$(origin PYTHON)"
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

# DVC keeps its place by the repository around it, and code versions are commits.
checkout:
	@git rev-parse --git-dir > /dev/null || { echo "make run needs git and a git repository: clone the project, or," \
		"in the folder of a ZIP: git init && git add -A && git commit -m start" >&2; exit 1; }

run: checkout install $(if $(STACK),stack)
	@$(STACKED) $(BIN)/onlinevpo run
	$(if $(STACK),$(STACKED) $(BIN)/dvc push --remote stack)

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
	PYTHONPATH=. $(BIN)/lint-imports --no-logo

# What is in the images (build/bom, CycloneDX), and which pinned version has a known vulnerability.
audit: install
	$(BIN)/python -m images bom
	$(BIN)/python -m images audit

ui: install
	@$(BIN)/python -c "import socket; socket.create_server(('127.0.0.1', $(PORT)))" 2> /dev/null || \
		{ echo "port $(PORT) is taken; another: make ui PORT=5001" >&2; exit 1; }
	@echo "MLflow: http://127.0.0.1:$(PORT)  (Ctrl-C ends it)"
	$(BIN)/mlflow server --backend-store-uri sqlite:///mlflow.db --workers 1 --host 127.0.0.1 --port $(PORT)

clean: install
	@$(BIN)/python -m components clean
