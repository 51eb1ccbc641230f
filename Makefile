# Telemetry Lake: every command in one place. `make` alone lists them.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PYTHON := .venv/bin/python
PYTEST := $(PYTHON) -m pytest
UV_COMPILE := .venv/bin/uv pip compile --quiet --generate-hashes --python-version 3.11 --no-emit-index-url \
	--custom-compile-command "make lock"

# How many tests run beside each other (those that start the whole stack always run alone); 0: one after another.
WORKERS ?= 3

# Containers tend to set it; then each of the hundreds of processes of a test run would compile the project anew.
unexport PYTHONDONTWRITEBYTECODE

# Counts what has arrived; `make query SQL="SELECT ..."` asks anything else.
SQL ?= SELECT submission_date, document_type, count(*) AS pings FROM live.pings GROUP BY ALL ORDER BY ALL
export SQL

# For commands that make no sense before anything was installed.
define needs_install
@test -x $(PYTHON) || { echo "Nothing is installed yet, so nothing runs; 'make run' installs and starts everything."; exit 1; }
endef

.PHONY: help
help: ## List these commands
	@awk 'BEGIN { FS = ":.*## " } \
		/^## / { printf "\n%s\n", substr($$0, 4) } \
		/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

## Use it

.PHONY: run
run: install ## Install what is missing, start the whole local stack and a small client fleet; Ctrl-C stops it
	@$(PYTHON) -m local_stack run

.PHONY: run-no-fleet
run-no-fleet: install ## The same without the fleet: send pings of your own
	@$(PYTHON) -m local_stack run --no-fleet

.PHONY: query
query: install ## Query the tables of the running stack: make query SQL="SELECT ..."
	@$(PYTHON) -m telemetry_lake query "$$SQL"

.PHONY: status
status: ## Show which processes of the local stack run, and where
	$(needs_install)
	@$(PYTHON) -m local_stack status

.PHONY: stop
stop: ## Stop a local stack that runs elsewhere or was left behind
	$(needs_install)
	@$(PYTHON) -m local_stack stop

.PHONY: clean
clean: ## Delete the data, logs and credentials of the local stack (.local/); refused while it runs
	$(needs_install)
	@$(PYTHON) -m local_stack clean

.PHONY: emr-package
emr-package: install ## Make what Amazon EMR needs to run the Spark jobs, and upload what is not in the bucket yet
	@$(PYTHON) -m build_tools.emr_package $(ARGUMENTS)

.PHONY: compose-env
compose-env: ## Write the credentials that docker-compose.yaml needs into .env; what is there already stays
	@docker/make_env.sh

## Change it

.PHONY: install
install: ## Install the locked Python packages (.venv) and Java artifacts (java/lib)
	@build_tools/install.sh

.PHONY: test
test: install lint types imports ## Lint, strict types, import rules, all tests but the long ones
	$(PYTEST) -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not stack and not long"
	$(PYTEST) -m stack

.PHONY: test-long
test-long: install ## The tests that take minutes each, one after another: before a release, and when they are about what changed
	$(PYTEST) -m long

.PHONY: test-fast
test-fast: install ## The tests that start no whole stack and take less than 10 seconds each
	$(PYTEST) -m "not stack and not slow and not long"

.PHONY: lint
lint: install ## Check style and formatting (ruff)
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

.PHONY: types
types: install ## Check types (mypy, strict)
	$(PYTHON) -m mypy

.PHONY: imports
imports: install ## Check who imports whom (import-linter)
	.venv/bin/lint-imports

.PHONY: bench-backfill
bench-backfill: install ## Measure the backfill: reading alone, copying, proving, and what a day of history takes (5 minutes)
	@$(PYTHON) -m benchmarks.backfill $(ARGUMENTS)

.PHONY: bench-convert
bench-convert: install ## Measure conversion on one core: pings/s of each step, bytes stored per ping, peak memory (4 minutes)
	@$(PYTHON) -m benchmarks.convert $(ARGUMENTS)

.PHONY: bench-analysis
bench-analysis: install ## Measure how long analysts wait: SQL, the analysis module, map-reduce scripts (5 minutes)
	@$(PYTHON) -m benchmarks.analysis $(ARGUMENTS)

.PHONY: bench-ingest
bench-ingest: install ## Measure one ingest worker against a handler that stores nothing and nginx (wrk; 4 minutes)
	@$(PYTHON) -m benchmarks.ingest $(ARGUMENTS)

.PHONY: bench-pipeline
bench-pipeline: install ## Measure a whole stack under 732 pings/s: backlog, freshness, processor time (10 minutes and more)
	@$(PYTHON) -m benchmarks.pipeline $(ARGUMENTS)

.PHONY: bench-mapreduce
bench-mapreduce: install ## Measure map-reduce scripts over 20,000 pings of 72 KB and 5,000,000 rows of dimensions (10 minutes)
	@$(PYTHON) -m benchmarks.mapreduce $(ARGUMENTS)

.PHONY: bench-aggregates
bench-aggregates: install ## Measure how fast stable.pings and derived.histogram_aggregates are made of 20,000 pings (5 minutes)
	@$(PYTHON) -m benchmarks.aggregates $(ARGUMENTS)

.PHONY: chaos
chaos: install ## Kill processes of a whole stack while a fleet posts; is a ping lost or doubled? ARGUMENTS="--minutes 60"
	@$(PYTHON) -m benchmarks.chaos $(ARGUMENTS)

.PHONY: format
format: install ## Format the code and fix what can be fixed by a machine
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

.PHONY: lock
lock: ## Recompile requirements.txt from requirements.in, keeping versions that still fit; UPGRADE=1 takes the newest
	@test -x .venv/bin/uv || build_tools/install.sh
	$(UV_COMPILE) $(if $(UPGRADE),--upgrade) requirements-build.in -o requirements-build.txt
	$(UV_COMPILE) $(if $(UPGRADE),--upgrade) --overrides requirements-overrides.txt requirements.in -o requirements.txt
	$(UV_COMPILE) --python-platform x86_64-manylinux_2_34 --constraint requirements.txt requirements-emr.in \
		-o requirements-emr.txt

.PHONY: lock-java
lock-java: ## Fetch the jars of java/pom.xml and write their checksums
	@build_tools/preflight.sh
	@build_tools/fetch_jars.sh --write-checksums
