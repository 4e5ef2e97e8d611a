# How the project is built and tested. `make` alone explains the targets. What a
# target needs (tools, the test control plane) is built on first use into bin/.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# A path of your own with etcd, kube-apiserver, kube-controller-manager and kubectl is
# used as it is.
ifeq ($(origin KUBEBUILDER_ASSETS),undefined)
export KUBEBUILDER_ASSETS := $(CURDIR)/bin/controlplane
CONTROLPLANE := controlplane
endif

TOOLS := bin/tools
CONTROLLER_GEN := $(TOOLS)/controller-gen
KUSTOMIZE := $(TOOLS)/kustomize
GOLANGCI_LINT := $(TOOLS)/golangci-lint-kube-api-linter
HELM := $(TOOLS)/helm
CRD_REF_DOCS := $(TOOLS)/crd-ref-docs
MODULES := . tools tools/lint tools/apidocs test/controlplane test/conformance test/bench test/chart test/peers test/peers/caddy test/consumers test/e2e examples tools/release test/schemas test/faults/toxiproxy
RELEASE := bin/release

# What programs say that they were built from (internal/version).
STAMP = $(if $(VERSION),-X $(STAMPED).release=v$(VERSION)) -X $(STAMPED).revision=$(shell git describe --always --abbrev=40 --exclude='*' --dirty 2> /dev/null)
STAMPED := github.com/jwks-trust/jwks-trust-manager/internal/version

FUZZTIME ?= 20s

##@ Use

.PHONY: help
help: ## Show this text.
	@awk 'BEGIN { FS = ":.*## "; print "Usage: make TARGET [NAME=value]" } \
		/^##@/ { print "\n" substr($$0, 5) } \
		/^[a-z0-9-]+:.*## / { printf "  %-17s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "KUBEBUILDER_ASSETS=DIR   use the etcd, kube-apiserver, kubectl … found there"

.PHONY: demo
demo: build $(CONTROLPLANE) ## See it work on a real Kubernetes API, narrated. KEEP=1 leaves it running.
	@go build -o bin/demo ./test/demo
	@bin/demo $(if $(KEEP),-keep)

##@ Build

.PHONY: build
build: ## Build bin/manager and bin/kubectl-jwks. VERSION=1.2.3 stamps them with a version.
	@echo "==> bin/manager"
	@CGO_ENABLED=0 go build -trimpath -ldflags "$(STAMP)" -o bin/manager ./cmd/manager
	@echo "==> bin/kubectl-jwks"
	@CGO_ENABLED=0 go build -trimpath -ldflags "-s -w $(STAMP)" -o bin/kubectl-jwks ./cmd/kubectl-jwks

.PHONY: chart-package
chart-package: $(HELM) ## Package the Helm chart into dist/, as it is in the folder. VERSION=1.2.3
	@mkdir -p dist
	@$(HELM) package charts/jwks-trust-manager $(if $(VERSION),--version $(VERSION) --app-version v$(VERSION)) --destination dist

.PHONY: controlplane
controlplane: ## Build etcd, kube-apiserver, kube-controller-manager and kubectl (once, about nine minutes).
	@bash test/controlplane/build.sh bin/controlplane

.PHONY: generate
generate: $(CONTROLLER_GEN) $(CRD_REF_DOCS) ## Generate deepcopy functions, CRDs, RBAC and docs/api.md from the Go sources, and the chart's files from config/.
	@echo "==> Generating"
	@rm -rf bin/generated
	@$(CONTROLLER_GEN) object crd paths=./api/... output:crd:dir=bin/generated/crd
	@$(CONTROLLER_GEN) rbac:roleName=jwks-trust-controller paths=./internal/controller paths=./internal/servingcert output:rbac:dir=bin/generated/rbac/controller
	@$(CONTROLLER_GEN) rbac:roleName=jwks-trust-verifier paths=./internal/verifier output:rbac:dir=bin/generated/rbac/verifier
	@rm -f config/crd/bases/*.yaml config/rbac/*_role.yaml
	@mkdir -p config/crd/bases
	@mv bin/generated/crd/*.yaml config/crd/bases/
	@mv bin/generated/rbac/controller/role.yaml config/rbac/controller_role.yaml
	@mv bin/generated/rbac/verifier/role.yaml config/rbac/verifier_role.yaml
	@bash hack/chart-files.sh
	@$(CRD_REF_DOCS) --source-path=api/v1alpha1 --renderer=markdown --log-level=ERROR --output-path=bin/generated/api.md \
		--config=tools/apidocs/config.yaml --templates-dir=tools/apidocs/templates
	@cat -s bin/generated/api.md > docs/api.md

##@ Release

.PHONY: release
release: $(RELEASE) $(HELM) $(KUSTOMIZE) ## Make all that is published of VERSION=1.2.3 into dist/. IMAGE=no IMAGE_REPOSITORY=registry.example.com/…
	@$(RELEASE) make -version "$(VERSION)" -helm $(HELM) -kustomize $(KUSTOMIZE) $(if $(filter no,$(IMAGE)),-image=false) \
		$(if $(IMAGE_REPOSITORY),-image-repository "$(IMAGE_REPOSITORY)") $(if $(DOWNLOADS),-downloads "$(DOWNLOADS)") $(if $(PLATFORMS),-platforms "$(PLATFORMS)") $(if $(ONCE),-once)

.PHONY: reproduce
reproduce: $(RELEASE) ## Build the commit twice, in two places and from scratch, and compare. ALL=1 for all platforms.
	@$(RELEASE) reproduce $(if $(ALL),-all)

.PHONY: licenses
licenses: $(RELEASE) ## Write THIRD_PARTY_LICENSES.txt; fails for a licence that is not allowed in a binary.
	@echo "==> Looking at licences"
	@$(RELEASE) licenses

##@ Test

.PHONY: test
test: $(CONTROLPLANE) ## Run all tests, with -race, in random order. PKG=./internal/fetch/... TESTFLAGS='-run X'
	@bash hack/test.sh $(PKG)

.PHONY: test-unit
test-unit: ## Run the tests that need no control plane: seconds.
	@go test -short -shuffle=on $(or $(PKG),./...)

.PHONY: e2e
e2e: $(CONTROLPLANE) ## Install the chart on a real node (containerd, kubelet), and use it. Needs root. SMOKE=1 KEEP=1 FROM=v0.1.0
	@bash hack/e2e.sh
	@go -C test/e2e build -o ../../bin/e2e .
	@bin/e2e $(if $(SMOKE),-smoke) $(if $(KEEP),-keep) $(if $(FROM),-from '$(FROM)')

.PHONY: bench
bench: ## Measure verification against its signatures, others' libraries, and empty servers. BENCHFLAGS='-only https'
	@go -C test/bench build -o ../../bin/ratios ./cmd/ratios
	@bin/ratios $(BENCHFLAGS)

.PHONY: bench-lifecycle
bench-lifecycle: build $(CONTROLPLANE) ## Measure rotation, a flood of unknown keys, and hung issuers. BENCHFLAGS='-only rotation'
	@go build -o bin/lifecycle ./test/lifecycle
	@bin/lifecycle $(BENCHFLAGS)

.PHONY: bench-scale
bench-scale: build $(CONTROLPLANE) ## Measure many issuers, many copies, and fail-over. BENCHFLAGS='-only copies -namespaces 5000'
	@go build -o bin/scale ./test/scale
	@bin/scale $(BENCHFLAGS)

.PHONY: faults
faults: $(CONTROLPLANE) ## Break all that the product stands on, and see what it promises. FAULTS='TestCrash' for a part.
	@mkdir -p bin
	@go test ./test/faults -count=1 -timeout 90m -v -run '$(or $(FAULTS),.)' -args -full -report "$(CURDIR)/bin/faults.txt" $(if $(FAULTS),,-docs)

.PHONY: sim
sim: ## Simulate controller and verifier under SEEDS (5200) schedules of STEPS (200), and as many of copies; FIRST=n replays seed n with SEEDS=1.
	@GOGC=1000 go test ./test/sim -count=1 -v -timeout 0 -run 'TestEvery|TestRandom|TestRegressions|TestDeliberate' \
		-sim.first $(or $(FIRST),1) -sim.seeds $(or $(SEEDS),5200) -sim.steps $(or $(STEPS),200) -sim.all -sim.breaks=$(if $(FIRST),false,true)

.PHONY: dashboard-picture
dashboard-picture: build $(CONTROLPLANE) ## Draw docs/dashboard.png: 15 minutes of real data, and Grafana's own panels. KEEP=1 leaves Prometheus running.
	@bash hack/dashboard.sh
	@go build -o bin/dashboard ./test/dashboard
	@bin/dashboard $(if $(KEEP),-keep)

.PHONY: fuzz
fuzz: ## Run each fuzz target for FUZZTIME (20s).
	@bash hack/fuzz.sh $(FUZZTIME)

##@ Check

.PHONY: lint
lint: $(GOLANGCI_LINT) ## Lint: the import table, banned calls, API conventions, the usual suspects.
	@echo "==> Linting"
	@$(GOLANGCI_LINT) run ./...

.PHONY: fmt
fmt: $(GOLANGCI_LINT) ## Format the Go sources.
	@echo "==> Formatting"
	@$(GOLANGCI_LINT) fmt ./...

.PHONY: tidy
tidy: ## Tidy the modules.
	@for module in $(MODULES); do echo "==> Tidying $$module"; (cd "$$module" && go mod tidy); done

.PHONY: manifests
manifests: $(KUSTOMIZE) ## Check that the manifests build.
	@for folder in config/default config/samples; do \
		echo "==> Building $$folder"; $(KUSTOMIZE) build "$$folder" > /dev/null; done

.PHONY: verify
verify: ## All checks in turn, generate, fmt, tidy and licenses included; fails where they change something.
	@$(MAKE) generate
	@$(MAKE) fmt
	@$(MAKE) tidy
	@$(MAKE) licenses
	@$(MAKE) lint
	@$(MAKE) manifests
	@bash hack/verify.sh

##@ Rest

.PHONY: tools
tools: $(CONTROLLER_GEN) $(KUSTOMIZE) $(GOLANGCI_LINT) $(HELM) $(CRD_REF_DOCS) ## Build the pinned tools into bin/tools.

.PHONY: clean
clean: ## Remove what was built, but for the test control plane and the tools.
	@find bin -mindepth 1 -maxdepth 1 ! -name controlplane ! -name node ! -name tools -exec rm -rf {} + 2>/dev/null || true

.PHONY: clean-all
clean-all: ## Remove all that was built.
	@rm -rf bin

$(CONTROLLER_GEN) $(KUSTOMIZE) &: tools/go.mod tools/go.sum
	@bash hack/progress.sh "Building controller-gen and kustomize (once)" \
		env CGO_ENABLED=0 GOBIN="$(CURDIR)/$(TOOLS)" go -C tools install -trimpath tool
	@touch $(CONTROLLER_GEN) $(KUSTOMIZE)

$(GOLANGCI_LINT): tools/lint/go.mod tools/lint/go.sum
	@bash hack/progress.sh "Building golangci-lint with kube-api-linter (once, about two minutes)" \
		env CGO_ENABLED=0 GOBIN="$(CURDIR)/$(TOOLS)" go -C tools/lint install -trimpath tool
	@touch $@

$(CRD_REF_DOCS): tools/apidocs/go.mod tools/apidocs/go.sum
	@bash hack/progress.sh "Building crd-ref-docs (once)" \
		env CGO_ENABLED=0 GOBIN="$(CURDIR)/$(TOOLS)" go -C tools/apidocs install -trimpath tool
	@touch $@

$(RELEASE): $(wildcard tools/release/*.go) tools/release/go.mod tools/release/go.sum
	@bash hack/progress.sh "Building the program that makes a release" \
		env CGO_ENABLED=0 go -C tools/release build -trimpath -o "$(CURDIR)/$@" .

# Pinned where the chart's tests use its library.
$(HELM): test/chart/go.mod test/chart/go.sum
	@bash hack/progress.sh "Building helm (once)" \
		env CGO_ENABLED=0 GOBIN="$(CURDIR)/$(TOOLS)" go -C test/chart install -trimpath tool
	@touch $@
