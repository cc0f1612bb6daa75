# Two commands matter: `make run` shows a live stream going through the relay, `make test` checks everything.

CARGO ?= cargo
# The end-to-end tests mostly wait for streams in real time: more of them run at once than there are cores.
E2E_THREADS ?= 6
# Plans of the fault campaign, and the seed of the first: a failure names its own.
PLANS ?= 200
SEED ?= $(shell date +%s)
# Every test binary but e2e, so that e2e can have threads and a step of its own.
TEST_NAMES := $(basename $(notdir $(wildcard tests/*.rs))) $(notdir $(patsubst %/main.rs,%,$(wildcard tests/*/main.rs)))
UNIT_TESTS := $(patsubst %,--test %,$(filter-out e2e,$(TEST_NAMES)))

# For each fuzz target, seconds.
TIME ?= 60
FUZZ_TARGETS = $(if $(TARGET),$(TARGET),$(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs))))

.DEFAULT_GOAL := help
.PHONY: help run test check fmt lint unit e2e deny audit campaign soak bench failover callgrind fuzz deps doc docker

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## build the relay and show a live stream going through it (Ctrl-C ends it)
	$(CARGO) run --release --locked -- demo

test: ## everything: install what the tests need, then check and e2e
	@$(MAKE) --no-print-directory deps
	@$(MAKE) --no-print-directory check
	@$(MAKE) --no-print-directory deny
	@$(MAKE) --no-print-directory e2e

check: ## formatting, lints, unit and behaviour tests, documentation; needs only Rust
	@$(MAKE) --no-print-directory fmt
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory unit
	@$(MAKE) --no-print-directory doc

fmt: ## is the code formatted? (`cargo fmt` formats it)
	$(CARGO) fmt --all --check

lint: ## clippy without a warning
	$(CARGO) clippy --locked --all-targets -- -D warnings

unit: ## unit, behaviour, architecture and documentation tests
	$(CARGO) test --locked --lib --bins $(UNIT_TESTS)
	$(CARGO) test --locked --doc

e2e: ## real encoders and players through the relay to nginx-rtmp
	$(CARGO) test --locked --test e2e -- --test-threads=$(E2E_THREADS)

campaign: ## peers that fail at points drawn from a seed, while honest streams go on, 20 minutes; PLANS=10 SEED=7: others
	RELAY_SEED=$(SEED) RELAY_CAMPAIGN=$(PLANS) $(CARGO) test --locked --test it campaign -- --nocapture --include-ignored

deny: ## licences, sources and bans of the dependencies (deny.toml)
	$(CARGO) deny --locked --log-level error check bans licenses sources

audit: ## known vulnerabilities of the dependencies; needs the advisory database from the network
	$(CARGO) deny --locked check advisories

bench: ## what a live stream costs, beside HAProxy and nginx, an hour; ROWS='growth|idle': some of it, ARGS='--rounds 1': faster
	@./tests/e2e/deps.sh bench
	$(CARGO) bench --locked --bench load -- $(if $(ROWS),--only '$(ROWS)') $(ARGS)

failover: ## what streams lose when their origin dies, or a new relay takes over, minutes; ARGS='--only rollout'
	$(CARGO) bench --locked --bench failover -- $(ARGS)

soak: ## half an hour of clients that come and go, origins that die, reloads and strangers; ARGS='--seconds 120': shorter
	$(CARGO) bench --locked --bench soak -- $(ARGS)

callgrind: ## instructions that the wire takes for each operation, exactly (valgrind)
	@./tests/e2e/deps.sh callgrind
	$(CARGO) bench --locked --bench callgrind

fuzz: ## the fuzz targets by libFuzzer, TIME=60 seconds each, TARGET=joiner: one of them; needs cargo-fuzz
	@$(CARGO) fuzz --version > /dev/null 2>&1 || { echo 'make fuzz needs cargo-fuzz: cargo install cargo-fuzz' >&2; exit 1; }
	nice $(CARGO) fuzz build --sanitizer none --target-dir target/fuzz $(TARGET)
	@set -e; for target in $(FUZZ_TARGETS); do \
		echo "== $$target"; mkdir -p fuzz/found/$$target; \
		nice $(CARGO) fuzz run --sanitizer none --target-dir target/fuzz $$target fuzz/found/$$target fuzz/corpus/$$target -- \
			-max_total_time=$(TIME) -timeout=10 -rss_limit_mb=2048 -print_final_stats=1; \
	done

docker: ## the container image and the compose file with a docker engine, where there is one; builds a release
	@./tests/e2e/docker.sh

doc: ## the crate's documentation without a warning
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps

deps: ## install the programs that the tests need, where apt can; else say which they are
	@./tests/e2e/deps.sh
