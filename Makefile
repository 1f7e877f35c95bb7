# `make demo` shows the main job on a real cluster, `make test` runs every test. The
# other targets are their parts.

SHELL := /bin/bash
LOCAL := .local
export PATH := $(CURDIR)/$(LOCAL)/bin:$(PATH)
# CLUSTER=current uses the current kubectl context instead of the local cluster.
CLUSTER ?= local
ifeq ($(CLUSTER),local)
export KUBECONFIG := $(CURDIR)/$(LOCAL)/kubeconfig
endif

.PHONY: demo test config lint unit texts client render integration e2e chaos pictures fuzz cluster-up cluster-down cluster-status tools build image crds bench clean

demo: ## The main job, end to end, on a real cluster
	@tests/demo/demo $(CLUSTER)

test: ## Every test
	@tests/run

lint: .local/bin/cargo-deny ## Formatting, lints, licences, generated files
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --features halopsa-operator/failpoints -- -D warnings
	cargo run -q -- crds --out crds --check
	diff -r crds charts/halopsa-operator/files/crds
	diff -r crds config/crds
	cargo deny --log-level error check bans licenses sources

.local/bin/cargo-deny:
	cargo install --quiet --locked --root .local --version 0.20.2 cargo-deny

unit: ## Rules and code structure, without a cluster
	cargo test --workspace --lib --features halopsa-operator/failpoints
	cargo test --features failpoints --test architecture --test texts

texts: ## Accepts changed texts; review the diff of tests/texts/snapshots
	INSTA_UPDATE=always cargo test --features failpoints --lib --test texts

client: ## The HaloPSA client against the simulator's faults and limits, without a cluster
	cargo test --features failpoints --test client

render: cluster-up ## Checks that chart and kustomize are valid, and as closed as they promise
	@tests/render

integration: cluster-up ## Reconcilers, receiver and gateway against a real apiserver and halosim
	kubectl apply --server-side --force-conflicts -f crds >/dev/null
	cargo test --features failpoints --test integration

pictures: cluster-up ## Retakes the screenshots in docs/halosim
	SCREENSHOTS=$(CURDIR)/docs/halosim cargo test --features failpoints --test integration browser

e2e: ## The demo, then what must hold after it
	@tests/demo/demo $(CLUSTER)
	@tests/e2e/faults
	@tests/e2e/quiet

chaos: ## Kills processes in the middle of 50 tickets
	@tests/e2e/chaos

FUZZ_SECONDS ?= 60
fuzz: ## Fuzzes what parses untrusted bytes, a minute per target
	@FUZZ_SECONDS=$(FUZZ_SECONDS) tests/fuzz/run

bench: cluster-up ## Benchmarks; asserts nothing. Not while a demo's operator runs in the cluster
	kubectl apply --server-side --force-conflicts -f crds >/dev/null
	cargo bench --features failpoints --bench bench

cluster-up: ## A real local Kubernetes
	@tests/cluster/cluster up

cluster-down:
	@tests/cluster/cluster down

cluster-status:
	@tests/cluster/cluster status

tools:
	@tests/cluster/cluster tools

build: ## The release binaries
	cargo build --release --workspace

image: ## Both images, loaded into the local cluster
	@tests/demo/images $(CLUSTER)

crds: ## Generates the CRDs from the types
	cargo run -q -- crds --out crds
	mkdir -p charts/halopsa-operator/files && rm -rf charts/halopsa-operator/files/crds && cp -r crds charts/halopsa-operator/files/crds
	rm -rf config/crds && cp -r crds config/crds

config: tools ## Generates config/operator.yaml from the chart
	tests/config > config/operator.yaml

clean: cluster-down
	rm -rf target $(LOCAL)
