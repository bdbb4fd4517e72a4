# Everything runs in .venv, which the first target makes; PYTHON chooses the interpreter it is made from.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RECIPE ?= digits_resnet
FORMATS ?= --all

.PHONY: help install demo train export report test test-all lint format bench invariance chaos scaling matrix readme \
	constraints clean

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 14

install: $(VENV)/installed  ## make .venv with every version pinned

$(VENV)/installed: setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: install  ## train on real images, export to every format, verify each, report
	$(BIN)/zoo demo

train: install  ## train RECIPE=digits_resnet
	$(BIN)/zoo train $(RECIPE)

export: install  ## export RUN=runs/... to FORMATS='--format tflite_int8 onnx'
	$(BIN)/zoo export $(RUN) $(FORMATS)

report: install  ## write the report of RUN=runs/...
	$(BIN)/zoo report $(RUN)

test: install  ## the tests that take minutes
	$(BIN)/python -m pytest -n 2 --dist loadfile -m 'not slow'

test-all: install  ## every test
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: install  ## check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: install  ## mend style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install  ## measure training, export and inference side by side with peers
	$(BIN)/python benchmarks/run.py

invariance: install  ## show that the result does not depend on how many devices and processes computed it
	$(BIN)/python benchmarks/invariance.py

chaos: install  ## kill training at random moments, again and again, and show that nothing is lost
	$(BIN)/python benchmarks/chaos.py

scaling: install  ## write docs/scaling.md: the efficiency to expect of many workers, checked against a few
	$(BIN)/python benchmarks/scaling.py

matrix: install  ## write docs/matrix.md: every family in every format and compression, run
	$(BIN)/python benchmarks/matrix.py

readme: install  ## write the generated tables of the README
	$(BIN)/python tools/readme.py

constraints: install  ## pin the newest versions that fit together, for every Python we support
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.10 --extra dev --no-header --no-annotate \
		--no-emit-package keras-zoo --constraint pins.txt setup.cfg --output-file constraints.txt

clean:  ## remove what was built; runs/ stays
	rm -rf $(VENV) build dist *.egg-info
