# Two commands do everything on a fresh machine with Python 3.11 or newer: `make demo` and `make test`.
# pip's own settings (index, proxies, certificates) are honoured.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TARGET ?= host
REGISTRY ?= $(TESTBED_REGISTRY)
NAMESPACE ?= model-deploy-demo
PORT ?= 8080
PYTEST_WORKERS ?= 2
CRASH_WORKERS ?= 4

export AIRFLOW__CORE__LOAD_EXAMPLES := False

.DEFAULT_GOAL := help
.PHONY: help install demo airflow test test-slow crash lint format bench clean

help: ## show the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(INSTALLED) ## make .venv with everything in it

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is wanted, this is " + sys.version.split()[0] + "; set PYTHON=/path/to/python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (a few minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: install ## train a model and take it to a running, watched service (TARGET=host|docker|kubernetes, REGISTRY=..., KEEP=1 leaves it running)
	@$(BIN)/python tools/demo.py --target '$(TARGET)' --registry '$(REGISTRY)' --namespace '$(NAMESPACE)' $(if $(KEEP),--keep)

airflow: install ## start Airflow's UI with the reference Dag on PORT (8080)
	@$(BIN)/python tools/demo.py --ui --port '$(PORT)'

test: install ## run the tests (PYTEST_WORKERS=2 processes)
	@$(BIN)/python -m pytest -m 'not slow' -n '$(PYTEST_WORKERS)' --dist loadfile --no-loadscope-reorder

test-slow: install ## run the slow tests
	@$(BIN)/python -m pytest -m slow

crash: install ## kill and fail the driver of a Kubernetes rollout at each of its API calls (needs KUBECONFIG)
	@$(BIN)/python -m pytest $(addprefix tests/engine/deployment/cluster/test_,crash.py killed.py turns.py) -n '$(CRASH_WORKERS)' --dist worksteal

lint: install ## check style, types and the walls between the rooms
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@echo "lint: all clean"

format: install ## format the code
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

bench: install ## run every benchmark; fails if a claim doesn't hold
	@set -e; for script in benchmarks/[!_]*.py; do echo "$$script"; $(BIN)/python "$$script"; done

clean: ## remove the venv, the demo and all caches
	@test ! -x $(BIN)/python || $(BIN)/python tools/demo.py --stop || true
	rm -rf $(VENV) demo .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
