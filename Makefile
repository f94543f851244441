# Tailrace in a few commands; `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PY := .venv/bin/python
# A second start is quick because modules are compiled once; some images switch that off.
unexport PYTHONDONTWRITEBYTECODE
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 12))

.PHONY: help
help: ## List the commands
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/make \1\t\2/' | expand -t 16

.PHONY: run
run: install ## Run everything on http://127.0.0.1:8000/ (PORT, DEMO_PASSWORD); Ctrl-C ends it
	@exec $(PY) manage.py up

.PHONY: test
test: install ## Run the tests of rules and engine (ARGS="-k word" for some of them)
	@$(PY) -m pytest -n 2 --dist worksteal -m "not long" tests/unit tests/engine $(ARGS)

.PHONY: pages
pages: install ## Run the tests of the pages
	@$(PY) -m pytest -n 2 --dist worksteal -m "not long" tests/web $(ARGS)

.PHONY: long
long: install ## Walk through all there is: every address by every person, verbs in any order, the demo
	@$(PY) -m pytest -n 2 --dist worksteal -m long tests/unit tests/engine tests/web $(ARGS)

.PHONY: stories
stories: install ## Tell the operators' stories in a real browser
	@$(PY) -m pytest -n 2 --dist load tests/flows $(ARGS)

.PHONY: faults
faults: install ## Kill every real process, race real connections, and run the whole of it: slow, and apart
	@$(PY) -m pytest -n 2 --dist loadfile tests/faults tests/ops $(ARGS)

.PHONY: check
check: install ## Lint, formats, types, imports, templates, migrations, packaging
	@$(PY) -m ruff check
	@$(PY) -m ruff format --check
	@templates=$$(git ls-files '*.html'); [ -z "$$templates" ] || .venv/bin/djade --check $$templates
	@$(PY) -m mypy config scheduling workflows reruns
	@.venv/bin/lint-imports
	@$(PY) manage.py makemigrations --check --dry-run
	@$(PY) manage.py check
	@$(PY) -m tests.packaging

.PHONY: bench
bench: install ## Measure, each figure against its peer (ARGS="pages --keep" for the pages alone)
	@$(PY) -m tests.bench $(ARGS)

.PHONY: docs
docs: install ## Write docs/states.md from the tables of states
	@$(PY) manage.py states > docs/states.md.new
	@mv docs/states.md.new docs/states.md

.PHONY: messages
messages: install ## Write config/locale from the texts of code and templates; says what is not translated
	@$(PY) -m tests.messages

.PHONY: lock
lock: install ## Write requirements.lock from pyproject.toml (asks the package index)
	@.venv/bin/uv pip compile --quiet --universal --python-version 3.12 --all-extras --generate-hashes \
		--no-annotate --no-header --no-emit-index-url --no-emit-find-links $(ARGS) \
		pyproject.toml --output-file requirements.lock

# An install is complete when the venv holds a copy of the lock that it was made from: no time stamps that
# a checkout would confuse, and nothing to trust after an install that was interrupted.
.PHONY: install
install: ## Make .venv from requirements.lock, when that changed
	@cmp -s requirements.lock .venv/installed.lock && $(PY) -c '$(NEW_ENOUGH)' 2>/dev/null || $(MAKE) --no-print-directory .venv/installed

.PHONY: .venv/installed
.venv/installed:
	@if [ -x $(PY) ] && ! $(PY) -c '$(NEW_ENOUGH)' 2>/dev/null; then \
		echo "The Python in .venv does not run or is older than 3.12. Remove .venv and try again." >&2; exit 1; fi
	@if [ ! -x $(PY) ]; then \
		found=; for python in $(PYTHON) python3.13 python3.14 python3.12 python3 python; do \
			if "$$python" -c '$(NEW_ENOUGH)' >/dev/null 2>&1; then found=$$python; break; fi; done; \
		if [ -z "$$found" ]; then \
			echo "Tailrace needs Python 3.12 or newer, and none was found. Install 3.13, or name one: PYTHON=/path/to/python3.13 make run" >&2; exit 1; fi; \
		echo "Making .venv with $$("$$found" --version)" >&2; "$$found" -m venv .venv; fi
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PY) -m ensurepip >/dev/null
	@echo "Installing the packages of requirements.lock; this can take some minutes" >&2
	@$(PY) -u -m pip install --progress-bar off --disable-pip-version-check --require-hashes \
		--requirement requirements.lock | awk -v all="$$(grep -c '^[A-Za-z].*==' requirements.lock)" \
		'/^(Collecting|Requirement already)/ && ++n % 10 == 0 { print "  " n " of about " all " packages"; fflush() } \
		/^Installing collected/ { print "  Writing them to .venv"; fflush() }' >&2
	@cp requirements.lock .venv/installed.new && mv .venv/installed.new .venv/installed.lock
