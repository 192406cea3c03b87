# `make demo` and `make test` need Python 3.11-3.13, git and make, and nothing else: the first one makes .venv.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# Test files side by side, one process a core and at most four; `-n logical` counts cores and gives a machine of one core one.
PYTEST := $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help demo evidence test check docs format clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else f"error: Python 3.11 to 3.13 is needed, {sys.executable} is {v[0]}.{v[1]}: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): 8 GB, most of it torch with CUDA; minutes"
	$(BIN)/python -m pip install --disable-pip-version-check --editable ".[all,dev]"
	@touch $@

demo: $(STAMP)  ## the whole loop on the embedded clips, to runs/demo/report.html
	$(BIN)/python recipes/demo.py

evidence: $(STAMP)  ## the runs behind docs/EVIDENCE.md, which go on where they stopped: five hours of one core
	PYTHON=$(BIN)/python docs/evidence/control_a.sh
	PYTHON=$(BIN)/python docs/evidence/prediction.sh
	PYTHON=$(BIN)/python docs/evidence/gate.sh
	PYTHON=$(BIN)/python docs/evidence/control_gate.sh

test: $(STAMP)  ## the fast tests
	$(PYTEST) -m "not slow"

check: $(STAMP) docs  ## documentation, format, lint, types, import directions and every test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST)

docs: $(STAMP)  ## the documentation, to build/docs/index.html; a broken link is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --config-file docs/mkdocs/mkdocs.yml
	@echo "$(CURDIR)/build/docs/index.html (with search: python3 -m http.server --directory build/docs)"
	@test "$(MAKECMDGOALS)" != docs -o -z "$$DISPLAY$$WAYLAND_DISPLAY$$BROWSER" || $(BIN)/python -m webbrowser "file://$(CURDIR)/build/docs/index.html"

format: $(STAMP)  ## rewrite the code as `check` wants it
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove the environment and every run
	rm -rf $(VENV) runs
