# The one entry. `make help` lists what there is.
.DEFAULT_GOAL := help
SHELL := /bin/sh
PYTHON ?= python3
RUN := tools/python
WORKLOAD ?= claims_fraud
RECORDS ?= 1000
SEED ?= 7
OUT ?= out
DATA ?=
ENV ?= dev
TESTS ?=
ONLY ?=
AUDIT ?= .venv/bin/uv tool run --from pip-audit==2.10.1 pip-audit
# What the delivery pipeline tells its builds: whose roles, which stages, where the page goes.
DELIVERY ?= ml-lifecycle
STAGES ?=
TYPES ?=
UNTIL ?=
RAW ?=
# Why a build does not rehearse: it is itself part of a rehearsal.
REHEARSED ?=
CHANGES ?=
ASSEMBLY ?=
WORKERS ?= 2
# What Evidently compares; left out: what the environment has.
BASELINE ?=
WINDOW ?=
HOURS ?=

# dev -> Dev: the id of the environment's stage
stage = $(shell printf '%s' '$(ENV)' | awk '{print toupper(substr($$0,1,1)) substr($$0,2)}')

.PHONY: help setup rehearse rehearse-matrix rehearse-operations chaos rehearse-everything test unit fuzz lint format synth list diff deploy destroy start cost verify snapshot-update evidently bench lock clean audit what-changes smoke

help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  \033[1m%-20s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Install everything into this folder (.venv, node_modules); skips what is done
	@$(PYTHON) tools/setup.py

rehearse: setup ## Deploy and run the whole lifecycle here [WORKLOAD= DATA= RECORDS= SEED= OUT= UNTIL=step]
	@$(if $(REHEARSED),echo 'not rehearsed: $(REHEARSED)',$(RUN) -m rehearsal run --workload '$(WORKLOAD)' --records '$(RECORDS)' --seed '$(SEED)' --out '$(OUT)' $(if $(DATA),--data '$(DATA)') $(if $(UNTIL),--until '$(UNTIL)'))

rehearse-matrix: setup ## Play every way to serve, to scale and to roll out [ONLY=rollout.canary,style.serverless OUT=]
	@$(RUN) -m rehearsal matrix --workload '$(WORKLOAD)' --seed '$(SEED)' --out '$(OUT)' $(if $(ONLY),--only '$(ONLY)')

rehearse-operations: setup ## Play how a deployed lifecycle is watched, retrained and secured [ONLY=retrain,monitor OUT=]
	@$(RUN) -m rehearsal operations --workload '$(WORKLOAD)' --seed '$(SEED)' --out '$(OUT)' $(if $(ONLY),--only '$(ONLY)')

chaos: setup ## Put faults in the way of a deployed lifecycle: kills, throttling, lost events [ONLY=kill,events OUT=]
	@$(RUN) -m rehearsal chaos --workload '$(WORKLOAD)' --seed '$(SEED)' --out '$(OUT)' $(if $(ONLY),--only '$(ONLY)')

rehearse-everything: setup ## Deploy the example with every option switched on; record what only an account runs [OUT=]
	@$(RUN) -m rehearsal run --breadth --app examples/everything --stage Every --workload everything --records 200 --out '$(OUT)'

load-test: setup ## Draw the container's latency against its load, after a rehearsal [WORKLOAD= OUT=]
	@$(RUN) -m rehearsal load-test --workload '$(WORKLOAD)' --out '$(OUT)'

test: setup ## Run every test, a quick rehearsal included [TESTS=tests/contract: these alone]
	@$(RUN) -m pytest -n $(WORKERS) --dist loadfile -m 'not story' $(TESTS)
	@$(if $(TESTS),:,$(RUN) -m pytest -m story)

unit: setup ## Run the tests that take no more than a few seconds
	@$(RUN) -m pytest -n $(WORKERS) --dist loadfile -m 'not slow and not rehearsal'

fuzz: setup ## Run the property tests on examples that nobody has tried [TESTS=tests/containers]
	@HYPOTHESIS_PROFILE=fuzz $(RUN) -m pytest -n $(WORKERS) --dist loadfile -m 'not slow and not rehearsal' $(TESTS)

audit: setup ## Look up known vulnerabilities of what is installed; needs the network
	@$(AUDIT) -r requirements.txt --require-hashes --disable-pip

lint: setup ## Check style, security rules and types [TYPES=delivery: types of these alone]
	@.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy $(TYPES)

format: setup ## Format the code
	@.venv/bin/ruff check --fix . ; .venv/bin/ruff format .

synth: setup ## Write every environment and the delivery pipeline to cdk.out; no credentials, no network
	@tools/cdk synth --quiet --no-notices --no-lookups

list: setup ## List the stacks
	@tools/cdk list --no-notices

diff: setup ## Tell what a deploy would do; without credentials, compared with the last synth [ENV=dev RAW=1]
	@RAW='$(RAW)' $(RUN) tools/diff.py '$(ENV)'

what-changes: setup ## Tell what cdk.out would do to what is deployed, as the pipeline does [STAGES="Dev Prod" CHANGES=folder]
	@$(RUN) -m delivery diff deployed cdk.out --role-name '$(DELIVERY)-{stage}-checks' --fail-on refused \
	  $(foreach each,$(STAGES),--stage $(each)) $(if $(CHANGES),--out '$(CHANGES)')

smoke: setup ## Ask each endpoint of a deployed environment about a made-up record, as the pipeline does [ENV=dev]
	@$(RUN) -m delivery smoke --environment '$(ENV)' --role-name '$(DELIVERY)-{stage}-checks'

deploy: setup ## Deploy an environment to the account of your credentials [ENV=dev ASSEMBLY=cdk.out: as a pipeline does]
	@tools/cdk deploy '$(stage)/*' --no-notices $(if $(ASSEMBLY),--app '$(ASSEMBLY)' --require-approval never --concurrency 8)

destroy: setup ## Say what stays, then destroy an environment; DATA=dev deletes that too, if it consents [ENV=dev DATA=]
	@tools/cdk synth --quiet --no-notices --no-lookups
	@$(RUN) tools/destroy.py '$(ENV)' $(if $(DATA),--data '$(DATA)')

start: setup ## Wake up what serves a workload and was stopped because nobody used it [ENV=dev WORKLOAD=]
	@$(RUN) tools/start.py '$(ENV)' '$(WORKLOAD)'

verify: setup ## Cross-check the last synth: events, metrics, variables, parameters, rights, quotas; no credentials [OUT=out]
	@mkdir -p '$(OUT)'
	@$(RUN) -m verify --html '$(OUT)/verify.html'

cost: setup ## Forecast what an environment costs a month, from the last synth; no credentials [ENV=dev OUT=out]
	@test -f cdk.out/manifest.json || tools/cdk synth --quiet --no-notices --no-lookups
	@$(RUN) -m cost --environment '$(ENV)' --html '$(OUT)/cost.html'

snapshot-update: setup ## Accept the templates as they are now
	@$(RUN) -m pytest tests/app --snapshot-update

evidently: setup ## Evidently's report of captured traffic [WORKLOAD= ENV= HOURS=24 BASELINE=place WINDOW=place OUT=out]
	@$(RUN) -m tools.evidently '$(WORKLOAD)' --environment '$(ENV)' --out '$(OUT)/evidently.html' \
	  $(if $(BASELINE),--baseline '$(BASELINE)') $(if $(WINDOW),--window '$(WINDOW)') $(if $(HOURS),--hours '$(HOURS)')

bench: setup ## Measure speed as ratios; writes benchmarks/results.json
	@$(RUN) -m benchmarks

lock: ## Resolve requirements.txt anew from pyproject.toml
	@.venv/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes pyproject.toml \
	  --group pipeline --group runtime --group rehearsal --group dev --no-emit-package ml-lifecycle \
	  --custom-compile-command 'make lock' -o requirements.txt

clean: ## Remove what was made here; keeps .venv and node_modules
	@rm -rf build cdk.out out .mypy_cache .ruff_cache .pytest_cache .hypothesis
