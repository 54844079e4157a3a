# Everything a newcomer, a developer and CI run. Each target makes the environment it needs, in .venv.
# GNU Make and a POSIX shell; all paths are relative, so the checkout may lie in a folder with spaces in its name.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# But for what `check` runs side by side, once the environment is there.
ifndef SIDE_BY_SIDE
.NOTPARALLEL:
endif
.PHONY: bench bench-peers bench-files gpu-bench gpu-test gpu-bundle help demo test test-ml check format lint types wheel smoke clean

# Some machines have it: each of the hundreds of processes that tests start would compile the package once more.
unexport PYTHONDONTWRITEBYTECODE

PY := .venv/bin/python
# What is imported is compiled then: most of what the packages bring never is, and half of pip's time went there.
INSTALL := $(PY) -m pip install -qq --disable-pip-version-check --no-compile
NO_PYTHON = gpuenc needs Python 3.12 or newer with venv: install one (apt-get install python3-venv on Debian 13, \
pyenv install 3.12, or uv python install 3.12) or name it with make PYTHON=/path/to/python3

help: ## what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

demo: .venv/.demo ## re-encode a real study to HTJ2K into demo-out, verify it, show what happened
	@$(PY) .ci/demo.py demo-out

test: .venv/.test ## all tests (ARGS="-k name" for some)
	$(PY) -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder $(ARGS)

test-ml: .venv-ml/.ml ## what needs PyTorch and MONAI, in an environment of its own, .venv-ml (several GB)
	GPUENC_REQUIRE_ML=1 .venv-ml/bin/python -m pytest tests/ml $(ARGS)

check: .venv/.dev ## what CI runs: lint, types, wheel in a clean environment, tests
	@$(MAKE) --no-print-directory --jobs 2 $(filter --%,$(.FEATURES:output-sync=--output-sync)) SIDE_BY_SIDE=1 lint types smoke
	@$(MAKE) --no-print-directory test

format: .venv/.dev ## put the code into its format
	$(PY) -m ruff format
	$(PY) -m ruff check --fix

lint: .venv/.dev ## ruff: format and rules
	$(PY) -m ruff format --check
	$(PY) -m ruff check

types: .venv/.dev ## mypy, strict
	$(PY) -m mypy

wheel: .venv/.dev ## source distribution and wheel, in dist
	@rm -rf dist
	$(PY) -m build --outdir dist

smoke: wheel ## install that wheel into a clean environment and use it
	@rm -rf .cache/smoke
	@$(PY) -m venv .cache/smoke
	@.cache/smoke/bin/python -m pip install -qq --disable-pip-version-check --no-compile dist/*.whl
	.cache/smoke/bin/python -I .ci/smoke.py

bench: .venv/.test ## measure this machine, with peers; results, charts and the README's section
	$(PY) -m benchmarks $(ARGS)

bench-peers: .venv/.test ## install what bench compares with, as far as it can be, and list it
	@.ci/bench-peers
	$(PY) -m benchmarks.peers

bench-files: .venv/.test ## jobs over CT files against the bare codec and peers (ARGS="--files 2000")
	$(PY) -m benchmarks.speed $(ARGS)
	$(PY) -m benchmarks --readme

gpu-bench: ## what a GPU could do and how much of it is done; offline, with the bundle's packages
	$(or $(PYTHON),python3) -m benchmarks.gpu $(ARGS)
	$(or $(PYTHON),python3) -m benchmarks --readme

gpu-test: ## what only a GPU can show; offline, with the bundle's packages
	GPUENC_REQUIRE_CUDA=1 $(or $(PYTHON),python3) -m pytest tests/gpu $(ARGS)

gpu-bundle: .venv/.demo ## wheels for an offline CUDA 13 machine, in gpu-bundle
	$(PY) .ci/gpu-bundle gpu-bundle

clean: ## remove everything made here
	rm -rf .venv .venv-ml .cache dist demo-out .pytest_cache .mypy_cache .ruff_cache .hypothesis

# One environment with three levels, each containing the one before; a stamp says which level is there, and it is
# installed again when pyproject.toml has changed. pip's failures leave no stamp.
.venv/.demo .venv/.test .venv/.dev: .venv/bin/python pyproject.toml
	@echo "Installing gpuenc[$(subst .,,$(@F))] into .venv"
	@$(INSTALL) --editable '.[$(subst .,,$(@F))]'
	@touch .venv/.demo
	@case $(@F) in .test) touch .venv/.test ;; .dev) touch .venv/.test .venv/.dev ;; esac

# A link to the interpreter it was made with: once that is gone, make finds this target missing and makes it again.
.venv/bin/python:
	@"$(or $(shell PYTHON='$(PYTHON)' .ci/find-python),$(error $(NO_PYTHON)))" -m venv --clear .venv

.venv-ml/.ml: pyproject.toml
	@echo "Installing gpuenc[test-ml] into .venv-ml"
	@"$(or $(shell PYTHON='$(PYTHON)' .ci/find-python),$(error $(NO_PYTHON)))" -m venv --clear .venv-ml
	@.venv-ml/bin/python -m pip install -qq --disable-pip-version-check --editable '.[test-ml]'
	@touch .venv-ml/.ml
