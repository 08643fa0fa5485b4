# `make demo` and `make test` do all of their own set-up; everything lands in this folder.

BIN := .venv/bin
JOBS ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-tts test test-slow bench lint format constraints clean

help:  ## say what each target does
	@sed -n 's/^\([a-z-]*\):.*  ## /  make \1\t/p' Makefile | expand -t 22

setup:  ## make or refresh .venv; every target below does this by itself
	@sh scripts/setup_env.sh

demo: setup  ## make a small speech corpus, train on it, translate it, whole and while it is spoken (minutes)
	@$(BIN)/mla-recipe configs/demo/st.yaml
	@$(BIN)/mla-recipe configs/demo/simul.yaml

demo-tts: setup  ## make a voice, train on it, speak; a recogniser writes down what it hears (minutes)
	@$(BIN)/mla-recipe configs/demo/tts.yaml

test: lint  ## lint, then every test that is fast (minutes)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) -m "not slow"

test-slow: setup  ## the tests that train models or run whole recipes
	@OMP_NUM_THREADS=$(JOBS) $(BIN)/python -m pytest -m slow

bench: setup  ## time attention, training, streaming and synthesis side by side (an hour; a quiet machine)
	@$(BIN)/python scripts/bench_attention.py --output docs/bench_attention.md
	@$(BIN)/python scripts/bench_training.py --output docs/bench_training.md
	@$(BIN)/python scripts/bench_streaming.py --output docs/bench_streaming.md
	@$(BIN)/python scripts/bench_tts.py --output docs/bench_tts.md

lint: setup  ## check style and format, change nothing
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: setup  ## mend style and format where a tool can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

constraints: setup  ## write the versions that .venv holds to constraints.txt
	@{ grep '^#' constraints.txt; \
		$(BIN)/python -m pip freeze --all --exclude-editable | grep -v '^pip==' | sed 's/+.*//' | LC_ALL=C sort -f; \
	} > constraints.txt.partial && mv constraints.txt.partial constraints.txt

clean:  ## remove caches and build leftovers; .venv, data and runs stay
	@rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	@find . -path ./.venv -prune -o -name __pycache__ -type d -exec rm -rf {} +
