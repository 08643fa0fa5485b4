# Every target sets up .venv first; everything is written to this folder.

BIN := .venv/bin
JOBS ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-tts live test test-slow bench lint format docs constraints clean

help:  ## print what each target does
	@sed -n 's/^\([a-z-]*\):.*  ## /  make \1\t/p' Makefile | expand -t 22

setup:  ## make or update .venv; every target below does this by itself
	@sh scripts/setup_env.sh

demo: setup  ## generate a small speech corpus, train, translate sentences, and translate a stream (minutes)
	@$(BIN)/mla-recipe configs/demo/st.yaml
	@$(BIN)/mla-recipe configs/demo/simul.yaml

demo-tts: setup  ## generate a speaker's recordings, train, synthesize; an ASR model scores the speech (minutes)
	@$(BIN)/mla-recipe configs/demo/tts.yaml

live: setup  ## after make demo: open its model in a browser, speak, and read the translation
	@test -f runs/demo_simul/checkpoint_average.pt || { echo "there is no model to open: run make demo first" >&2; exit 2; }
	@$(BIN)/mla-live runs/demo_simul/checkpoint_average.pt --data runs/data/demo/en-de --number 3

test: lint  ## lint, then run every fast test (minutes)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) -m "not slow"

test-slow: setup  ## run the tests that train models or run whole recipes
	@OMP_NUM_THREADS=$(JOBS) $(BIN)/python -m pytest -m slow

bench: setup  ## time attention, training, streaming, synthesis and the demo's exported model (an hour; needs an idle machine)
	@$(BIN)/python scripts/bench_attention.py --output docs/bench_attention.md
	@$(BIN)/python scripts/bench_training.py --output docs/bench_training.md
	@$(BIN)/python scripts/bench_conformer.py --output docs/bench_conformer.md
	@$(BIN)/python scripts/bench_streaming.py --output docs/bench_streaming.md
	@$(BIN)/python scripts/bench_tts.py --output docs/bench_tts.md
	@$(BIN)/python scripts/bench_edge.py --baseline fe7b653 --output docs/bench_edge.md \
		--random "s2t_transformer_simul_mla_s --attn-type relu --share-decoder-input-output-embed"

lint: setup  ## check style, format and types; change nothing
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: setup  ## fix style and format where a tool can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs: $(BIN)/docs.stamp  ## build the documentation into site/; the first build installs the extra docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# a file of .venv, so that `make setup` stays fast and a new .venv gets the extra again
$(BIN)/docs.stamp: pyproject.toml constraints.txt | setup
	@$(BIN)/python -m pip install -q -c constraints.txt --no-build-isolation -e ".[docs]"
	@touch $@

constraints: $(BIN)/docs.stamp  ## write the versions that .venv has to constraints.txt
	@{ grep '^#' constraints.txt; \
		$(BIN)/python -m pip freeze --all --exclude-editable | grep -v '^pip==' | sed 's/+.*//' | LC_ALL=C sort -f; \
	} > constraints.txt.partial && mv constraints.txt.partial constraints.txt

clean:  ## remove caches and build files; keep .venv, data and runs
	@rm -rf build dist site *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -path ./.venv -prune -o -name __pycache__ -type d -exec rm -rf {} +
