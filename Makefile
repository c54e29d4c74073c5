# One command each for the demo and for all checks. `make` alone lists the targets; docs/development.md says more.
#
# The environment lies in .venv and is made from the locks alone, with uv where it is on PATH, else with pip.
# PYTHON=python3.12 chooses the interpreter, UV= (empty) does without uv, STORE= is where the demo writes,
# ARGS="-k cka" goes to pytest.

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
.PHONY: help demo demo-s3 pretrained test check audit bench faults slurm ui site format lock clean

help:
	@echo 'make demo [STORE=runs/demo]  nine networks on embedded images, here, in a few minutes; go on where it stopped'
	@echo 'make demo-s3                 the same, kept in object storage: a real S3 server, started for it on this machine'
	@echo 'make pretrained              three real ImageNet networks on twenty photographs, inverted at 240 px; half an hour'
	@echo 'make test [ARGS=...]         everything CI runs: format, lint, types, tests'
	@echo 'make check                   format, lint, types, and the audit as far as anybody answers'
	@echo 'make audit                   the environment against the locks, and what is locked against known vulnerabilities'
	@echo 'make bench [BENCH=similarity] [ARGS=...]  speed against the published code, of inversion or of another; minutes'
	@echo 'make faults [ARGS="--faults 50 --seed 1"]  break a real sweep on object storage in every way there is; half an hour'
	@echo 'make slurm                   a sweep as jobs of a real SLURM, started for it on this machine; needs root (tests/support/slurm.py)'
	@echo 'make ui                      a sweep as it is seen in the UI, by a browser; needs `apt-get install chromium`'
	@echo 'make site                    break a Prefect server on PostgreSQL and its workers; a quarter of an hour (tests/support/sites.py)'
	@echo 'make format                  rewrite the code in the agreed format'
	@echo 'make lock [UPGRADE=1]        renew requirements*.lock from pyproject.toml (needs uv)'
	@echo 'make clean                   remove .venv and caches; runs/ stays'

demo: $(INSTALLED)
	$(BIN)/netsim demo --store "$(STORE)"

# The server's data stay in runs/s3: the same command goes on where it stopped.
demo-s3: $(INSTALLED_DEV)
	$(SUPPORT).seaweed runs/s3 $(BIN)/netsim demo --store s3://netsim-tests/demo

# Needs no network. What it makes stays in runs/pretrained: the same command goes on where it stopped.
pretrained: $(INSTALLED_DEV)
	$(SUPPORT).seaweed runs/pretrained/s3 $(BIN)/python -m support.pretrained runs/pretrained

test: check
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

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

faults: $(INSTALLED_DEV)
	$(SUPPORT).faults $(ARGS)

slurm: $(INSTALLED_DEV)
	$(BIN)/python -m pytest -m slurm tests/system/test_slurm.py $(ARGS)

ui: $(INSTALLED_DEV)
	@command -v chromium >/dev/null || { echo "make ui needs a browser: apt-get install chromium" >&2; exit 1; }
	$(BIN)/python -m pytest -m ui tests/system/test_ui.py $(ARGS)

# Needs postgresql of Debian.
site: $(INSTALLED_DEV)
	$(BIN)/python -m pytest -m site tests/system/test_deploy.py tests/system/test_site.py $(ARGS)

format: $(INSTALLED_DEV)
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache dist build

# --- the environment -------------------------------------------------------------------------------------------------
# A stamp says that .venv is whole. It goes away before anything changes and comes back last, so what an interrupted
# install left behind is thrown away by the next make, while a whole .venv is only brought up to date.

SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))

# with_uv COMMAND, ELSE: uv may be a shim that is on PATH but does not run, so it is asked for its version.
with_uv = if [ -n '$(UV)' ] && '$(UV)' --version >/dev/null 2>&1; then $(1); else $(2); fi

# gputil, which robustness asks for, is the one package built from source: --build-constraints pins its setuptools.
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
# For every supported Python, on Linux and macOS, one version of each package (--fork-strategy fewest), so that numbers
# do not depend on which Python computed them. The second lock adds what asks Kubernetes for pods, the third the
# development tools, the last packages of which only files are read.

COMPILE = '$(UV)' pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --no-strip-extras \
	--generate-hashes --custom-compile-command 'make lock' $(if $(UPGRADE),--upgrade)

# pip before 23.3 takes `sqlalchemy[asyncio]==2.0.58` for another package than the `sqlalchemy` that alembic asks for,
# and the other way round: it wants a pin for each, so every pin with extras is repeated without them.
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
