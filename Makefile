# Everything that is done with this tree more than once. "make" alone explains itself.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

GO ?= go
# Database drivers that the CA could have and does not use.
TAGS := nomysql,nopgx,nobadger
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS := -s -w -X twinkey/pkg/cli.version=$(VERSION)
TOOL := $(GO) tool -modfile=scripts/tools/go.mod

PKG ?= ./...
FUZZTIME ?= 10s
BENCH ?= .
COUNT ?= 10
REF ?= HEAD

# The race detector is C: without a compiler tests run without it, and the report says so.
ifeq ($(shell $(GO) env CGO_ENABLED),1)
RACE := -race
else
LEFT_OUT := -left-out "race detector: needs gcc (apt install gcc libc6-dev)"
endif

.PHONY: help
help: ## print this
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16
	@echo
	@echo 'variables: PKG=./proto/esp (test, bench, lint)  FUZZTIME=10s  BENCH=Seal  COUNT=10  REF=HEAD (bench-compare)'

.PHONY: build
build: ## build the three binaries into bin/
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build -trimpath -tags $(TAGS) -ldflags '$(LDFLAGS)' -o bin/twinkey-router ./router
	CGO_ENABLED=0 $(GO) build -trimpath -tags $(TAGS) -ldflags '$(LDFLAGS)' -o bin/twinkey-ca ./ca
	CGO_ENABLED=0 $(GO) build -trimpath -tags $(TAGS) -ldflags '$(LDFLAGS)' -o bin/twinkey-directory ./directory

.PHONY: test
test: ## vet, then all tests with the race detector, fuzz seeds and end-to-end; tells what was left out
	$(GO) vet -tags $(TAGS) $(PKG)
	@mkdir -p bin && $(GO) build -o bin/testreport ./scripts/testreport
	$(GO) test $(RACE) -json -tags $(TAGS) -timeout 20m $(PKG) | bin/testreport $(LEFT_OUT)

.PHONY: e2e
e2e: ## the end-to-end tests alone, as they go
	$(GO) test -tags $(TAGS) -count 1 -v -timeout 20m ./scripts/e2e/...

.PHONY: demo
demo: build ## two LANs, two routers, a CA and a directory on this machine, and what they do
	TWINKEY_BIN=$(CURDIR)/bin $(GO) run ./scripts/demo $(DEMO)

.PHONY: lint
lint: ## gofmt, vet, staticcheck, golangci-lint, tidiness of go.mod
	@unformatted=$$(git ls-files -co --exclude-standard '*.go' | xargs gofmt -l); \
	if [ -n "$$unformatted" ]; then echo "gofmt is needed on:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet -tags $(TAGS) $(PKG)
	$(TOOL) staticcheck -tags $(TAGS) $(PKG)
	$(TOOL) golangci-lint run --build-tags $(TAGS) $(PKG)
	$(GO) mod tidy -diff
	$(GO) -C scripts/tunbench vet ./...
	$(GO) -C scripts/tunbench tool -modfile=$(CURDIR)/scripts/tools/go.mod staticcheck ./...

.PHONY: vuln
vuln: ## known vulnerabilities in what is linked (asks vuln.go.dev)
	$(TOOL) govulncheck -tags $(TAGS) $(PKG)

.PHONY: fuzz
fuzz: ## each fuzz target for FUZZTIME
	@git ls-files -co --exclude-standard '*_test.go' | xargs grep -HoE '^func Fuzz[A-Za-z0-9_]*' | sort | while IFS=: read -r file target; do \
		echo "== $$(dirname "$$file") $${target#func }"; \
		$(GO) test -tags $(TAGS) -run '^$$' -fuzz "^$${target#func }\$$" -fuzztime $(FUZZTIME) "./$$(dirname "$$file")" </dev/null; \
	done

.PHONY: bench
bench: ## the benchmarks that match BENCH, summed up by benchstat
	@mkdir -p bin
	$(GO) test -tags $(TAGS) -run '^$$' -bench '$(BENCH)' -benchmem $(PKG) | tee bin/bench.txt
	@$(TOOL) benchstat bin/bench.txt || echo 'no benchstat: the module proxy is out of reach; the lines above are all there is'

.PHONY: bench-compare
bench-compare: ## this tree against REF: both alternate COUNT times, then benchstat
	@old=$$(mktemp -d); trap 'git worktree remove --force "$$old/tree" >/dev/null 2>&1 || true; rm -rf "$$old"' EXIT; \
	git worktree add --quiet --detach "$$old/tree" $(REF); \
	for i in $$(seq $(COUNT)); do \
		echo "round $$i of $(COUNT)"; \
		(cd "$$old/tree" && $(GO) test -tags $(TAGS) -run '^$$' -bench '$(BENCH)' -benchmem $(PKG)) >>"$$old/before.txt"; \
		$(GO) test -tags $(TAGS) -run '^$$' -bench '$(BENCH)' -benchmem $(PKG) >>"$$old/after.txt"; \
	done; \
	$(TOOL) benchstat "before=$$old/before.txt" "after=$$old/after.txt"

.PHONY: soak
soak: ## 10 GB of patterned data through the link, compared
	TWINKEY_SOAK=$(or $(GB),10) $(GO) test -tags $(TAGS) -count=1 -timeout 60m -run TestPatternedData -v ./scripts/e2e

.PHONY: bench-peers
bench-peers: build ## all suites beside the peers that are installed, in one run: docs/bench/peers.md (more than an hour; PEERS=-quick for a minute)
	TWINKEY_BIN=$(CURDIR)/bin $(GO) run ./scripts/peers $(or $(PEERS),-json docs/bench/peers.json -out docs/bench)

.PHONY: bench-flame
bench-flame: ## where the routers' CPU time goes, by perf: docs/bench/flame.svg (of programs with symbols, so not those of make build)
	$(GO) run ./scripts/peers -point tcp1 -only "twinkey aes256-gcm" -scenarios on -rounds 3 -seconds 5 -flame docs/bench/flame.svg

.PHONY: bench-peers-deps
bench-peers-deps: ## installs the peers: Debian's packages, and what is written in Go into bin/peers
	apt-get install -y iperf3 ethtool iputils-ping openssl linux-perf wireguard-tools openvpn tinc fastd
	GOBIN=$(CURDIR)/bin/peers $(GO) install golang.zx2c4.com/wireguard@v0.0.0-20260522210424-ecfc5a8d5446
	GOBIN=$(CURDIR)/bin/peers $(GO) install github.com/slackhq/nebula/cmd/nebula@v1.10.3 github.com/slackhq/nebula/cmd/nebula-cert@v1.10.3

.PHONY: bench-calls
bench-calls: build ## throughput and memory of two routers with 1, 100, 1,000 calls and 100 tunnels: docs/bench/calls.md
	TWINKEY_BIN=$(CURDIR)/bin $(GO) run ./scripts/manycalls -out docs/bench $(CALLS)

.PHONY: bench-floor
bench-floor: ## what this machine takes for copies, ciphers, UDP, TUN and bare forwarding: docs/bench/floor.md
	$(GO) run ./scripts/floor -markdown docs/bench/floor.md $(FLOOR)

.PHONY: bench-tun
bench-tun: ## our TUN interfaces beside wireguard-go's, rounds of all in turn, then benchstat (15 s a round)
	@mkdir -p bin
	$(GO) -C scripts/tunbench test -c -o $(CURDIR)/bin/tunbench.test .
	@for i in $$(seq $(COUNT)); do bin/tunbench.test -test.run '^$$' -test.bench '$(BENCH)' -test.timeout 5m; done | tee bin/bench-tun.txt
	@$(TOOL) benchstat -col /device bin/bench-tun.txt

.PHONY: golden
golden: ## write golden files anew and show what changed
	@git ls-files -co --exclude-standard '*_test.go' | xargs grep -lE 'flag\.Bool\("update"' | xargs -n1 dirname | sort -u | while read -r dir; do \
		$(GO) test -tags $(TAGS) -count 1 "./$$dir" -update </dev/null; \
	done
	@git --no-pager diff --stat -- '*testdata*'; git status --short -- '*testdata*'

.PHONY: cover
cover: ## coverage by function, least first; cover.out for go tool cover -html
	$(GO) test -tags $(TAGS) -coverpkg=$(PKG) -coverprofile cover.out $(PKG)
	@$(GO) tool cover -func cover.out | sort -t$$'\t' -k3 -n | awk '{print $$NF "\t" $$1 "\t" $$2}' | sort -n | head -n 60
	@$(GO) tool cover -func cover.out | tail -n 1

.PHONY: clean
clean: ## remove what was built
	rm -rf bin cover.out
