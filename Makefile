# `make demo` and `make test` set up what they need and then do it; `make help` lists the rest.
#
# VENV=path       an existing environment to use instead of .venv: only what is missing is installed
#                 (one with PyTorch's CPU builds is much smaller without a GPU: docs/benchmarks.md)
# PYTHON=python3  the Python (3.10 or newer) that creates .venv
# PYTEST_ARGS, DEMO_ARGS, COMPARE_ARGS    passed on to pytest, tools/make_demo.py and the comparisons

VENV ?= .venv
PYTHON ?= python3
PYTEST_ARGS ?= -n 2 --dist loadfile

PY := $(VENV)/bin/python
PIP := $(PY) -m pip -qq --disable-pip-version-check
# This checkout comes first, also when another one is installed in a shared environment.
RUN := PYTHONPATH="$(CURDIR)$${PYTHONPATH:+:$$PYTHONPATH}" $(PY)

# READY is written last. UNFINISHED is there while a new environment is being made and holds make's
# process id, or "failed" after a step that failed, which the next run repeats. If that process is
# gone, the set-up was killed in the middle of something, and the next one starts from nothing.
READY := $(VENV)/.alphaaction_d2-ready
UNFINISHED := $(VENV)/.alphaaction_d2-unfinished
START := $(shell date +%s)

.PHONY: help setup demo demo-from-nothing compare compare-update compare-kitchen compare-ucf test test-all lint format docs clean FORCE

help:
	@echo "make demo      generate Puppets videos, train, evaluate; results in demo_output/"
	@echo "make demo-from-nothing    the same, and the backbone is trained, too"
	@echo "make compare   train and compare the interaction methods"
	@echo "make compare-update    what it is worth that the memory is written while the network learns"
	@echo "make compare-ucf        AIA against C2D on a miniature of UCF101-24"
	@echo "make compare-kitchen    what the memories of EPIC-Kitchens are worth, on a miniature of it"
	@echo "make test      lint, format and type checks, and the fast tests"
	@echo "make test-all  the same with the slow tests"
	@echo "make lint      ruff's and mypy's checks only"
	@echo "make format    let ruff format and fix"
	@echo "make docs      the pages of docs/ with the reference of the API, in build/docs"
	@echo "make setup     only the environment, $(VENV) (every target above does it when needed)"
	@echo "make clean     remove caches and build products (not $(VENV), not demo_output)"

setup: $(READY)
	@echo "$(VENV) is ready"

demo: $(READY)
	$(RUN) tools/make_demo.py --output demo_output $(DEMO_ARGS)

demo-from-nothing: $(READY)
	$(RUN) tools/make_demo.py --output demo_output --from-nothing $(DEMO_ARGS)

compare: $(READY)
	$(RUN) tools/compare.py $(COMPARE_ARGS)

compare-update: $(READY)
	$(RUN) tools/compare.py --table update --output output/compare_update $(COMPARE_ARGS)

compare-ucf: $(READY)
	$(RUN) projects/AIA/ucf_puppets.py compare $(COMPARE_ARGS)

compare-kitchen: $(READY)
	$(RUN) projects/AIA/kitchen.py compare $(COMPARE_ARGS)

test: lint
	OMP_NUM_THREADS=1 $(RUN) -m pytest -m "not slow" $(PYTEST_ARGS)

test-all: lint
	OMP_NUM_THREADS=1 $(RUN) -m pytest $(PYTEST_ARGS)

lint: $(READY)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: $(READY)
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

docs: $(READY)
	$(PIP) install --no-build-isolation --editable ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --quiet
	@echo "open build/docs/index.html"

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path "./.*" -prune -exec rm -rf {} +

# ---- Set-up ----

# $(call step,command,what to say if it fails). The trap is for Ctrl-C, which pip reports as a failure.
step = @trap 'exit 130' INT TERM; $(1) || \
  { test ! -e $(UNFINISHED) || echo failed > $(UNFINISHED); echo "set-up: $(2)" >&2; exit 1; }

CHECK_PYTHON := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))
CHECK_TORCH := import torch, torchvision; \
  torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
CHECK_ALL := import av, cv2, detectron2.engine, matplotlib, mypy, pyarrow, \
  pycocotools.mask, pytest, pytorchvideo.models, scipy, tensorboard, \
  transformers, xdist

NO_PYTHON := no suitable Python: '$(PYTHON)' is missing, older than 3.10 or without venv. \
  Install one (on Debian with python3-venv) or name one with PYTHON=
NO_VENV := '$(VENV)' exists, but has no bin/python. Name an environment or a new folder with VENV=
NO_PACKAGES := pip could not install what is missing (see above). Run make again when it can
BAD_TORCH := torch and torchvision in $(VENV) do not work together. Both must come from one source: \
  '$(PY) -m pip uninstall torch torchvision', then 'make setup' (with PIP_FIND_LINKS unset if a \
  folder of wheels holds only one of them)
BAD_IMPORT := the environment is damaged (see above). Remove $(VENV) and run make again

# A missing interpreter (a removed or upgraded Python) also calls for the set-up.
$(READY): setup.py alphaaction_d2/apps/install_detectron2.py $(shell test -x $(PY) || echo FORCE)
	@if [ -e $(UNFINISHED) ]; then \
	  owner=$$(cat $(UNFINISHED)); \
	  if [ "$$owner" = failed ]; then \
	    echo "set-up: the last one failed, continuing"; echo $$PPID > $(UNFINISHED); \
	  elif kill -0 "$$owner" 2>/dev/null; then \
	    echo "set-up: process $$owner is setting up $(VENV): wait for it" \
	      "(if that is something else, remove $(VENV))" >&2; exit 1; \
	  else \
	    echo "set-up: the last one was interrupted, starting again"; rm -rf $(VENV); \
	  fi; \
	fi
	@if [ ! -x $(PY) ]; then \
	  $(PYTHON) -c "$(CHECK_PYTHON)" 2>/dev/null || { echo "set-up: $(NO_PYTHON)" >&2; exit 1; }; \
	  if [ -e $(VENV) ] && [ ! -e $(VENV)/pyvenv.cfg ] && [ -n "$$(ls -A $(VENV))" ]; then \
	    echo "set-up: $(NO_VENV)" >&2; exit 1; \
	  fi; \
	  echo "set-up: creating $(VENV) (once; about two minutes and 6 GB)"; \
	  mkdir -p $(VENV) && echo $$PPID > $(UNFINISHED) && $(PYTHON) -m venv $(VENV); \
	fi
	$(call step,$(PIP) install setuptools wheel,$(NO_PACKAGES))
	@echo "set-up: torch and the other packages"
	$(call step,$(PIP) install --no-build-isolation --editable ".[dev]",$(NO_PACKAGES))
	$(call step,$(PY) -c "$(CHECK_TORCH)",$(BAD_TORCH))
	$(call step,$(PY) tools/install_detectron2.py,$(NO_PACKAGES))
	$(call step,$(RUN) -W ignore -c "$(CHECK_ALL)",$(BAD_IMPORT))
	@rm -f $(UNFINISHED); date > $(READY)
	@echo "set-up: done in $$(( $$(date +%s) - $(START) )) s"

FORCE:
