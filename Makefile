# Thin: each target calls one tool. `make` alone lists the targets.
PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
PIN := $(if $(CONSTRAINTS),-c $(CONSTRAINTS))
NOTEBOOKS = $(wildcard notebooks/[0-9]*.ipynb notebooks/exercises/*.ipynb)
UID := $(shell id -u)
# Open a browser only where one can show itself.
HEADLESS := $(if $(DISPLAY)$(WAYLAND_DISPLAY)$(filter Darwin,$(shell uname -s)),,1)

.DEFAULT_GOAL := help
.PHONY: help course test chapter exercises refresh times tree equations faults bench check lint browser-test constraints clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'This course needs Python 3.11 or newer, and "$(PYTHON)" is not. Name one: make PYTHON=python3.12 $(MAKECMDGOALS)'; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
	  echo 'No virtual environment could be made. On Debian and Ubuntu: apt install python3-venv'; exit 1; }
	@touch $@

$(VENV)/.course: $(VENV)/.created pyproject.toml constraints.txt
	@echo 'Installing the course (once, a few minutes) ...'
	@$(BIN)/python -m pip install --quiet $(PIN) -e '.[course]'
	@touch $@

$(VENV)/.test: $(VENV)/.created pyproject.toml constraints.txt
	@echo 'Installing the course and its tests (once, a few minutes) ...'
	@$(BIN)/python -m pip install --quiet $(PIN) -e '.[course,test]'
	@touch $@ $(VENV)/.course

course: $(VENV)/.course  ## install, then open JupyterLab on chapter 00
	@echo 'Opening notebooks/00_tour.ipynb. The address is printed below; stop with Ctrl-C twice.'
	$(BIN)/jupyter lab --ServerApp.root_dir='$(CURDIR)' --LabApp.default_url=/lab/tree/notebooks/00_tour.ipynb \
	  --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate --LabApp.news_url=None \
	  $(if $(filter 0,$(UID)),--allow-root) $(if $(HEADLESS),--no-browser)

test: $(VENV)/.test  ## every unit test and every notebook
	CI=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(if $(WORKERS),-n $(WORKERS) --dist loadfile) tests $(NOTEBOOKS) --nbval \
	  --nbval-current-env --nbval-sanitize-with notebooks/sanitize.cfg --nbval-cell-timeout 300

chapter: $(VENV)/.course  ## execute one chapter from its master: make chapter NAME=02_forward
	@test -n '$(NAME)' || { echo 'Which chapter? make chapter NAME=02_forward'; exit 1; }
	@$(BIN)/python notebooks/build.py run $(NAME)

exercises: $(VENV)/.course  ## write student and solution notebooks: make exercises [NAME=02_forward]
	@$(BIN)/python notebooks/build.py exercises $(NAME)

refresh: $(VENV)/.course  ## execute all chapters again and show which outputs changed
	@$(BIN)/python notebooks/build.py refresh $(NAME)

times: $(VENV)/.course  ## measure the chapters (or NAME=...) and rewrite the table in README.md
	@$(BIN)/python notebooks/build.py times $(NAME)

tree: $(VENV)/.test  ## rewrite the tree of the package in README.md
	@$(BIN)/python tests/test_ground.py

equations: $(VENV)/.course  ## prove all equations again; rewrite docs/equations.md and the counts in README.md
	@OMP_NUM_THREADS=1 $(BIN)/python notebooks/equations.py table

faults: $(VENV)/.test  ## break every displayed equation and every formula of the package (an hour); list what nobody noticed
	@OMP_NUM_THREADS=1 $(BIN)/python notebooks/equations.py mutants
	@OMP_NUM_THREADS=1 $(BIN)/python tests/faults/mutate.py
	@OMP_NUM_THREADS=1 $(BIN)/python tests/faults/mutate.py --notebooks --formulas

bench: $(VENV)/.test  ## speed beside diffusers and lucidrains, in one run (the peers: pip install -e '.[bench]')
	@$(BIN)/python benchmarks/bench.py $(BENCH)

check: $(VENV)/.course  ## compare notebooks with their masters, without executing
	@$(BIN)/python notebooks/build.py check

lint: $(VENV)/.test  ## ruff, check and format
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

browser-test: $(VENV)/.test  ## drive chapter 02 in JupyterLab with Chromium (BROWSER_NOTEBOOK=... another)
	$(BIN)/python -m pytest tests/browser/test_lab.py

constraints: $(VENV)/.test  ## write the versions now installed to constraints.txt
	@$(BIN)/python -m pip freeze --exclude-editable --exclude ddpm-course | sed -E 's/\+cpu|\+cu[0-9]+//' > constraints.txt

clean:  ## remove .venv and everything generated
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} + -o -name .ipynb_checkpoints -prune -exec rm -rf {} +
