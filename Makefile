# hull: see `make help`. Everything built goes to build/ and dist/; what takes long (the guest kernel,
# mkfs.erofs) is kept in $HULL_CACHE (~/.cache/hull) and survives `make clean`.
MAKEFLAGS += --no-print-directory
.DELETE_ON_ERROR:
.SUFFIXES:

DAEMON_SOURCES := $(shell find src protocol -name '*.ts' ! -name '*.test.ts')
AGENT_SOURCES := $(shell find agent protocol -type f ! -name '*.test.ts' ! -name '*.md')
SHARE_SOURCES := $(wildcard share-server/*.c share-server/*.h)
JAIL_SOURCES := $(wildcard jail/*.c)
MODULES := node_modules/.package-lock.json

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.* ## \(.*\)/  make \1	\2/p' Makefile | expand -t 22

build: dist/.built build/agent build/hull-share build/hull-jail build/vmlinux build/tools/mkfs.erofs build/rehearsal.erofs ## Build the daemon, the agent, the server of shared folders, the jail of QEMU, the guest kernel and the image tool

kernel: build/vmlinux ## Build the guest kernel (build/vmlinux), or take it from the cache

run: deps ## Install what is missing, build, start hulld and say how to reach it
	@$(MAKE) build
	@scripts/hulld start

stop: ## Stop the hulld that `make run` started; its containers keep running
	@scripts/hulld stop

test: test-unit test-compat ## Run all tests

test-unit: $(MODULES) ## Run the unit tests: no VM, seconds
	@scripts/test-unit

test-compat: build ## Run the agent, then the docker CLI and dockerode, against real VMs
	@scripts/install-deps --tests
	@agent/test/run
	@test/compat/run

soak: build ## Run the long form of the tests of crashes, faults and load (45 minutes or more; HULL_SEED=N for another run)
	@scripts/install-deps --tests
	@test/soak/run

bench: build ## Measure hull and the engines beside it: a table, a plot and build/bench.json
	@scripts/install-deps --bench
	@node --import tsx bench/main.ts

lint: $(MODULES) ## Check types, style and format
	@node_modules/.bin/tsc -p tsconfig.json --noEmit
	@node_modules/.bin/tsc -p agent/tsconfig.json --noEmit
	@node_modules/.bin/tsc -p agent/test/tsconfig.json --noEmit
	@node_modules/.bin/eslint .
	@node_modules/.bin/prettier --check --log-level warn .

clean: ## Remove everything built; the cache stays
	rm -rf build dist

deps: ## Install what is missing: Debian packages (as root) and node modules
	@scripts/install-deps

$(MODULES): package-lock.json
	@scripts/install-deps
	@touch -c $@

dist/.built: $(DAEMON_SOURCES) tsconfig.json tsconfig.build.json $(MODULES)
	node_modules/.bin/tsc -p tsconfig.build.json
	@touch $@

build/agent build/initramfs.cpio &: $(AGENT_SOURCES) $(MODULES)
	node agent/build.mjs

build/hull-share: share-server/build $(SHARE_SOURCES)
	share-server/build $@

build/hull-jail build/hull-descriptors.so build/hull-send.node &: jail/build $(JAIL_SOURCES) $(MODULES)
	jail/build build

build/vmlinux: kernel/config.fragment kernel/function-order kernel/build $(wildcard kernel/patches/*.patch) scripts/apt-private.sh
	kernel/build $@

build/rehearsal.erofs: agent/rehearsal/build agent/rehearsal/program.c | build/tools/mkfs.erofs
	agent/rehearsal/build $@ build/tools/mkfs.erofs

build/tools/mkfs.erofs: scripts/build-erofs-utils scripts/apt-private.sh
	scripts/build-erofs-utils $@

.PHONY: help build kernel run stop test test-unit test-compat soak bench lint clean deps
