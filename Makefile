# Everything runs in .venv, which the first target creates; PYTHON is the interpreter that it is created with.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RECIPE ?= digits_resnet
FORMATS ?= --all
# Tests that import no TensorFlow: house rules, registries, command line and recipes.
LIGHT := tests/house tests/zoo/specs tests/zoo/test_main.py tests/zoo/test_command.py tests/zoo/test_plot.py \
	tests/zoo/test_show.py tests/training/recipe

.PHONY: help install demo train export report check test test-all lint format bench invariance chaos kills fuzz scaling \
	matrix coverage docs-tables constraints clean

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 14

install: $(VENV)/installed  ## create .venv with every version pinned

$(VENV)/installed: setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: install  ## train on real images, export to every format, verify each artifact, write the report
	$(BIN)/zoo demo

train: install  ## train RECIPE=digits_resnet
	$(BIN)/zoo train $(RECIPE)

export: install  ## export RUN=runs/... to FORMATS='--format tflite_int8 onnx'
	$(BIN)/zoo export $(RUN) $(FORMATS)

report: install  ## write the report of RUN=runs/...
	$(BIN)/zoo report $(RUN)

check: lint  ## run the tests that import no TensorFlow: style, house rules, registries, command line, recipes
	$(BIN)/python -m pytest --light -q -n 2 -m 'not slow and not tensorflow' $(LIGHT)

test: install  ## run the quick tests: one of each kind
	$(BIN)/python -m pytest -n 2 --dist loadfile -m 'not slow'

test-all: install  ## run every test
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: install  ## check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tools/style.py

format: install  ## fix style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install  ## compare training, export and inference with peers, side by side
	$(BIN)/python benchmarks/run.py

invariance: install  ## check that results do not depend on the number of devices and processes
	$(BIN)/python benchmarks/invariance.py

chaos: install  ## kill training at random moments, resume it, and check that nothing is lost
	$(BIN)/python benchmarks/chaos.py

kills: install  ## end exports, reports and trainings by signals at random moments, and check what is left
	$(BIN)/python benchmarks/kills.py

fuzz: install  ## run 10,000 malformed command lines, read 10,000 damaged files: each ends in one line
	$(BIN)/python benchmarks/fuzz_commands.py --count 10000
	$(BIN)/python benchmarks/damage.py

scaling: install  ## write docs/scaling.md: predicted efficiency of many workers, checked against a few
	$(BIN)/python benchmarks/scaling.py

matrix: install  ## write docs/matrix.md: every family in every format and compression
	$(BIN)/python benchmarks/matrix.py

coverage: install  ## write docs/coverage.md: every kind of Keras model in every format, ours and Keras' own export
	$(BIN)/python benchmarks/coverage.py

docs-tables: install  ## write the generated tables of docs/ and the counts of the models
	$(BIN)/python tools/docs_tables.py

constraints: install  ## pin versions of every extra for every supported Python; delete a pin first to renew it
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.10 --all-extras --no-header --no-annotate \
		--no-emit-package keras-zoo --constraint pins.txt setup.cfg --output-file constraints.txt

clean:  ## remove everything that was built; runs/ stays
	rm -rf $(VENV) build dist *.egg-info
