# Telemetry Lake: every command in one place. `make` alone lists them.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PYTHON := .venv/bin/python
PYTEST := $(PYTHON) -m pytest
UV_COMPILE := .venv/bin/uv pip compile --quiet --generate-hashes --python-version 3.11 --no-emit-index-url \
	--custom-compile-command "make lock"

# How many test files run in parallel (tests that start the whole stack always run alone); 0: one after another.
WORKERS ?= 3

# Containers tend to set it; then each of the hundreds of processes of a test run would compile the project again.
unexport PYTHONDONTWRITEBYTECODE

# Counts the pings that have arrived; `make query SQL="SELECT ..."` asks other questions.
SQL ?= SELECT submission_date, document_type, count(*) AS pings FROM live.pings GROUP BY ALL ORDER BY ALL
export SQL

# For commands that make no sense before the first installation.
define needs_install
@test -x $(PYTHON) || { echo "Nothing is installed yet, so no stack runs: 'make run' installs and starts everything."; exit 1; }
endef

.PHONY: help
help: ## List these commands
	@awk 'BEGIN { FS = ":.*## " } \
		/^## / { printf "\n%s\n", substr($$0, 4) } \
		/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

## Use it

.PHONY: run
run: install ## Install what is missing, start the local stack and a small client fleet; Ctrl-C stops them
	@$(PYTHON) -m local_stack run

.PHONY: run-no-fleet
run-no-fleet: install ## The same without the fleet, for pings of your own
	@$(PYTHON) -m local_stack run --no-fleet

.PHONY: query
query: install ## Query the tables of the running stack: make query SQL="SELECT ..."
	@$(PYTHON) -m telemetry_lake query -- "$$SQL"

.PHONY: status
status: ## Show which processes of the local stack run, and where
	$(needs_install)
	@$(PYTHON) -m local_stack status

.PHONY: stop
stop: ## Stop a local stack that another terminal started or that was left behind
	$(needs_install)
	@$(PYTHON) -m local_stack stop

.PHONY: clean
clean: ## Delete the data, logs and credentials of the local stack (.local/); refused while it runs
	$(needs_install)
	@$(PYTHON) -m local_stack clean

.PHONY: emr-package
emr-package: install ## Package the code and dependencies of the Spark jobs for Amazon EMR, and upload what the bucket lacks
	@$(PYTHON) -m build_tools.emr_package $(ARGUMENTS)

.PHONY: compose-env
compose-env: ## Write the credentials that docker-compose.yaml needs into .env; existing ones stay
	@docker/make_env.sh

## Change it

.PHONY: install
install: ## Install the locked Python packages (.venv, .venv-emulator) and Java artifacts (java/lib)
	@build_tools/install.sh

.PHONY: test
test: install lint types imports ## Lint, strict types, import rules, all tests but those of test-long (up to 30 minutes)
	$(PYTEST) -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not stack and not long"

# The rooms whose tests run mostly inside of the test process.
COVERED_TESTS := $(addprefix tests/,analysis audits commands convert documents drain histograms mapreduce query raw \
	recovery settings simulation storage tables units)

.PHONY: coverage
coverage: install ## Measure how much of the core its quick tests run, by room, for docs/performance.md (5 minutes)
	rm -rf .coverage
	$(PYTHON) -m coverage run -m pytest -q -n $(WORKERS) --dist loadfile -m "not stack and not slow and not long" $(COVERED_TESTS)
	$(PYTHON) -m coverage combine --quiet
	$(PYTHON) -m coverage report --skip-covered
	@$(PYTHON) -m benchmarks.coverage $(ARGUMENTS)

.PHONY: test-long
test-long: install ## The tests that start the whole stack or take minutes each; CI runs them after `make test`
	$(PYTEST) -m stack
	$(PYTEST) -n 2 --dist loadfile -m long

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
bench-backfill: install ## Measure the backfill: reading, copying, proving, and the time for a day of history (5 minutes)
	@$(PYTHON) -m benchmarks.backfill $(ARGUMENTS)

.PHONY: bench-read-archive
bench-read-archive: install ## Measure how fast a historic archive is read, in each of its forms (3 minutes)
	@$(PYTHON) -m benchmarks.read_archive $(ARGUMENTS)

.PHONY: bench-convert
bench-convert: install ## Measure conversion on one core: pings/s of each step, bytes stored per ping, peak memory (4 minutes)
	@$(PYTHON) -m benchmarks.convert $(ARGUMENTS)

.PHONY: bench-analysis
bench-analysis: install ## Measure how long analysts wait for SQL, the analysis module, map-reduce scripts (5 minutes)
	@$(PYTHON) -m benchmarks.analysis $(ARGUMENTS)

.PHONY: bench-ingest
bench-ingest: install ## Measure one ingest worker beside one that stores nothing and nginx (wrk; 4 minutes)
	@$(PYTHON) -m benchmarks.ingest $(ARGUMENTS)

.PHONY: bench-flood
bench-flood: install ## Flood an ingest node with 10,000 connections of each kind while honest clients post (8 minutes)
	@$(PYTHON) -m benchmarks.flood $(ARGUMENTS)

.PHONY: bench-pipeline
bench-pipeline: install ## Measure a whole stack under 732 pings/s: backlog, freshness, processor time (10 minutes and more)
	@$(PYTHON) -m benchmarks.pipeline $(ARGUMENTS)

.PHONY: bench-aged-lake
bench-aged-lake: install ## Measure what operations cost in a lake that is a year old, beside a new one (10 minutes)
	@$(PYTHON) -m benchmarks.aged_lake $(ARGUMENTS)

.PHONY: bench-mass-replay
bench-mass-replay: install ## Replay a million rejected pings while the drain commits, and count them (10 minutes)
	@$(PYTHON) -m benchmarks.mass_replay $(ARGUMENTS)

.PHONY: bench-mapreduce
bench-mapreduce: install ## Measure map-reduce scripts over 20,000 pings of 72 KB and 5,000,000 rows of dimensions (10 minutes)
	@$(PYTHON) -m benchmarks.mapreduce $(ARGUMENTS)

.PHONY: bench-aggregates
bench-aggregates: install ## Measure the jobs of stable.pings and derived.histogram_aggregates over 20,000 pings (5 minutes)
	@$(PYTHON) -m benchmarks.aggregates $(ARGUMENTS)

.PHONY: bench-dashboard
bench-dashboard: install ## Measure the dashboard over cubes of 2014's size: API, first charts in Chromium, a new day (10 minutes)
	@$(PYTHON) -m benchmarks.dashboard $(ARGUMENTS)

.PHONY: bench-scaling
bench-scaling: install ## Try the decision about workers on a simulated drain, and draw a day with an outage (10 seconds)
	@$(PYTHON) -m benchmarks.scaling $(ARGUMENTS)

.PHONY: bench-workers
bench-workers: install ## Measure how fast one and two Celery workers of one core each work off a backlog (12 minutes)
	@$(PYTHON) -m benchmarks.workers $(ARGUMENTS)

.PHONY: bench-anomalies
bench-anomalies: install ## Measure how soon anomalies of volumes are found, and how many are found that are none (10 minutes)
	@$(PYTHON) -m benchmarks.anomalies $(ARGUMENTS)

.PHONY: performance
performance: install ## Write docs/performance.md from the results of the benchmarks
	@$(PYTHON) -m benchmarks.performance

.PHONY: chaos
chaos: install ## Kill processes of a whole stack while a fleet posts, and count lost and doubled pings (10 minutes)
	@$(PYTHON) -m benchmarks.chaos $(ARGUMENTS)

.PHONY: drills
drills: install ## Break each part of a real stack, and see its alarm fire and resolve: ARGUMENTS="--only SegmentOld" (30 minutes)
	@$(PYTHON) -m benchmarks.drills $(ARGUMENTS)

.PHONY: mutants
mutants: install ## Change lines of the core and see which tests notice: make mutants ARGUMENTS="--every 20" (minutes)
	@nice $(PYTHON) -m build_tools.mutants $(ARGUMENTS)

.PHONY: format
format: install ## Format the code, and fix what ruff can fix
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

.PHONY: lock
lock: ## Recompile requirements.txt from requirements.in, keeping versions that still fit; UPGRADE=1 takes the newest
	@test -x .venv/bin/uv || build_tools/install.sh
	$(UV_COMPILE) $(if $(UPGRADE),--upgrade) requirements-build.in -o requirements-build.txt
	$(UV_COMPILE) $(if $(UPGRADE),--upgrade) --overrides requirements-overrides.txt requirements.in -o requirements.txt
	$(UV_COMPILE) --python-platform x86_64-manylinux_2_34 --constraint requirements.txt requirements-emr.in \
		-o requirements-emr.txt
	$(UV_COMPILE) $(if $(UPGRADE),--upgrade) requirements-emulator.in -o requirements-emulator.txt

.PHONY: lock-java
lock-java: ## Fetch the jars of java/pom.xml and write their checksums
	@build_tools/preflight.sh
	@build_tools/fetch_jars.sh --write-checksums
