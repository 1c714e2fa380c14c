.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DATA := data/vader/vader.csv data/health-tweets/health-tweets.csv data/models/reactions-albert/model.safetensors \
	data/models/smollm2/model.safetensors
PROTOC = $(BIN)/python -m grpc_tools.protoc -I client/vault_api/_generated=client/vault_api
# another build of PyTorch: make setup TORCH="--index-url URL torch==2.13.*"
TORCH ?= "torch>=2.13,<2.14"
# tests run side by side, file by file, the longest files first; one worker: make test WORKERS=0
WORKERS ?= 2
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
# the other version of Flower that pyproject.toml accepts, and the tests that touch Flower
FLOWER ?= 1.41
FLOWER_TESTS = tests/integration/test_two_flower_versions.py tests/integration/test_gateway_with_superlink.py \
	tests/server/gateway tests/client/link tests/server/flower tests/repository/test_flower_contract.py

export PIP_DISABLE_PIP_VERSION_CHECK = 1
export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION = 1
export FLWR_TELEMETRY_ENABLED = 0
export FLWR_DISABLE_UPDATE_CHECK = 1
export RAY_USAGE_STATS_ENABLED = 0
export MLFLOW_DISABLE_TELEMETRY = true

PORT ?= 0

.PHONY: help setup demo federation federation-down test test-all test-gpu test-flower check audit extras pictures proto e2e \
	bench clean

help: ## show this list
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup: $(READY) $(DATA) ## make .venv, install FedVault, fetch three base models and two data sets

demo: setup ## private federated LoRA of a language model at eleven real sites; report in runs/demo/report.html
	@if [ -f runs/demo/result.json ]; then rm -rf runs/demo; fi
	@$(BIN)/fedvault-sim run simulations/scenarios/health-tweets.toml --out runs/demo --resume

federation: setup ## a server and three nodes on this machine, left running; it says what to type; PORT=8443
	@$(BIN)/python -m simulations.e2e.walkthrough up --port $(PORT)

federation-down: ## stop them, and remove their folder
	@if [ -e runs/federation ]; then $(BIN)/python -m simulations.e2e.walkthrough down; else echo "Nothing to stop."; fi

test: setup ## run the tests, offline
	@$(PYTEST) -m "not slow"

test-all: setup ## run the tests, slow ones too
	@$(BIN)/python -m pip install -qq 'helm-python-sdk>=0.2'
	@$(BIN)/python -m pip install -qq 'llama-cpp-python>=0.3' || echo "Not built: llama-cpp-python. Its test is left out."
	@$(PYTEST)

test-gpu: setup ## run the tests of models and of training on a CUDA device
	@$(BIN)/python -m pytest --device=cuda tests/client/vault tests/shared/tasks tests/client/operator/test_doctor.py

test-flower: setup ## run the tests that touch Flower under another version of it: make test-flower FLOWER=1.41
	@$(BIN)/python -m tests.support.other_flower $(FLOWER) $(PYTEST) -m 'not slow' $(FLOWER_TESTS)

check: setup ## format, lint, types, architecture, generated documents
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@scratch=$$(mktemp -d) && $(PROTOC) --python_out=$$scratch --pyi_out=$$scratch --grpc_python_out=$$scratch \
		client/vault_api/_generated/vault.proto && diff -r -x __init__.py -x __pycache__ $$scratch/client/vault_api/_generated \
		client/vault_api/_generated && rm -r $$scratch && echo "client/vault_api/_generated is up to date"
	@diff <($(BIN)/python -m simulations.results.result) simulations/RESULT.md && echo "simulations/RESULT.md is up to date"
	@diff <($(BIN)/python -m client.settings) client/NODE_TOML.md && echo "client/NODE_TOML.md is up to date"
	@diff <($(BIN)/python -m server.settings) server/SERVER_TOML.md && echo "server/SERVER_TOML.md is up to date"

audit: setup ## attack the node's own training: epsilon from below, and faults that have to be caught; minutes
	@$(BIN)/fedvault-sim audit

extras: setup ## resolve each extra alone, from the package index: nothing old, nothing that holds the project back
	@$(BIN)/python -m tests.support.extras

pictures: setup ## draw the guides' pictures, of a federation that it runs too; a quarter of an hour
	@$(BIN)/fedvault-sim data fetch emoji dinov2-small
	@$(BIN)/python -m tests.support.report_pictures
	@$(BIN)/python -m tests.support.federation_pictures
	@$(BIN)/python -m tests.support.board_pictures
	@$(BIN)/python -m tests.support.explanation_pictures

proto: setup ## generate the vault's gRPC code from its .proto
	@$(PROTOC) --python_out=. --pyi_out=. --grpc_python_out=. client/vault_api/_generated/vault.proto

e2e: setup ## a server and four nodes over TLS on this machine, then every fault; about half an hour
	@$(BIN)/python -m simulations.e2e

bench: setup ## ratios against what a user would otherwise run; an hour
	@$(BIN)/fedvault-sim data fetch small-vit digits
	@$(BIN)/python -m simulations.benchmarks

clean: federation-down ## remove the environment and everything that was generated
	rm -rf $(VENV) data runs .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

$(READY): pyproject.toml simulations/datasets/pinned/minilm.txt
	@command -v $(PYTHON) >/dev/null || { echo "error: Expected $(PYTHON), got none. hint: make PYTHON=/path/to/python3.11"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing FedVault and 150 libraries into $(VENV) (once; 2.5 GB with a CPU build of PyTorch; several minutes)"
	@$(BIN)/python -m pip install -qq --progress-bar off $(TORCH)
	@$(BIN)/python -m pip install -qq --progress-bar off -e '.[simulation,dev]'
	@$(BIN)/fedvault-sim data fetch minilm
	@touch $@

data/vader/vader.csv: $(READY) simulations/datasets/pinned/vader.txt
	@$(BIN)/fedvault-sim data fetch vader
	@touch $@

data/health-tweets/health-tweets.csv: $(READY) simulations/datasets/pinned/health-tweets.txt
	@$(BIN)/fedvault-sim data fetch health-tweets
	@touch $@

data/models/%/model.safetensors: $(READY) simulations/datasets/pinned/%.txt
	@$(BIN)/fedvault-sim data fetch $*
	@touch $@
