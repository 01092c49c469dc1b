# make run    run everything on this machine, in the foreground; ARGS="--port 0" passes options on
# make test   check style, types and import contracts, then run every test; ARGS goes to pytest
# make check  the same as make test without the tests
# make test-browser  run the tests with web pages; without a Chromium it says how to get one
# make test-servers  install model servers from PyPI, each apart, and call them through the gateway
# make docs   write the pages of docs/ that are generated from the code
# make turns  print the longest turn of an event loop for each hostile input
# make test-machines  13 machines made of network namespaces (needs root): some fail, a region is cut off
# make test-proxies  run the tests behind nginx and HAProxy, and say which of them is missing
# make bench  print the table of measurements; ARGS goes to loadtests.run
# make chaos  kill, pause and cut off parts of a busy system for MINUTES=10, and check what happened
# make test-clients  call the gateway with OpenAI's and NVIDIA's SDKs, LangChain, haystack, Go, Java and others
# make test-kubernetes  run the Kubernetes backend and the chart against a real API server, built with Go the first time
# make test-conformance  run h2spec against a gateway; without Go it says how to get it
# make test-chart  render the Helm chart and check it; without Go it says how to get it
# make clean  remove what these targets created, except the virtual environment
#
# PYTHON=python3.12 selects the interpreter (3.11 or newer), VENV=dir the virtual environment.
# Packages are installed once, and again after pyproject.toml has changed.

VENV ?= .venv
PYTHON ?=
ARGS ?=
MINUTES ?= 10
BIN := $(VENV)/bin
INSTALL = $(TELL) $(BIN)/python -m pip install --progress-bar off --disable-pip-version-check
# Runs the command that follows; every 5 s a line shows what it does, and its output if it fails.
TELL = tell() { log=$(VENV)/install.log; mkdir -p $(VENV); "$$@" >$$log 2>&1 & pid=$$!; \
	trap 'kill $$pid; exit 130' INT TERM; s=0; \
	while kill -0 $$pid 2>/dev/null; do sleep 1; s=$$((s + 1)); \
		if [ $$((s % 5)) -eq 0 ]; then last=$$(tail -n 1 $$log | cut -c1-100); \
			echo "  $$s s: $${last:-no output yet}"; fi; done; \
	wait $$pid || { tail -n 20 $$log >&2; return 1; }; }; tell

# Python compiles each module once, and not in each of the thousand processes that the tests start.
export PYTHONDONTWRITEBYTECODE =

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test test-browser test-chart test-clients test-conformance test-kubernetes test-machines test-proxies test-servers check docs turns bench chaos clean

help:
	@sed -n '/^# make/s/^# //p' Makefile

# exec, so that signals reach the program itself and no shell remains.
run: $(VENV)/.has-examples
	@exec $(BIN)/gateway dev $(ARGS)

# More processes than cores: many tests wait for timers and processes more than they compute.
# In the order of the folders, so that the long files of tests/e2e begin first and none is waited for.
test: check
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder $(ARGS)

test-proxies: $(VENV)/.has-test
	@for program in nginx haproxy; do \
		PATH="$$PATH:/usr/local/sbin:/usr/sbin" command -v $$program >/dev/null || \
		echo "$$program is missing, so its tests are skipped. On Debian and Ubuntu: apt-get install $$program"; \
	done
	$(BIN)/python -m pytest -v tests/e2e/test_proxies.py $(ARGS)

test-browser: $(VENV)/.has-test
	$(BIN)/python -m pytest -v tests/e2e/test_browser.py $(ARGS)

SERVERS := $(basename $(notdir $(wildcard tests/servers/requirements/*.txt)))

test-servers: $(VENV)/.has-test $(SERVERS:%=$(VENV)/servers/%/.created)
	MODEL_SERVERS=$(abspath $(VENV))/servers $(BIN)/python -m pytest tests/servers $(ARGS)

$(VENV)/servers/%/.created: tests/servers/requirements/%.txt | $(VENV)/.created
	@echo "Installing $* into $(@D) ..."
	@$(TELL) $(BIN)/python -m venv $(@D)
	@$(TELL) $(@D)/bin/python -m pip install --progress-bar off --disable-pip-version-check -r $<
	@touch $@

check: $(VENV)/.has-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.has-test
	$(BIN)/python docs/diagrams.py

turns: $(VENV)/.has-test
	$(BIN)/python -m pytest -q -s tests/integration/test_loop_turns.py

bench: $(VENV)/.has-bench
	@exec $(BIN)/python -m loadtests.run $(ARGS)

chaos: $(VENV)/.has-test
	@exec $(BIN)/python -m tests.chaos.run --minutes $(MINUTES) $(ARGS)

# Its clients are installed in .gateway/clients, in the pinned versions.
test-clients: $(VENV)/.has-test
	@exec $(BIN)/python -m tests.clients.run

# The programs are built once, into the user's cache folder, unless they are on PATH.
test-kubernetes: $(VENV)/.has-test
	@$(BIN)/python -m tests.kubernetes.programs
	TEST_KUBERNETES=1 $(BIN)/python -m pytest -v tests/kubernetes $(ARGS)

test-machines: $(VENV)/.has-test
	TEST_MACHINES=1 $(BIN)/python -m pytest -v tests/chaos/test_machines.py tests/chaos/test_regions.py $(ARGS)

test-conformance: $(VENV)/.has-test
	@exec $(BIN)/python -m tests.conformance.run

test-chart: $(VENV)/.has-chart
	@exec $(BIN)/python -m tests.chart.run $(ARGS)

clean:
	rm -rf build dist *.egg-info .gateway .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +

# One stamp per extra of pyproject.toml. The extras test and bench include examples.
$(VENV)/.has-examples: pyproject.toml | $(VENV)/.created
	@if [ $(VENV)/.has-test -nt pyproject.toml ] || [ $(VENV)/.has-bench -nt pyproject.toml ]; then :; else \
		echo "Installing into $(VENV) ..." && $(INSTALL) --editable '.[examples]'; fi
	@touch $@

$(VENV)/.has-test $(VENV)/.has-bench $(VENV)/.has-chart: $(VENV)/.has-%: pyproject.toml | $(VENV)/.created
	@echo "Installing what $* needs into $(VENV) ..."
	@$(INSTALL) --editable '.[$*]'
	@touch $@

$(VENV)/.created:
	@python=; \
	for candidate in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11); do \
		if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo "Python 3.11 or newer is needed$(if $(PYTHON), and $(PYTHON) is not,; set its path with make PYTHON=/path/to/python3)." >&2; \
		exit 1; fi; \
	if [ ! -x $(BIN)/pip ]; then \
		echo "Creating the virtual environment $(VENV) ..."; \
		$(TELL) "$$python" -m venv $(VENV) || { \
			echo "No virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }; \
	fi
	@touch $@
