# What people run; `make help` lists it. Targets that need .venv make it ready first.

PYTHON ?= python3
PORT ?=
FRESH ?=
ALLOW_REMOTE ?=
STAGE ?= production
MIGRATE_VIA ?=
ARGS ?=

# Paths are relative on purpose: the checkout may lie in a path with a space.
bin := .venv/bin
# 1, yes and true switch an option on; anything else leaves it off.
on = $(filter 1 yes true,$(1))

.DEFAULT_GOAL := help
.PHONY: help dev test test-deploy test-browser screenshots soak check bench build-vercel build-aws deploy-aws fmt clean clean-data ready

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-26s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo '  make dev PORT=3100              another port than 3000'
	@echo '  make dev FRESH=1                begin with an empty database'
	@echo '  make dev ALLOW_REMOTE=1         work on a DATABASE_URL of another machine'
	@echo '  make test ARGS="-k health"      what pytest gets'
	@echo '  make deploy-aws STAGE=staging   another stage than production'
	@echo '  make deploy-aws MIGRATE_VIA=lambda  where only the VPC reaches the database'
	@echo '  make dev PYTHON=python3.12      the Python that creates .venv'

dev: ready ## Run PostgreSQL, the migrations and the app at http://localhost:3000
	@$(bin)/db dev --port $(or $(PORT),3000) $(if $(call on,$(FRESH)),--fresh) $(if $(call on,$(ALLOW_REMOTE)),--allow-remote)

test: ready ## Run every test against real PostgreSQL and PgBouncer
	@$(bin)/python -m tests.servers.install
	@$(bin)/python -m pytest --numprocesses 4 $(ARGS)

test-deploy: ready ## Build with the platforms' own tools, and run what they built
	@$(bin)/python -m tests.servers.install
	@$(bin)/python -m pytest tests/deploy tests/ops/test_rotate.py tests/shared/db/test_credentials.py -m deploy --numprocesses 2 --dist loadgroup $(ARGS)

test-browser: ready ## Open the operator's page in a real Chromium
	@$(bin)/python -m tests.servers.install
	@$(bin)/python -m pip install --quiet --disable-pip-version-check --requirement tests/browser/requirements.txt
	@$(bin)/python -m tests.browser.chromium
	@$(bin)/python -m pytest tests/browser -m browser $(ARGS)

screenshots: ready ## Write the pictures of docs/PAGE.md anew
	@$(bin)/python -m tests.servers.install
	@$(bin)/python -m pip install --quiet --disable-pip-version-check --requirement tests/browser/requirements.txt
	@$(bin)/python -m tests.browser.screenshots

soak: ready ## Make every fault and storm happen, attack with new input, and write what was seen into the docs
	@$(bin)/python -m tests.servers.install
	@$(bin)/python -m pip install --quiet --disable-pip-version-check --requirement bench/requirements.txt
	@$(bin)/python -m pytest tests/storms -m soak $(ARGS)
	@$(bin)/python -m pytest tests/faults/test_faults.py -m '' --numprocesses 4 $(ARGS)
	@$(bin)/python -m pytest -m soak --ignore tests/storms --ignore tests/faults/test_faults.py --numprocesses 2 $(ARGS)
	@$(bin)/python -m pytest tests/hostile --hypothesis-profile=soak $(ARGS)

check: ready ## Check style, types, migrations, import direction and that the docs are true of the code
	@$(bin)/ruff check .
	@$(bin)/ruff format --check .
	@$(bin)/mypy
	@$(bin)/db migrate lint
	@$(bin)/python -m pytest tests/test_architecture.py tests/test_docs.py

bench: ready ## Measure side by side with the peers, and write the figures into the docs; Node adds its own
	@$(bin)/python -m tests.servers.install
	@$(bin)/python -m pip install --quiet --disable-pip-version-check --requirement bench/requirements.txt
	@$(bin)/python -m bench.connect
	@$(bin)/python -m bench.reads
	@$(bin)/python -m bench.http
	@$(bin)/python -m bench.overload
	@$(bin)/python -m bench.lambda_handler
	@$(bin)/python -m bench.cold_start
	@$(bin)/python -m bench.migrations
	@$(bin)/python -m bench.storm
	@$(bin)/python -m bench.simulation

build-vercel: ready ## Build as Vercel does, offline and without a login, and say how large the function is
	@$(bin)/python -m tests.deploy.vercel_build

build-aws: ready ## Package for AWS Lambda, offline, and say how large the zip is
	@$(bin)/python -m ops.deploy_aws build --stage $(STAGE)

deploy-aws: ready ## Migrate, then deploy to AWS Lambda; nothing is changed where migrating fails
	@$(bin)/python -m ops.deploy_aws deploy --stage $(STAGE) $(if $(MIGRATE_VIA),--migrate-via $(MIGRATE_VIA))

fmt: ready ## Format the code and repair what ruff can repair
	@$(bin)/ruff check --fix .
	@$(bin)/ruff format .

clean: ## Remove .venv and caches; the data under .data/ stays
	@rm -rf .venv .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
	@find . -name __pycache__ -type d -not -path './.data/*' -prune -exec rm -rf {} +
	@echo 'Removed .venv and caches. The database under .data/ stays; make clean-data removes it.'

clean-data: ready ## Remove the embedded database and the test servers under .data/
	@$(bin)/db postgres stop
	@rm -rf .data
	@echo 'Removed .data/.'

ready:
	@$(PYTHON) ops/bootstrap.py
