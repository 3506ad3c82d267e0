# One entry point for people and CI; no logic in here. `make demo` and `make test` set themselves up.
python := .venv/bin/python
pytest := .venv/bin/pytest
runs := .cache/conformance

# With this in the environment each process of the tests, and each program that a test starts, would compile every module anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo test unit integration interop scan e2e bench lint lint-certificates conformance conformance-check controls chart-check chart-readme fuzz lock

setup: .venv/installed

.venv/installed: requirements-uv.lock requirements-dev.lock pyproject.toml
	python3 -m venv .venv
	$(python) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.lock
	.venv/bin/uv pip install --quiet --python $(python) --require-hashes -r requirements-dev.lock
	.venv/bin/uv pip install --quiet --python $(python) --no-deps --no-build-isolation --editable .
	touch $@

demo: setup
	$(python) examples/demo.py

test: lint unit integration

unit: setup
	PYTEST_DEBUG_TEMPROOT=$$(tests/folder) $(pytest) tests --processes $$(nproc) --ignore tests/integration --ignore tests/interop --ignore tests/e2e --conformance $(runs)/unit.json

# Each of the two processes has its own API server.
integration: setup
	KUBEBUILDER_ASSETS=$${KUBEBUILDER_ASSETS:-$$(tests/controlplane/build)} $(pytest) tests/integration --numprocesses 2 --dist loadfile --conformance $(runs)/integration.json

interop: setup
	$(pytest) tests/interop --ignore tests/interop/scan --conformance $(runs)/interop.json

# sslyze, testssl.sh and slowhttptest against the running estserver
scan: setup .venv-sslyze/installed
	$(pytest) tests/interop/scan --conformance $(runs)/scan.json

# sslyze pins an old cryptography too.
.venv-sslyze/installed: tests/tools/requirements-sslyze.lock
	python3 -m venv .venv-sslyze
	.venv/bin/uv pip install --quiet --python .venv-sslyze/bin/python --require-hashes -r $<
	touch $@

# kube-score and checkov over the rendered chart, where tests/chart/exceptions.toml has what stays, with its reason; alerts on series
chart-check: setup .venv-checkov/installed
	$(python) -m tests.chart.check
	$(pytest) -q tests/chart/firing.py

chart-readme: setup
	$(python) -m tests.chart.readme

# checkov pins many old libraries.
.venv-checkov/installed: tests/tools/requirements-checkov.lock
	python3 -m venv .venv-checkov
	.venv/bin/uv pip install --quiet --python .venv-checkov/bin/python --require-hashes -r $<
	touch $@

e2e: setup
	$(pytest) tests/e2e --conformance $(runs)/e2e.json

bench: setup
	$(python) bench/run.py

# Takes each control of the threats out of a copy of the tree, and demands that a test misses it.
controls: setup
	$(python) tests/controls/remove.py

lint: setup
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	$(python) -m tests.chart.readme --check

lint-certificates: setup .venv-pkilint/installed
	$(python) -m tests.lint_certificates

# FUZZ_SECONDS (600) of atheris for each decoder. Its library lies beside the venv, for it is built for few versions of Python.
fuzz: setup .venv-fuzz/installed
	PYTHONPATH=.venv-fuzz $(python) tests/fuzz/all.py

.venv-fuzz/installed: tests/tools/requirements-fuzz.lock
	.venv/bin/uv pip install --quiet --python $(python) --target .venv-fuzz --require-hashes -r $<
	touch $@

# pkilint pins an old cryptography, so it lives in a venv of its own.
.venv-pkilint/installed: tests/tools/requirements-pkilint.lock
	python3 -m venv .venv-pkilint
	.venv/bin/uv pip install --quiet --python .venv-pkilint/bin/python --require-hashes -r $<
	touch $@

# Writes docs/conformance.md; what the last run of e2e showed stands. CI runs the tiers one by one and then conformance-check.
conformance: unit integration interop scan
	$(python) -m tests.conformance

conformance-check: setup
	$(python) -m tests.conformance --check

lock: setup
	.venv/bin/uv pip compile pyproject.toml --extra server --extra operator --universal --generate-hashes --python-version 3.11 --quiet --output-file requirements.lock
	.venv/bin/uv pip compile pyproject.toml --all-extras --universal --generate-hashes --python-version 3.11 --quiet --output-file requirements-dev.lock
	echo "hatchling>=1.27" | .venv/bin/uv pip compile - --universal --generate-hashes --python-version 3.11 --quiet --output-file requirements-build.lock
	echo "uv>=0.9" | .venv/bin/uv pip compile - --universal --generate-hashes --python-version 3.11 --quiet --output-file requirements-uv.lock
	echo "atheris==3.0.0" | .venv/bin/uv pip compile - --universal --generate-hashes --python-version 3.11 --quiet --output-file tests/tools/requirements-fuzz.lock
	echo "pkilint>=0.13.3" | .venv/bin/uv pip compile - --universal --generate-hashes --python-version 3.11 --quiet --output-file tests/tools/requirements-pkilint.lock
	echo "sslyze>=6.3" | .venv/bin/uv pip compile - --universal --generate-hashes --python-version 3.11 --quiet --output-file tests/tools/requirements-sslyze.lock
	echo "checkov>=3.3" | .venv/bin/uv pip compile - --universal --generate-hashes --python-version 3.11 --quiet --output-file tests/tools/requirements-checkov.lock
