# The commands of the project; `make help` lists them. Settings: PYTHON (which Python makes .venv), VENV,
# ARGS, SWEEP (a file of launch/sweep/), LAUNCHER (local or slurm), RUNS (a folder of runs) and OUT.
PYTHON ?= python3
VENV   ?= $(if $(filter igo,$(CONDA_DEFAULT_ENV)),$(CONDA_PREFIX),.venv)
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
SHELL  := bash
ARGS   ?=
SWEEP  ?= p_split
LAUNCHER ?= local
RUNS   ?= runs
OUT    ?= report

# What else is on make's command line are settings of the program: make train seed=4 epochs=5
OURS   := PYTHON VENV BIN READY SHELL ARGS SWEEP LAUNCHER RUNS OUT QUICK
given   = $(filter command,$(firstword $(origin $1)))
override ARGS += $(strip $(foreach name,$(filter-out $(OURS),$(.VARIABLES)),$(if $(call given,$(name)),'$(name)=$(value $(name))')))

.DEFAULT_GOAL := help
TARGETS := help setup train sweep table report dashboard sync noise theory bench gpu test test-all lint types coverage mutants study docs lock clean
.PHONY: $(TARGETS)

# Else make would train first, with other settings than were meant.
STRAY := $(firstword $(filter-out $(TARGETS) $(READY)%,$(MAKECMDGOALS)))
ifneq ($(STRAY),)
  $(error $(STRAY) is no target (see make help); settings are written NAME=VALUE, as in: make train epochs=5)
endif

help:  ## list every target
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

setup: $(READY)-train  ## make .venv with this package and its locked dependencies

# requirements/ has locks: train for the programs, release to build the wheel, dev for all else. torch and torchvision are in
# no lock, because their builds differ by machine: pip chooses them and what they require, such as
# CUDA's libraries.
# pip prints nothing or too much: progress.py says in every ten seconds how far it is. Bytecode is
# written when a module is first imported.
PIP    := set -o pipefail; $(BIN)/pip install --disable-pip-version-check --progress-bar off --no-compile
FAR    := $(BIN)/python requirements/progress.py
locked  = @echo "$(VENV): $$(grep -c == $<) locked packages of $<"; $(PIP) --require-hashes --no-deps -r $< | $(FAR)

$(READY)-train: requirements/train.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"error: Python >= 3.11 is needed, {v[0]}.{v[1]} was found; say which with: make setup PYTHON=python3.11")'
	@test -x $(BIN)/python || { echo "$(VENV): made by $$($(PYTHON) --version)"; $(PYTHON) -m venv $(VENV); }
	$(locked)
	@echo "$(VENV): torch, torchvision and this package"; $(PIP) -e '.[train,report,dashboard]' | $(FAR)
	@touch $@

$(READY)-dev: requirements/dev.lock $(READY)-train
	$(locked)
	@touch $@

train: setup  ## train a small ResNet on digits (more: make train dataset=fashion_mnist epochs=5)
	$(BIN)/python src/train.py $(ARGS)

sweep: setup  ## train many runs; finished ones are skipped (SWEEP=methods LAUNCHER=slurm seed=0,1; files in launch/sweep)
	$(BIN)/python src/train.py -m sweep=$(SWEEP) hydra/launcher=$(LAUNCHER) $(ARGS)

table: setup  ## all runs as one table, mean ± sd over seeds (a sweep: RUNS=runs/sweeps/…)
	$(BIN)/igo table "runs=$(RUNS)" $(ARGS)

report: setup  ## report of many runs, opened in a browser: figures, intervals, tests in one page (RUNS=runs OUT=report)
	$(BIN)/igo report "runs=$(RUNS)" "output=$(OUT)" $(ARGS)
	@if [ -n "$$DISPLAY$$WAYLAND_DISPLAY" ] || [ "$$(uname)" = Darwin ]; then \
		$(BIN)/python -m webbrowser -t "file://$(abspath $(OUT))/index.html" > /dev/null || true; fi

dashboard: setup  ## save a dashboard of your runs in W&B (once before: wandb login)
	$(BIN)/igo dashboard $(ARGS)

sync: setup  ## send offline runs to W&B, each epoch once (RUNS=runs)
	$(BIN)/igo sync "runs=$(RUNS)" $(ARGS)

noise: setup  ## Lemma 2.1 on networks, into results/noise: minutes on one free core
	$(BIN)/python -m lab.noise dataset=digits epochs=3 $(ARGS)
	$(BIN)/python -m lab.noise dataset=fashion_mnist dataset.samples=4000 epochs=3 $(ARGS)

theory: setup  ## tables of the theory, into results/theory (ARGS=nice)
	$(BIN)/python -m lab.theory $(ARGS)

bench: $(READY)-dev  ## compare speed with a good script, its limit, and the published script (QUICK=1: a short form)
	$(BIN)/python -m benchmarks.run $(if $(QUICK),quick) $(ARGS)

gpu:  ## 30-minute GPU check without set-up or network: correctness, speed, CUDA graphs, one real training (PYTHON=python3 ARGS=dry)
	PYTHONPATH="src$${PYTHONPATH:+:$$PYTHONPATH}" $(PYTHON) -m benchmarks.gpu $(ARGS)

# Tests run in parallel, with one thread each. They start many programs, so bytecode is kept. LONG:
# more time for one test, and a list of the slowest tests.
PYTEST := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n 3
LONG   := -o faulthandler_timeout=3000 --durations=20

test: lint types  ## lint, types and the quick tests (ARGS="tests/plans" or "-k schedule": some of the tests)
	$(PYTEST) $(ARGS)

test-all: $(READY)-dev  ## the other tests: slow ones, examples, kills and full disks; on a GPU if there is one; on SLURM (root, after tests/slurm/install.sh)
	$(PYTEST) $(LONG) -m 'slow or examples or faults' $(ARGS)
	$(PYTEST) -n 0 -m gpu
	$(PYTEST) -n 0 $(LONG) -m slurm tests/slurm

# What reads run folders opens no file by itself: it might follow a link, wait for a FIFO, or miss a seal.
READERS = $(filter-out %/manifest.py,$(wildcard src/igo/runs/*.py src/igo/runs/loggers/*.py src/igo/sweep/*.py)) \
  src/igo/report/runs.py src/igo/report/results.py lab/study/records.py
OPENERS := \bopen\(|\.read_(text|bytes)\(|shutil\.copy

lint: $(READY)-dev  ## ruff: style and format; import-linter: a room imports only rooms below it
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	@! grep -nE '$(OPENERS)' $(READERS) | grep -vE '(os|tarfile)\.open' || { echo "igo.ground.files alone opens a run's file: opened, read_bytes, read_json"; exit 1; }

types: $(READY)-dev  ## mypy, strict
	$(BIN)/mypy

coverage: export COVERAGE_FILE = $(CURDIR)/.coverage
coverage: $(READY)-dev  ## line coverage, without the faults, slurm and gpu tests: an hour
	rm -f .coverage .coverage.*
	$(BIN)/coverage run -m pytest -n 2 $(LONG) -m 'not slurm and not faults and not gpu' $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

mutants: $(READY)-dev  ## mutation tests of plans, loop, noise, checkpoint and configuration: hours
	$(BIN)/mutmut run --max-children 2 $(ARGS)
	$(BIN)/mutmut results

study: setup  ## write the tables and figures of README.md and results/ from results/records
	$(BIN)/python -m lab.study pages

docs: $(READY)-dev  ## the site into build/site: pages whose code runs, API reference, results (open build/site/index.html)
	OMP_NUM_THREADS=1 $(BIN)/sphinx-build --fail-on-warning --keep-going --quiet -c docs . build/site $(ARGS)

lock: $(READY)-dev  ## lock the newest versions of all dependencies into requirements/ (ARGS=--no-upgrade: only missing ones)
	VENV=$(VENV) requirements/lock.sh $(ARGS)

clean:  ## remove .venv and caches; runs/ and data/ stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis src/*.egg-info
