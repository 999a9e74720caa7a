# Every target first builds .venv from the hashed lock; once built, that costs nothing.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
CODE := ledger contract serving omen_server riskcast_server bench
CHECKED := $(CODE) tests protos .ci
IMAGE := tests/contract/released.binpb

# The tests start hundreds of processes: where nothing keeps bytecode, each compiles everything again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test check generate format bench bench-large soak lock contract-image clean

help: ## what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' Makefile

demo: $(READY) ## both servers, a signal end to end, an outage and its recovery
	$(BIN)/omen demo

test: $(READY) ## every test but the soak
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

check: $(READY) ## style, types, imports, contract, stubs, lock
	$(BIN)/ruff check $(CHECKED)
	$(BIN)/ruff format --check $(CHECKED)
	$(BIN)/mypy --strict $(CHECKED)
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code
	$(BIN)/buf breaking --against $(IMAGE)
	$(BIN)/python protos/generate.py --check
	$(BIN)/python .ci/lock.py check

generate: $(READY) ## the Python stubs of the .proto files
	$(BIN)/python protos/generate.py

format: $(READY) ## rewrite Python and .proto files in the house style
	$(BIN)/ruff check --fix $(CHECKED)
	$(BIN)/ruff format $(CHECKED)
	$(BIN)/buf format --write

bench: $(READY) ## measure on this machine; QUICK=1 takes fewer rounds and rows, ONLY="ingest delivered" a part
	$(BIN)/python -m bench $(if $(QUICK),--quick) $(ONLY)

bench-large: $(READY) ## measure restart and store with 10 million records (60 GB of disk)
	$(BIN)/python -m bench --large $(ONLY)

soak: $(READY) ## long seeded runs under injected faults
	$(BIN)/python -m pytest -m soak -s --timeout=0

lock: $(READY) ## resolve the dependencies again (UPGRADE=--upgrade takes newer ones); needs an index
	$(BIN)/python .ci/lock.py write $(UPGRADE)

contract-image: $(READY) ## release the contract: what `buf breaking` compares with from now on
	mkdir -p $(dir $(IMAGE))
	$(BIN)/buf build --exclude-source-info --output $(IMAGE)

clean: ## remove .venv and every cache
	rm -rf .venv .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): requirements.lock pyproject.toml protos/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo 'Missing: python3 >= 3.11 (Debian: apt-get install python3; or make PYTHON=/path/to/python3.11).' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo 'Missing: the venv module of $(PYTHON) (Debian: apt-get install python3-venv).' >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e ./protos -e .
	@touch $@
