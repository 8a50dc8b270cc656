# Each target alone, on a fresh clone with Python 3.11 to 3.13 and make: creates .venv, installs, does its job.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
BIN := .venv/bin
DEMO ?= demo
# A file's tests stay together, for the fixtures they share; files begin in their order, whose last ones are short.
AT_ONCE := -n auto --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-assets test-browser docs lint slow clean

demo: .venv/installed
	$(BIN)/aupipe demo $(DEMO)

test: .venv/installed
	$(BIN)/python -m pytest $(AT_ONCE)

# The tests that need real clips, photos and weights, which are no part of the project. None of them may skip.
test-assets: .venv/installed
	AUPIPE_FORBID_SKIPS=1 $(BIN)/python -m pytest -m assets $(AT_ONCE)

# Pages in Chromium (Debian: apt-get install chromium); what axe-core checks where node_modules has it (npm install axe-core).
test-browser: .venv/installed
	$(BIN)/python -m pytest -m 'browser and not assets and not slow'

# The documentation as a site, in build/site; then what its pages promise. -E: docstrings and --help are read anew.
docs: .venv/installed
	$(BIN)/python -m sphinx -E -W --keep-going -q -b html -d build/doctrees docs build/site
	$(BIN)/python -m pytest -q -m site tests/docs

slow: .venv/installed
	$(BIN)/python -m pytest -m 'slow and not assets'

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A few minutes and a few GB the first time: torch is large. Compiled here: where Python is told to write no bytecode,
# each process would do it anew.
.venv/installed: pyproject.toml
	@echo "installing into .venv with $(PYTHON) (a few minutes the first time)"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --progress-bar off --disable-pip-version-check -e '.[dev]'
	$(BIN)/python -m compileall -q aupipe
	@touch $@

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache
