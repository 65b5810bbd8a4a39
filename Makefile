# `make` prints the targets. PIP_ARGS goes to pip, or to uv if it is on the path: a CPU-only torch, a mirror, e.g.
#   make run PIP_ARGS="--index-url https://download.pytorch.org/whl/cpu --extra-index-url https://pypi.org/simple"
PYTHON ?= python3
PIP_ARGS ?=
CONSTRAINTS ?= constraints.txt
VENV := .venv
BIN := $(VENV)/bin
# Three processes, each with its own cluster: half of the tests' time is waiting. A file's tests stay together, and the
# longest files come first (tests/conftest.py).
PYTEST := $(BIN)/python -m pytest -n $(or $(WORKERS),3) --dist loadfile --no-loadscope-reorder
export PYTHONDONTWRITEBYTECODE := 1

.PHONY: help run test test-fast chaos example lint clean
.DEFAULT_GOAL := help

help: ## print the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-12s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/.run ## set up, and train a first experiment on real data (dora run optim.lr=0.1)
	$(BIN)/dora run optim.lr=0.1
	@command -v dora >/dev/null || echo "from here on, so that dora is found by its name:   source $(BIN)/activate"

# The engine's tests run on an example of their own, those in tests/ on your files. pytest ends with 5 if ARGS leaves no
# test in one of the two.
define run_tests
	@failed=0; \
	for part in tests/engine "tests --continue-on-collection-errors"; do \
	    echo "$(PYTEST) $$part $(1) $(ARGS)"; \
	    $(PYTEST) $$part $(1) $(ARGS) || { code=$$?; [ $$code -eq 5 ] || failed=$$code; }; \
	    [ $$failed -ne 2 ] || exit 2; \
	done; \
	exit $$failed
endef

test: $(VENV)/.dev lint ## set up, and run every test that this machine can run
	$(call run_tests)

test-fast: $(VENV)/.dev ## the everyday part of the tests: six minutes on two cores
	$(call run_tests,-m "not slow and not slurm")

chaos: $(VENV)/.dev ## kill runs at hundreds of random points (N=600), and compare every bit
	DORA_TRAIN_CHAOS=$(or $(N),600) $(BIN)/python -m pytest $(addprefix tests/engine/,test_exact.py test_exact_slurm.py \
	    test_foreign.py test_warm.py test_pack.py) $(ARGS)
	DORA_TRAIN_CHAOS=$(or $(N),600) $(BIN)/python -m pytest tests/test_tasks.py $(ARGS)

example: ## for the engine's developers: the front page becomes the example of the engine's tests
	$(PYTHON) tests/engine/example.py

lint: $(VENV)/.dev ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy dora_train

clean: ## remove the environment and the caches, never your outputs
	rm -rf $(VENV) .pytest_cache tests/engine/.pytest_cache .mypy_cache .ruff_cache

$(VENV)/.run: requirements.txt $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or newer is needed; this is " + sys.version.split()[0] + \
	    ". Name another: make run PYTHON=python3.11" if sys.version_info < (3, 10) else 0)'
	@$(PYTHON) dora_train/engine/set_up.py $(VENV) $(PIP_ARGS) -c $(CONSTRAINTS) -r requirements.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt requirements-extra.txt $(VENV)/.run
	@$(PYTHON) dora_train/engine/set_up.py $(VENV) $(PIP_ARGS) -c $(CONSTRAINTS) -r requirements-dev.txt
	@touch $@
