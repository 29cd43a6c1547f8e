# Every target sets up what it needs by itself; the set-up is done once, into .venv (see scripts/setup.sh).
#
# Values from the user reach the recipes through the environment, as "$$SOURCE", and never as shell text: a path may
# hold blanks, quotes and dollars. $(value …) keeps Make itself from reading a '$' in them. ARGS alone is shell text.
override SOURCE := $(value SOURCE)
override CACHE := $(value CACHE)
override RECIPE := $(value RECIPE)
override PYTHON := $(value PYTHON)
override PIP_ARGS := $(value PIP_ARGS)
override SYSTEM_TORCH := $(value SYSTEM_TORCH)
override OLD := $(value OLD)
export SOURCE CACHE RECIPE PYTHON PIP_ARGS SYSTEM_TORCH OLD

.DEFAULT_GOAL := help
.NOTPARALLEL:  # two installations into one .venv would collide
.PHONY: help setup cache test test-all test-frameworks soak same lint docs bench bench-gpu bench-load bench-techniques bench-variants demo clean cache-arguments same-arguments run-ready dev-ready frameworks-ready

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1|\2/p' Makefile | awk -F '|' '{ printf "%-23s %s\n", $$1, $$2 }'
	@echo
	@echo "  make cache SOURCE=photos CACHE=photos.cache RECIPE=recipe.yaml ARGS='--workers 8'"
	@echo "  set-up: PYTHON=python3.12, PIP_ARGS='--index-url …', SYSTEM_TORCH=1 (use the torch that PYTHON has)"

setup: dev-ready ## make .venv ready; the targets below do it themselves

cache: cache-arguments run-ready ## turn SOURCE into CACHE [RECIPE=file] [ARGS=…]; without SOURCE a demo
	@set -e; \
	if [ -z "$$SOURCE" ]; then \
		SOURCE=demo/photos; CACHE=$${CACHE:-demo/cache}; \
		.venv/bin/python scripts/make_demo.py "$$SOURCE" >&2; \
	fi; \
	set -- "$$SOURCE" "$$CACHE"; \
	if [ -n "$$RECIPE" ]; then set -- "$$@" --recipe "$$RECIPE"; fi; \
	.venv/bin/decant build "$$@" $(ARGS)

# First of all, so that nothing is downloaded for a command that cannot run.
cache-arguments:
	@if [ -n "$$SOURCE" ] && [ -z "$$CACHE" ]; then echo "make cache: SOURCE is given, CACHE is not: add CACHE=folder" >&2; exit 2; fi

test: dev-ready ## run the tests, without those that take minutes each [ARGS='-k name']
	@DECANT_EXAMPLES=40 DECANT_KILLS=8 DECANT_CUTS=150 .venv/bin/python -m pytest -m "not long" $(ARGS)

test-all: dev-ready ## run all tests: also every page of the docs, the scripts and the set-up [ARGS='-k name']
	@.venv/bin/python -m pytest $(ARGS)

test-frameworks: frameworks-ready ## run the tests with Accelerate and timm, which `make test-all` leaves out [ARGS=…]
	@.venv/bin/python -m pytest tests/frameworks $(ARGS)

soak: dev-ready ## the long tests: ten times as many histories, kills and power cuts as `make test-all` [ARGS=…]
	@DECANT_EXAMPLES=1500 DECANT_KILLS=200 DECANT_CUTS=5000 DECANT_ALL_ERRORS=1 \
		.venv/bin/python -m pytest tests/property tests/crash $(ARGS)

same: same-arguments dev-ready ## say what users would notice of the changes since a commit [OLD=commit]
	@.venv/bin/python scripts/same_behaviour.py "$$OLD"

same-arguments:
	@if [ -z "$$OLD" ]; then echo "make same: the commit to compare with is missing: add OLD=commit" >&2; exit 2; fi

lint: dev-ready ## check style, format and types
	.venv/bin/python -m ruff check .
	.venv/bin/python -m ruff format --check .
	.venv/bin/python -m mypy

docs: dev-ready ## make docs/_build/html, the pages of docs/ and the reference as a site
	@.venv/bin/python -m sphinx -W --keep-going -q -d docs/_build/trees docs docs/_build/html $(ARGS)
	@echo "docs/_build/html/index.html"

bench: run-ready ## measure a build [ARGS=…]
	@.venv/bin/python scripts/bench_build.py $(ARGS)

bench-gpu: run-ready ## measure a build on a GPU, beside the limits of its parts [ARGS=…]
	@.venv/bin/python scripts/bench_gpu.py $(ARGS)

bench-load: run-ready ## measure loading, beside the peers that are installed [ARGS=…]
	@.venv/bin/python scripts/bench_load.py $(ARGS)

bench-techniques: run-ready ## measure what tutorials on input speed advise, see docs/techniques.md [ARGS=…]
	@.venv/bin/python scripts/bench_techniques.py $(ARGS)

bench-variants: run-ready ## what K, crop, flip and fresh augmentation do to accuracy, in six minutes [ARGS=…]
	@.venv/bin/python scripts/bench_variants.py $(ARGS)

demo: run-ready ## draw, build, report, train and measure in demo/, in two minutes [ARGS='--epochs 20']
	@.venv/bin/python scripts/demo.py $(ARGS)

clean: ## remove demo/ and what tools leave behind; .venv stays
	rm -rf demo build dist docs/_build decant_cache.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find preprocess cache_store loaders scripts examples tests -type d -name __pycache__ -prune -exec rm -rf {} +

run-ready:
	@sh scripts/setup.sh run

dev-ready:
	@sh scripts/setup.sh dev

frameworks-ready:
	@sh scripts/setup.sh frameworks
