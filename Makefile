# What a person types. `make help` lists it. Settings: PYTHON (which Python makes .venv), ARGS,
# SWEEP (a file of launch/sweep/), LAUNCHER (local or slurm), RUNS (a folder of runs) and OUT.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
ARGS   ?=
SWEEP  ?= p_split
LAUNCHER ?= local
RUNS   ?= runs
OUT    ?= report

.DEFAULT_GOAL := help
.PHONY: help setup train sweep sweep-status table report sharpness dashboard sync noise theory bench test lint types unit test-slow test-faults test-slurm examples contract coverage mutants reproducible lock clean

help:  ## list every target
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

setup: $(READY)  ## make .venv with the locked dependencies and this package in it

# The lock holds everything but torch and torchvision, whose builds differ by machine: those two
# come by range. Installing the lock first means that only they are left to be chosen.
$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"error: Python >= 3.11 is needed, {v[0]}.{v[1]} was found; say which with: make setup PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev,bench,search,dashboard]'
	@touch $@

train: setup  ## train: schedule=graduated p=0.5 (more: make train ARGS="dataset=fashion_mnist epochs=5")
	$(BIN)/python src/train.py schedule=graduated p=0.5 $(ARGS)

sweep: setup  ## many runs, none twice (SWEEP=methods LAUNCHER=slurm ARGS="seed=0,1"; files in launch/sweep)
	$(BIN)/python src/train.py -m sweep=$(SWEEP) hydra/launcher=$(LAUNCHER) $(ARGS)

sweep-status: setup  ## how the newest sweep stands (another: ARGS="sweep=methods")
	$(BIN)/python src/sweep_status.py $(ARGS)

table: setup  ## all runs as one table, mean ± sd over seeds; CSV, Parquet (a sweep: ARGS="runs=runs/sweeps/…")
	$(BIN)/python src/table.py $(ARGS)

report: setup  ## figures of many runs with intervals and tests, and a page that opens from disk (RUNS=runs OUT=report)
	$(BIN)/python src/report.py runs=$(RUNS) output=$(OUT) $(ARGS)

sharpness: setup  ## how sharp the loss is where the runs ended, into each run's folder (RUNS=runs ARGS="samples=2000")
	$(BIN)/python src/sharpness.py runs=$(RUNS) $(ARGS)

dashboard: report  ## the runs here without an account: the report in a browser, W&B's charts in the terminal
	@if [ -n "$$DISPLAY$$WAYLAND_DISPLAY" ] || [ "$$(uname)" = Darwin ]; then \
		$(BIN)/python -m webbrowser -t "file://$(abspath $(OUT))/index.html" > /dev/null; \
	else echo "open $(abspath $(OUT))/index.html in a browser"; fi
	@if [ -t 0 ] && [ -t 1 ] && [ -d $(RUNS)/wandb ]; then $(BIN)/wandb leet $(RUNS)/wandb; \
	else echo "every epoch's charts, in a terminal: $(BIN)/wandb leet $(RUNS)/wandb"; fi

sync: setup  ## send offline runs to W&B, once, however often it is started or stopped (RUNS=runs)
	$(BIN)/python src/sync.py runs_dir=$(RUNS) $(ARGS)

noise: setup  ## studies of the noise into results/noise: about 20 minutes on a core of its own
	$(BIN)/python src/noise_study.py study=lemma dataset=digits epochs=3 $(ARGS)
	$(BIN)/python src/noise_study.py study=lemma dataset=fashion_mnist dataset.samples=4000 epochs=3 $(ARGS)
	$(BIN)/python src/noise_study.py study=omega dataset=digits epochs=10 $(ARGS)
	$(BIN)/python src/noise_study.py study=omega dataset=fashion_mnist dataset.samples=3000 epochs=5 $(ARGS)
	$(BIN)/python src/noise_study.py study=feedback dataset=fashion_mnist dataset.samples=12000 model.width=8 epochs=10 batch_size=32 $(ARGS)
	$(BIN)/python src/noise_study.py study=online_cost dataset=fashion_mnist dataset.samples=12000 $(ARGS)

theory: setup  ## every figure and table of the theory into results/theory (ARGS="study=nice")
	OMP_NUM_THREADS=1 $(BIN)/python src/theory.py $(ARGS)

bench: setup  ## this project beside a plain script, Lightning, timm and the bare limit (QUICK=1: a short form)
	$(BIN)/python -m benchmarks.run $(if $(QUICK),quick) $(ARGS)

test: lint types unit  ## lint, types and every test

lint: setup  ## ruff: style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup  ## mypy, strict
	$(BIN)/mypy

unit: setup  ## the tests alone (ARGS="-k schedule" picks some)
	$(BIN)/pytest -n 2 $(ARGS)

test-slow: setup  ## the tests that take minutes: Fashion-MNIST to 90 %, every study, W&B agents, the report in a browser
	$(BIN)/pytest -n 2 -m slow $(ARGS)

test-faults: setup  ## runs killed, starved, cut off, given damaged files; with a tally, about 10 minutes
	$(BIN)/pytest -n 2 -m faults $(ARGS)

test-slurm: setup  ## sweeps through a real SLURM daemon, installed where it is not (Debian, as root)
	tests/slurm/install.sh
	$(BIN)/pytest -m slurm tests/slurm $(ARGS)

examples: setup  ## the schedule inside plain PyTorch, Lightning, Transformers and Accelerate: examples/, tested
	$(BIN)/pytest -m examples tests/test_examples.py tests/contract $(ARGS)

contract: setup  ## what other batch size schedulers do with the same schedule, written to docs/contract.md
	$(BIN)/pytest -m contract tests/contract $(ARGS)
	PYTHONPATH=src:tests OMP_NUM_THREADS=1 $(BIN)/python -m contract.program

coverage: export COVERAGE_FILE = $(CURDIR)/.coverage
coverage: setup  ## lines of src/igo that the tests run, slow ones and programs that they start included
	rm -f .coverage .coverage.*
	$(BIN)/coverage run -m pytest -n 2 -m 'not slurm and not faults' $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

mutants: setup  ## change the plan, noise, checkpoint and configuration in every place: does a test notice? An hour
	$(BIN)/mutmut run --max-children 2 $(ARGS)
	$(BIN)/mutmut results

reproducible: setup  ## how far two runs come apart: the same, other threads, micro-batches, devices
	$(BIN)/python -m benchmarks.reproducible $(ARGS)

lock: setup  ## choose the newest dependencies again: requirements.lock and environment.yml
	$(BIN)/pip-compile --quiet --upgrade --extra dev --extra bench --extra search --extra dashboard --generate-hashes --strip-extras \
		--no-emit-index-url --no-emit-trusted-host --no-emit-find-links \
		--unsafe-package torch --unsafe-package torchvision --unsafe-package pip --unsafe-package setuptools \
		--output-file requirements.lock pyproject.toml
	sed -i '/# locked/q' environment.yml
	grep -oE '^[a-zA-Z0-9._-]+==[^ ;\\]+' requirements.lock | sed 's/^/      - /' >> environment.yml

clean:  ## remove .venv and caches; runs/ and data/ stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis src/*.egg-info
