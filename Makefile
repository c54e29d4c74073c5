# One command each for the demo and for all checks. `make` alone lists the targets; see docs/project/development.md.
#
# The environment is .venv, made from the locks alone, with uv if it is on PATH, else with pip.
# PYTHON=python3.12 chooses the interpreter, UV= (empty) disables uv, STORE= sets the location of the demo's run,
# ARGS="-k cka" is passed to pytest.

STORE ?= runs/demo
UV ?= uv
PYTHON ?=
ARGS ?=

export OMP_NUM_THREADS = 1  # threads multiply: workers and pytest processes are the parallelism
export PIP_DISABLE_PIP_VERSION_CHECK = 1

VENV := .venv
BIN := $(VENV)/bin
# Programs that support the tests: $(SUPPORT).seaweed is tests/support/seaweed.py.
SUPPORT := PYTHONPATH=tests $(BIN)/python -m support
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev

.DEFAULT_GOAL := help
.PHONY: help demo demo-s3 pretrained test check audit bench gpu docs notebooks reference fuzz faults slurm ui site \
	release-check format lock clean

help:
	@echo 'make demo [STORE=runs/demo]  compare nine networks on embedded images, in minutes; run it again to resume'
	@echo 'make demo-s3                 the demo with its run in object storage, on a real S3 server started here'
	@echo 'make pretrained              invert three real ImageNet networks on twenty photographs at 240 px; half an hour'
	@echo 'make test [ARGS=...]         everything CI runs: format, lint, types, audit, tests'
	@echo 'make check                   format, lint, types, and the audit if its services answer'
	@echo 'make audit                   compare the environment with the locks, and the locks with known vulnerabilities'
	@echo 'make bench [BENCH=similarity] [ARGS=...]  compare speed with the published code; default: inversion; minutes'
	@echo 'make gpu                     on a GPU: the tests marked gpu, speed in every precision, and a sweep; 9 minutes'
	@echo 'make docs                    build the documentation, strictly and without a network: build/docs/index.html'
	@echo 'make notebooks               run the notebooks of the documentation, and store what they show; two minutes'
	@echo 'make reference               write the pages of settings and commands from the code'
	@echo 'make fuzz [TIMES=10]          draw ten times as many inputs of every kind as the tests do, other ones each time; minutes'
	@echo 'make faults [ARGS="--faults 50 --seed 1"]  inject every kind of fault into a sweep on object storage; half an hour'
	@echo 'make slurm                   run a sweep as jobs of a real SLURM started here; needs root (tests/support/slurm.py)'
	@echo 'make ui                      check a sweep in the UI, and the report, with a browser; needs `apt-get install chromium`'
	@echo 'make site                    break a Prefect server on PostgreSQL and its workers; 15 minutes (tests/support/sites.py)'
	@echo 'make release-check           build the distributions and run the demo from the wheel in a new environment; 15 minutes'
	@echo 'make format                  rewrite the code in the agreed format'
	@echo 'make lock [UPGRADE=1]        regenerate requirements*.lock from pyproject.toml (needs uv)'
	@echo 'make clean                   remove .venv and caches; runs/ stays'

demo: $(INSTALLED)
	$(BIN)/netsim demo --store "$(STORE)"

# The server's data are kept in runs/s3: run it again to resume.
demo-s3: $(INSTALLED_DEV)
	$(SUPPORT).seaweed runs/s3 $(BIN)/netsim demo --store s3://netsim-tests/demo

# Needs no network. Its run is kept in runs/pretrained: run it again to resume.
pretrained: $(INSTALLED_DEV)
	$(SUPPORT).seaweed runs/pretrained/s3 $(BIN)/python -m support.pretrained runs/pretrained

test: check
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(INSTALLED_DEV)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(SUPPORT).audit --if-answered

audit: $(INSTALLED_DEV)
	$(SUPPORT).audit

BENCH ?= inversion
bench: $(INSTALLED)
	$(BIN)/python -m benchmarks.$(BENCH) $(ARGS)

# Results are written as they come, to build/gpu; on a machine without make: python -m benchmarks.gpu
gpu: $(INSTALLED_DEV)
	$(BIN)/python -m benchmarks.gpu $(ARGS)

# Warnings are errors. Pages load nothing from elsewhere, so the result can be read without a network, too.
docs: $(INSTALLED_DEV)
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --fresh-env --quiet docs build/docs
	@echo 'The documentation is in build/docs/index.html.'

# Their runs use the Prefect server of this machine, which is started if there is none.
notebooks: $(INSTALLED_DEV)
	$(SUPPORT).notebooks

reference: $(INSTALLED_DEV)
	$(SUPPORT).reference

# A failure prints the smallest input that shows it, and a line that repeats it.
TIMES ?= 10
fuzz: $(INSTALLED_DEV)
	NETSIM_FUZZ=$(TIMES) $(BIN)/python -m pytest -n 2 --dist load tests/integration/fuzz $(ARGS)

faults: $(INSTALLED_DEV)
	$(SUPPORT).faults $(ARGS)

slurm: $(INSTALLED_DEV)
	$(BIN)/python -m pytest -m slurm tests/system/test_slurm.py $(ARGS)

ui: $(INSTALLED_DEV)
	@command -v chromium >/dev/null || { echo "make ui needs a browser: apt-get install chromium" >&2; exit 1; }
	$(BIN)/python -m pytest -m ui tests/system/test_ui.py tests/system/test_report_ui.py $(ARGS)

# Needs Debian's package postgresql.
site: $(INSTALLED_DEV)
	$(BIN)/python -m pytest -m site tests/system/test_deploy.py tests/system/test_site.py $(ARGS)

release-check: $(INSTALLED_DEV)
	$(SUPPORT).release

format: $(INSTALLED_DEV)
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .hypothesis .mypy_cache .pytest_cache .ruff_cache dist build

# --- the environment -------------------------------------------------------------------------------------------------
# A stamp marks a complete .venv. It is removed before anything changes and restored last, so the next make discards
# what an interrupted install left, and only updates a complete .venv.

SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))

# with_uv COMMAND, ELSE: uv may be a shim on PATH that does not run, so its version is queried first.
with_uv = if [ -n '$(UV)' ] && '$(UV)' --version >/dev/null 2>&1; then $(1); else $(2); fi

# gputil, which robustness requires, is the only package built from source: --build-constraints pins its setuptools.
install = $(call with_uv,\
	'$(UV)' pip install --quiet --python $(BIN)/python --require-hashes --build-constraints requirements.lock -r $(1),\
	$(BIN)/python -m pip install --quiet --require-hashes -r $(1))

install_project = $(call with_uv,\
	'$(UV)' pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .,\
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .)

$(INSTALLED): requirements.lock pyproject.toml
	@if [ ! -e $@ ]; then \
	    for python in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11); do \
	        if "$$python" -c '$(SUPPORTED)' >/dev/null 2>&1; then found=$$python; break; fi; \
	    done; \
	    if [ -z "$$found" ]; then \
	        echo "netsim needs Python 3.11 to 3.14; $(or $(PYTHON),python3) is $$($(or $(PYTHON),python3) --version 2>&1 | tail -n 1)." >&2; \
	        echo "Install one, or name one: make PYTHON=/path/to/python3.12" >&2; \
	        exit 1; \
	    fi; \
	    echo "Making .venv with $$("$$found" --version): 1 to 6 minutes, 6 GB on Linux (torch with CUDA), once."; \
	    rm -rf $(VENV); \
	    $(call with_uv,'$(UV)' venv --quiet --no-python-downloads --python "$$found" $(VENV),"$$found" -m venv $(VENV)); \
	fi
	@rm -f $@ $(INSTALLED_DEV)
	@$(call install,requirements.lock)
	@$(install_project)
	@touch $@

$(INSTALLED_DEV): $(INSTALLED) requirements-cluster.lock requirements-dev.lock requirements-pretrained.lock
	@rm -f $@
	@$(call install,requirements-cluster.lock)
	@$(call install,requirements-dev.lock)
	@$(call install,requirements-pretrained.lock --no-deps)
	@touch $@

# --- the locks -------------------------------------------------------------------------------------------------------
# One version of each package for every supported Python, on Linux and macOS (--fork-strategy fewest), so that numbers
# do not depend on the Python that computed them. The second lock adds clients of Kubernetes, the third development
# tools, the last packages of which only files are read.

COMPILE = '$(UV)' pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --no-strip-extras \
	--generate-hashes --custom-compile-command 'make lock' $(if $(UPGRADE),--upgrade)

# pip before 23.3 treats `sqlalchemy[asyncio]==2.0.58` and the `sqlalchemy` that alembic requires as two packages and
# demands a pin for each, so every pin with extras is repeated without them.
with_plain_twins = awk '/^[^ ]/ { printf "%s", plain; plain = ""; twin = /^[^ ]+\[/ } { print } \
	twin { sub(/\[[^]]*\]/, ""); plain = plain $$0 "\n" } END { printf "%s", plain }' $(1) > $(1).new && mv $(1).new $(1)

lock:
	@'$(UV)' --version >/dev/null 2>&1 || { echo "make lock needs uv: pip install uv" >&2; exit 1; }
	$(COMPILE) pyproject.toml --group build --output-file requirements.lock
	@$(call with_plain_twins,requirements.lock)
	$(COMPILE) --group cluster --constraints requirements.lock --output-file requirements-cluster.lock
	@$(call with_plain_twins,requirements-cluster.lock)
	$(COMPILE) --group dev --constraints requirements-cluster.lock --output-file requirements-dev.lock
	$(COMPILE) --no-deps --group pretrained --output-file requirements-pretrained.lock
