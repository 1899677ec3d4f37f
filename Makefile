# The two commands of the README, `make demo` and `make test`, do all the set-up themselves.
PYTHON ?= python3
VENV ?= .venv
DEMO_DIR ?= demo
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# What `make test-lowest` runs: quick, and touches every dependency.
LOWEST_TESTS := tests/processors tests/evaluation \
	tests/data \
	tests/training tests/models/test_modeling.py tests/models/test_classification.py

PYTEST = HF_HUB_OFFLINE=1 $(BIN)/python -m pytest
# A worker a core; tests of one file stay together, as they share what is costly to set up. In the order of the
# folders: the longest files do not come last.
WORKERS = -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-all test-lowest coverage audit lint typecheck check-wheel docs clean

demo: $(VENV)/demo.installed
	$(BIN)/python examples/run_demo.py --output_dir $(DEMO_DIR)

# For people: without what is slow, whole scripts, browsers and fuzzing.
test: $(VENV)/dev.installed
	$(PYTEST) $(WORKERS) -m "not slow" --ignore tests/e2e --ignore tests/fuzz

# For CI: everything.
test-all: $(VENV)/dev.installed
	$(PYTEST) $(WORKERS)

# The lines that `make test-all` runs, also in the processes that tests start; settings in setup.cfg.
coverage: $(VENV)/dev.installed
	$(PYTEST) $(WORKERS) --cov --cov-config setup.cfg --cov-report term:skip-covered

# The lowest versions that setup.cfg allows, in an environment of its own.
test-lowest:
	$(PYTHON) -m venv --clear build/lowest
	build/lowest/bin/python -m pip --disable-pip-version-check --quiet install -c constraints-lowest.txt torch
	build/lowest/bin/python -m pip --disable-pip-version-check --quiet install -c constraints-lowest.txt \
		-e '.[demo,analysis]' pytest
	HF_HUB_OFFLINE=1 build/lowest/bin/python -m pytest -m "not slow" $(LOWEST_TESTS)

# Known holes in what the package depends on; asks the databases of PyPI and OSV over the network.
audit:
	$(PYTHON) -m venv --clear build/audit
	build/audit/bin/python -m pip --disable-pip-version-check --quiet install pip-audit
	build/audit/bin/pip-audit --no-deps --disable-pip --requirement constraints.txt
	build/audit/bin/pip-audit --no-deps --disable-pip --requirement constraints-lowest.txt

lint: $(VENV)/dev.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: $(VENV)/dev.installed
	$(BIN)/mypy

# The documentation site, into build/site; a warning is an error.
docs: $(VENV)/dev.installed
	$(BIN)/mkdocs build --strict

# A wheel in an environment of its own, used from a folder that is not the repository; who imports whom in it.
check-wheel: $(VENV)/dev.installed
	rm -rf build/wheel && mkdir -p build/wheel
	$(PIP) wheel --no-deps --wheel-dir build/wheel .
	$(PYTHON) -m venv --clear build/wheel/venv
	build/wheel/venv/bin/python -m pip --disable-pip-version-check --quiet install -c constraints.txt torch
	build/wheel/venv/bin/python -m pip --disable-pip-version-check --quiet install -c constraints.txt \
		build/wheel/*.whl import-linter
	cd build/wheel && HF_HUB_OFFLINE=1 venv/bin/python -P ../../tests/wheel_check.py
	cd build/wheel && venv/bin/lint-imports ../../setup.cfg --no-cache --no-logo

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade pip

# torch by itself first: with the version fixed no other package can pull another build of it in.
$(VENV)/torch.installed: $(VENV)/bin/python constraints.txt
	$(PIP) install -c constraints.txt torch
	touch $@

$(VENV)/demo.installed: $(VENV)/torch.installed setup.cfg
	$(PIP) install -c constraints.txt -e '.[demo]'
	touch $@

$(VENV)/dev.installed: $(VENV)/torch.installed setup.cfg
	$(PIP) install -c constraints.txt -e '.[demo,analysis,umap,ray,faiss,postgres,web,sentence-transformers,mteb,dev,docs,test,tf]'
	touch $@

clean:
	rm -rf $(VENV) build $(DEMO_DIR) modeling_vatt.egg-info
