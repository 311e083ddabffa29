PYTHON ?= .venv/bin/python

.PHONY: demo test check format

demo: .venv
	.venv/bin/moalign demo

test: .venv
	.venv/bin/pytest -q

check: .venv
	$(PYTHON) -m ruff check moalign dashboards tests studies benchmarks
	$(PYTHON) -m ruff format --check moalign dashboards tests studies benchmarks
	$(PYTHON) -m mypy

format: .venv
	$(PYTHON) -m ruff check --fix moalign dashboards tests studies benchmarks
	$(PYTHON) -m ruff format moalign dashboards tests studies benchmarks

.venv:
	python3 -m venv .venv
	.venv/bin/pip install -q -e ".[dev]" -c constraints.txt
