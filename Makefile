# Everything that a developer and CI run. Without a target it prints them all.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

# A static program whose bytes do not depend on where it was built. The tests are
# built the same way, so that both use one build cache.
export CGO_ENABLED ?= 0
export GOFLAGS += -trimpath -buildvcs=false

GO ?= go
BIN := bin
TOOLS := $(BIN)/tools
PROGRAM := $(BIN)/mqcluster
LOCAL_ROOT := deploy/terraform/roots/local

VERSION ?= $(shell git describe --tags --match 'v*' --dirty 2>/dev/null || echo devel)
COMMIT ?= $(shell git rev-parse HEAD 2>/dev/null)$(shell git diff --quiet HEAD 2>/dev/null || echo +changes)
LDFLAGS := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)

# What packages are made for, and the time of everything in them.
HOST_ARCH := $(shell $(GO) env GOARCH)
ARCH ?= $(HOST_ARCH)
export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
PACKED = $(if $(filter $(HOST_ARCH),$(ARCH)),$(PROGRAM),$(BIN)/linux_$(ARCH)/mqcluster)
packages = $(BIN)/packages -program $(PACKED) -host $(PROGRAM) -arch $(ARCH) -version '$(VERSION)' -epoch $(SOURCE_DATE_EPOCH)

PREFIX ?= /usr/local
DESTDIR ?=

# What the targets of tests take: PKGS narrows unit, race, cover and fuzz; RUN is
# go test's -run; REPORT is a file for the output of go test -json (test/internal/counts
# reads it); TESTFLAGS is anything else.
PKGS ?= ./...
RUN ?=
REPORT ?=
TESTFLAGS ?=
FUZZTIME ?= 5s
SMOKE ?= ^(TestSameFilterEverywhere|TestTakeover)$$
DEMO_FLAGS ?=
UP_FLAGS ?=
BENCH_FLAGS ?= -bound S1:one:0.4 -bound S2:one:0.4 -bound S3:three:20000/s
PARK_CLIENTS ?= 15000
PARK_FLAGS ?=
BENCH_DOCS_FLAGS ?=
BASE ?= HEAD
COUNT ?= 6
BENCH ?= .
PAHO ?=
# Where terraform finds providers, as terraform init -plugin-dir takes it; empty: it
# asks its registry. Without both, AWS_ROOT= leaves the root that needs one out.
export TF_PLUGIN_DIR ?=
AWS_ROOT ?= deploy/terraform/roots/aws
E2E_PARALLEL ?= 4
PREVIOUS ?=
DASHBOARD_CLIENTS ?= 300
SCREENSHOTS ?=
CHAOS_PLANS ?= 20
CHAOS_DURATION ?= 90s
SIM_SCHEDULES ?= 300
SIM_SEED ?=

test_flags = $(if $(RUN),-run '$(RUN)') $(TESTFLAGS)
# $(call gotest,arguments,name): go test; with REPORT into REPORT.name.
gotest = $(GO) test $(if $(REPORT),-json) $(1) $(if $(REPORT),> $(REPORT).$(2))
# Everything but the real processes of test/e2e, test/packages and test/aws.
units = $$($(GO) list $(PKGS) | grep -v -e '/test/e2e' -e '/test/packages' -e '/test/aws$$')
e2e = MQCLUSTER_BIN=$(abspath $(PROGRAM))

.PHONY: help
help: ## print the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##

.PHONY: build
build: $(PROGRAM) ## build bin/mqcluster

.PHONY: $(PROGRAM)
$(PROGRAM):
	$(GO) build -ldflags '$(LDFLAGS)' -o $@ ./cmd/mqcluster

.PHONY: $(BIN)/counts
$(BIN)/counts:
	$(GO) build -o $@ ./test/internal/counts

.PHONY: demo
demo: build ## three nodes on this machine, a leader killed, nothing lost; DEMO_FLAGS=--once ends by itself
	$(PROGRAM) demo $(DEMO_FLAGS)

.PHONY: up
up: build ## a cluster of real nodes behind HAProxy on 127.0.0.1:8883, with terraform; UP_FLAGS='-var voters=5'
	terraform -chdir=$(LOCAL_ROOT) init -input=false
	terraform -chdir=$(LOCAL_ROOT) apply -input=false -auto-approve $(UP_FLAGS)

.PHONY: down
down: ## end what make up started, data included
	terraform -chdir=$(LOCAL_ROOT) destroy -input=false -auto-approve $(UP_FLAGS)

.PHONY: install
install: build ## install the program and its manual pages; PREFIX, DESTDIR
	install -D -m 0755 $(PROGRAM) $(DESTDIR)$(PREFIX)/bin/mqcluster
	$(PROGRAM) man $(DESTDIR)$(PREFIX)/share/man/man1

##

.PHONY: deb
deb: build $(PACKED) $(BIN)/packages ## a Debian package in dist; ARCH=arm64 VERSION=v1.2.3
	$(packages) deb

.PHONY: image
image: build $(PACKED) $(BIN)/packages $(BIN)/roots.pem ## an OCI image in dist, for docker load; ARCH, VERSION
	$(packages) -roots $(BIN)/roots.pem image

.PHONY: check-packages
check-packages: deb image ## install, run, upgrade and purge the package in a scratch Debian, unpack the image (root, mmdebstrap)
	$(e2e) VERSION='$(VERSION)' $(call gotest,-count=1 -timeout 10m $(test_flags) ./test/packages,check-packages)

.PHONY: $(BIN)/packages
$(BIN)/packages:
	$(GO) build -o $@ ./deploy/packages

.PHONY: $(BIN)/linux_$(ARCH)/mqcluster
$(BIN)/linux_$(ARCH)/mqcluster:
	CGO_ENABLED=0 GOOS=linux GOARCH=$(ARCH) $(GO) build -ldflags '$(LDFLAGS)' -o $@ ./cmd/mqcluster

$(BIN)/roots.pem: $(TOOLS)/roots
	$(TOOLS)/roots > $@

##

.PHONY: test
test: unit smoke ## all quick tests: unit and smoke

.PHONY: unit
unit: ## tests within one process; PKGS, RUN
	$(call gotest,-timeout 5m $(test_flags) $(units),unit)

.PHONY: smoke
smoke: build ## a few of the tests with real processes
	$(e2e) $(call gotest,-count=1 -timeout 5m -run '$(SMOKE)' ./test/e2e,smoke)

.PHONY: race
race: ## unit tests under the race detector (needs a C compiler); PKGS, RUN
	CGO_ENABLED=1 $(call gotest,-race -timeout 15m $(test_flags) $(units),race)

.PHONY: e2e
e2e: build ## all tests with real processes; RUN, E2E_LONG=1, E2E_PARALLEL
	$(e2e) $(call gotest,-count=1 -timeout 30m -parallel $(E2E_PARALLEL) $(test_flags) ./test/e2e/...,e2e)

.PHONY: sim
sim: ## schedules of faults in simulated clusters; SIM_SCHEDULES, SIM_SEED, SIM_TAGS
	SIM_SCHEDULES='$(SIM_SCHEDULES)' SIM_SEED='$(SIM_SEED)' \
	  $(call gotest,-count=1 -v -timeout 1h $(if $(SIM_TAGS),-tags '$(SIM_TAGS)') -run '^TestSchedules$$' ./test/sim,sim)

.PHONY: chaos
chaos: build ## real clusters under 20 plans of faults of 90 s; CHAOS_PLANS, CHAOS_DURATION, CHAOS_KINDS, E2E_SEED
	$(e2e) CHAOS_CLOCK=1 CHAOS_PLANS='$(CHAOS_PLANS)' CHAOS_DURATION='$(CHAOS_DURATION)' \
	  $(call gotest,-count=1 -v -timeout 4h -run '^TestChaosPlan$$' ./test/e2e,chaos)

.PHONY: rolling
rolling: build ## terraform's cluster upgraded (PREVIOUS=revision), killed, drained, replaced under 2,000 messages/s, at length
	E2E_LONG=1 E2E_PREVIOUS='$(PREVIOUS)' $(e2e) $(call gotest,-count=1 -v -timeout 30m -run '^TestTerraformChanges$$' ./test/e2e,rolling)

.PHONY: chaos-planted
chaos-planted: ## chaos finds each planted fault within five plans
	test/e2e/chaos-planted.sh

.PHONY: quickstart
quickstart: build ## the README's three machines, as it stands (needs haproxy, mosquitto-clients)
	test/quickstart.sh $(PROGRAM)

.PHONY: failures
failures: build ## docs/failures.md as it stands, on the README's cluster, which it breaks (needs haproxy, mosquitto-clients)
	test/quickstart.sh $(PROGRAM) failures

.PHONY: park
park: build ## 15,000 clients before three nodes and HAProxy, a node killed, a storm; PARK_CLIENTS, PARK_FLAGS (needs haproxy)
	$(GO) run ./test/park -mqcluster $(PROGRAM) -clients $(PARK_CLIENTS) $(PARK_FLAGS)

.PHONY: dashboard
dashboard: build ## the dashboard of a real cluster, driven in Chromium; DASHBOARD_CLIENTS (300), SCREENSHOTS=folder
	cd test/dashboard && $(GO) vet ./... && $(e2e) DASHBOARD_CLIENTS='$(DASHBOARD_CLIENTS)' SCREENSHOTS='$(if $(SCREENSHOTS),$(abspath $(SCREENSHOTS)))' \
	  $(call gotest,-count=1 -v -timeout 10m $(test_flags) ./...,dashboard)

.PHONY: conformance
conformance: build ## the Eclipse Paho suites, also while nodes are killed; PAHO=interoperability folder of paho.mqtt.testing
	@test -n '$(PAHO)' || { echo 'conformance: say where the suite lies: make conformance PAHO=folder' >&2; exit 2; }
	$(e2e) python3 test/conformance/run.py '$(PAHO)'

.PHONY: fuzz
fuzz: ## fuzz every decoder for FUZZTIME (5s) each; PKGS
	for dir in $$($(GO) list -f '{{.Dir}}' $(PKGS)); do \
	  for target in $$(grep -hso '^func Fuzz[A-Za-z0-9_]*' "$$dir"/*_test.go | cut -c6-); do \
	    echo "== $${dir#$(CURDIR)/} $$target"; \
	    $(GO) test -C "$$dir" -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) .; \
	  done; \
	done

.PHONY: cover
cover: ## coverage of the unit tests, in bin/cover.html; PKGS
	@mkdir -p $(BIN)
	$(GO) test -timeout 5m -coverpkg=./... -coverprofile=$(BIN)/cover.out $(units)
	$(GO) tool cover -html=$(BIN)/cover.out -o $(BIN)/cover.html
	$(GO) tool cover -func=$(BIN)/cover.out | tail -n 1

.PHONY: bench
bench: build ## mqcluster beside Debian's mosquitto and nats-server, in one run; BENCH_FLAGS
	$(GO) run ./bench/peers -mqcluster $(PROGRAM) $(BENCH_FLAGS)

.PHONY: bench-docs
bench-docs: build ## run all cases and write docs/benchmarks.md with plots (12 minutes of a quiet machine); BENCH_DOCS_FLAGS
	$(GO) run ./bench/peers -mqcluster $(PROGRAM) -docs docs/benchmarks.md $(BENCH_DOCS_FLAGS)

.PHONY: bench-compare
bench-compare: $(TOOLS)/benchstat ## Go benchmarks of BASE (HEAD) and of the work tree in turn; PKGS, BENCH, COUNT
	GO='$(GO)' BENCHSTAT='$(abspath $(TOOLS)/benchstat)' tools/bench-compare.sh '$(BASE)' '$(BENCH)' '$(COUNT)' $(PKGS)

##

.PHONY: format
format: ## format the Go files
	gofmt -w $$(git ls-files '*.go')

.PHONY: check-format
check-format: ## fail where a Go file is not formatted
	@files=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$files" || { printf 'not formatted, run make format:\n%s\n' "$$files" >&2; exit 1; }

.PHONY: check-terraform
check-terraform: ## format, validity and plans of deploy/terraform; starts nothing; TF_PLUGIN_DIR
	terraform fmt -check -diff -recursive deploy/terraform
	for dir in deploy/terraform/roots/local $(AWS_ROOT); do \
	  terraform -chdir="$$dir" init -input=false -backend=false $(if $(TF_PLUGIN_DIR),-plugin-dir='$(TF_PLUGIN_DIR)') && \
	  terraform -chdir="$$dir" validate && \
	  terraform -chdir="$$dir" test || exit; \
	done

.PHONY: check-aws
check-aws: deb ## a cluster in a fake of AWS, by AWS's own provider: made, used, replaced, destroyed (root); TF_PLUGIN_DIR
	$(call gotest,-count=1 -timeout 15m $(test_flags) ./test/aws,check-aws)

.PHONY: check-rules
check-rules: ## promtool on the alert rules and their tests (needs Debian's prometheus)
	cd deploy/grafana && promtool check rules mqcluster.rules.yaml && promtool test rules mqcluster.rules.test.yaml

.PHONY: vet
vet: ## go vet
	$(GO) vet ./...

.PHONY: lint
lint: $(TOOLS)/golangci-lint $(TOOLS)/buf ## the linters of .golangci.yml and buf.yaml
	$(TOOLS)/golangci-lint run ./...
	$(TOOLS)/buf lint

.PHONY: gen
gen: build $(TOOLS)/buf $(TOOLS)/protoc-gen-go ## write the code of the .proto files and the references in docs
	$(TOOLS)/buf generate
	$(PROGRAM) docs docs

.PHONY: licences
licences: ## check the dependencies' licences and write docs/licences.md
	UPDATE=1 $(GO) test -count=1 -run '^TestLicences$$' ./test/house
	@git --no-pager diff --stat -- docs/licences.md

.PHONY: vuln
vuln: $(TOOLS)/govulncheck ## known holes in what is compiled in (asks the Go vulnerability database)
	$(TOOLS)/govulncheck ./...

.PHONY: clean
clean: ## remove what make built
	rm -rf $(BIN) dist demo-data

# The tools are pinned by tools/go.mod, a module of its own, so that the program
# does not inherit what they need.
tool_golangci-lint := github.com/golangci/golangci-lint/v2/cmd/golangci-lint
tool_buf := github.com/bufbuild/buf/cmd/buf
tool_protoc-gen-go := google.golang.org/protobuf/cmd/protoc-gen-go
tool_govulncheck := golang.org/x/vuln/cmd/govulncheck
tool_roots := ./roots
tool_benchstat := golang.org/x/perf/cmd/benchstat

$(TOOLS)/roots: tools/roots/main.go

$(TOOLS)/%: tools/go.mod tools/go.sum
	cd tools && $(GO) build -ldflags '-s -w' -o $(abspath $@) $(tool_$*)
