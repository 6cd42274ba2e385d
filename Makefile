# alloctrace: `make` builds ./alloctrace, `make demo` shows it, `make check` runs every test.
# The last two install what is missing first (Debian packages, as root).

VERSION := 0.1.0
PREFIX  ?= /usr/local
DESTDIR ?=

ARCH := $(shell uname -m)
BPF_ARCH := $(patsubst aarch64,arm64,$(patsubst x86_64,x86,$(ARCH)))

CC      ?= cc
CLANG   ?= clang
BPFTOOL ?= $(firstword $(wildcard /usr/sbin/bpftool) bpftool)
PROTOC_C ?= protoc-c

# make SAN=1: AddressSanitizer and UBSan, in a build folder of its own.
ifdef SAN
BUILD := build-san
SAN_FLAGS := -fsanitize=address,undefined -fno-sanitize-recover=undefined
else
BUILD := build
SAN_FLAGS :=
endif
BIN := $(if $(SAN),$(BUILD)/alloctrace,alloctrace)

WARNINGS := -Wall -Wextra -Werror -Wvla -Wshadow -Wstrict-prototypes -Wmissing-prototypes
CPPFLAGS += -D_GNU_SOURCE -DALLOCTRACE_VERSION='"$(VERSION)"' -Iuser -Iinclude -I$(BUILD)
CFLAGS   ?= -O2 -g
ALL_CFLAGS := -std=gnu11 $(WARNINGS) -fno-omit-frame-pointer $(SAN_FLAGS) $(CFLAGS)
LIBS := -lbpf -ldw -lelf -lz -lprotobuf-c -liberty -lZydis -llzma -lzstd -ljansson -lm

# What the build and the tests need, as Debian calls it.
BUILD_PACKAGES := gcc make clang bpftool libbpf-dev libelf-dev libdw-dev zlib1g-dev libprotobuf-c-dev \
	protobuf-c-compiler libiberty-dev libzydis-dev libzycore-dev liblzma-dev libdebuginfod-dev libzstd-dev \
	libjansson-dev
TEST_PACKAGES := libcmocka-dev g++ python3 golang-go binutils clang-format lld \
	gdb llvm libc6-arm64-cross dwz musl-tools sqlite3 python3-unicorn libc6-dbg python3-dbg \
	libjemalloc2 libjemalloc-dev libtcmalloc-minimal4 libmimalloc2.0 libmimalloc-dev debuginfod \
	redis-tools libpq5 libxslt1.1 \
	$(if $(shell command -v rustc 2>/dev/null),,rustc) $(if $(shell command -v node 2>/dev/null),,nodejs)
# What `make bench` sets beside alloctrace, and lets it trace.
BENCH_PACKAGES := g++ bpftrace heaptrack redis-tools sqlite3 libjemalloc2
# What `make bench-symbols` names, beside what is there for the tests: libjvm.so, the largest library whose debug
# information is in Debian's own archive.
BENCH_SYMBOLS_PACKAGES := openjdk-17-dbg

BPF_SKELETONS := $(patsubst bpf/%.bpf.c,$(BUILD)/%.skel.h,$(wildcard bpf/*.bpf.c))
BPF_HEADERS  := $(wildcard bpf/*.h include/*.h vmlinux/$(ARCH)/*.h)
USER_SOURCES := $(filter-out user/main.c,$(wildcard user/*.c user/*/*.c))
USER_OBJECTS := $(USER_SOURCES:%.c=$(BUILD)/%.o) $(BUILD)/profile.pb-c.o
UNIT_SOURCES := $(wildcard tests/unit/test_*.c)
UNIT_TESTS   := $(UNIT_SOURCES:tests/unit/%.c=$(BUILD)/tests/%)

# make V=1 shows the commands.
Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-7s %s\n' '$(1)' '$(2)')

.PHONY: all
all: $(BIN)

# --- what has to be there ------------------------------------------------------------------------

# One line names what is missing and the command that installs it: need(what, test, package).
need = $(if $(shell { $(2); } >/dev/null 2>&1 && echo yes),,$(1) ($(3)))
header = echo '\#include <$(1)>' | $(CC) -E -x c - 
MISSING = $(strip $(call need,$(CC),command -v $(CC),gcc) \
	$(call need,clang,command -v $(CLANG),clang) \
	$(call need,bpftool,command -v $(BPFTOOL),bpftool) \
	$(call need,protoc-c,command -v $(PROTOC_C),protobuf-c-compiler) \
	$(call need,libbpf,$(call header,bpf/libbpf.h),libbpf-dev) \
	$(call need,libelf,$(call header,gelf.h),libelf-dev) \
	$(call need,libdw,$(call header,elfutils/libdw.h),libdw-dev) \
	$(call need,zlib,$(call header,zlib.h),zlib1g-dev) \
	$(call need,libprotobuf-c,$(call header,protobuf-c/protobuf-c.h),libprotobuf-c-dev) \
	$(call need,libiberty,$(call header,libiberty/demangle.h),libiberty-dev) \
	$(call need,Zydis,$(call header,Zydis/Zydis.h),libzydis-dev) \
	$(call need,liblzma,$(call header,lzma.h),liblzma-dev) \
	$(call need,libzstd,$(call header,zstd.h),libzstd-dev) \
	$(call need,libdebuginfod,$(call header,elfutils/debuginfod.h),libdebuginfod-dev) \
	$(call need,jansson,$(call header,jansson.h),libjansson-dev))

# Checked once per build folder, before anything is compiled.
$(BUILD)/.prerequisites:
	@missing='$(MISSING)'; if [ -n "$$missing" ]; then \
		echo "alloctrace: missing: $$missing; install with: sudo make setup" >&2; exit 1; fi
	@mkdir -p $(@D) && touch $@

.PHONY: setup
setup:
	@tools/setup.sh $(BUILD_PACKAGES) $(TEST_PACKAGES)

# --- the kernel side -----------------------------------------------------------------------------

$(BUILD)/%.bpf.o: bpf/%.bpf.c $(BPF_HEADERS) | $(BUILD)/.prerequisites
	$(call say,BPF,$@)
	$(Q)$(CLANG) -O2 -g -target bpf -mcpu=v3 -D__TARGET_ARCH_$(BPF_ARCH) -Wall -Wextra -Werror \
		-Wno-unused-parameter -Iinclude -Ivmlinux/$(ARCH) -c $< -o $@

$(BUILD)/%.skel.h: $(BUILD)/%.bpf.o
	$(call say,SKEL,$@)
	$(Q)$(BPFTOOL) gen skeleton $< name $*_bpf > $@.tmp && mv $@.tmp $@

.SECONDARY: $(BPF_SKELETONS:.skel.h=.bpf.o)

# --- the user side -------------------------------------------------------------------------------

$(BUILD)/profile.pb-c.c $(BUILD)/profile.pb-c.h &: user/output/profile.proto | $(BUILD)/.prerequisites
	$(call say,PROTOC,$@)
	$(Q)$(PROTOC_C) --proto_path=user/output --c_out=$(BUILD) profile.proto

$(BUILD)/profile.pb-c.o: $(BUILD)/profile.pb-c.c
	$(call say,CC,$@)
	$(Q)$(CC) $(CPPFLAGS) -std=gnu11 $(SAN_FLAGS) $(CFLAGS) -c $< -o $@

# Generated headers have to be there before the first compilation finds out who includes them.
$(filter $(BUILD)/user/tracer/%,$(USER_OBJECTS)): | $(BPF_SKELETONS)
$(filter $(BUILD)/user/output/%,$(USER_OBJECTS)): | $(BUILD)/profile.pb-c.h

$(BUILD)/user/%.o: user/%.c | $(BUILD)/.prerequisites
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) $(CPPFLAGS) $(ALL_CFLAGS) -MMD -MP -c $< -o $@

$(BUILD)/liballoctrace.a: $(USER_OBJECTS)
	$(call say,AR,$@)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(BIN): $(BUILD)/user/main.o $(BUILD)/liballoctrace.a
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) $^ $(LIBS) -o $@

# --- tests ---------------------------------------------------------------------------------------

$(BUILD)/tests/test_%: tests/unit/test_%.c $(BUILD)/liballoctrace.a
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) $(CPPFLAGS) $(ALL_CFLAGS) -MMD -MP $< $(BUILD)/liballoctrace.a -lcmocka $(LIBS) -o $@

.PHONY: unit-tests targets
unit-tests: $(UNIT_TESTS)

targets:
	@$(MAKE) --no-print-directory -C tests/targets BUILD=$(CURDIR)/$(BUILD)/targets

JOBS := -j$(shell nproc)

# A make of its own after the set-up: the packages that it installs change what the build finds.
.PHONY: check
check: setup
	@$(MAKE) $(JOBS) --no-print-directory run-tests

.PHONY: run-tests
run-tests: $(BIN) unit-tests targets tools bench-tools
	@/usr/bin/python3 tests/run.py --build $(BUILD) --alloctrace $(BIN)

# The sweep of a host as long and as often as it is to hold: two minutes, three times.
.PHONY: check-host
check-host: setup
	@$(MAKE) $(JOBS) --no-print-directory $(BIN) targets
	@ALLOCTRACE_SWEEP_SECONDS=120 ALLOCTRACE_SWEEP_RUNS=3 ALLOCTRACE_SWEEP_ALONE=1 \
		/usr/bin/python3 tests/run.py --build $(BUILD) --alloctrace $(BIN) -k 'e2e/test_(sweep|plants|host): '

# Other kernels, in virtual machines: minutes, and downloads.
.PHONY: check-vm
check-vm: setup
	@$(MAKE) $(JOBS) --no-print-directory $(BIN) targets
	@tests/vm/run.sh $(BUILD) $(BIN)

# What reads hostile files against libFuzzer, with ASan and UBSan, for ten minutes each: the parser of
# call frame information, the search for allocators, and debug information.
.PHONY: fuzz
fuzz: setup
	@tools/setup.sh libclang-rt-dev xz-utils
	@tests/fuzz/eh_frame.sh $(BUILD) 600
	@tests/fuzz/allocators.sh $(BUILD) 600
	@tests/fuzz/symbolizer.sh $(BUILD) 600

# What alloctrace makes of an ELF file (its unwind table, the probe sites of its allocator, names), of page
# faults, and of a thread's stack.
TOOLS := $(BUILD)/unwind_dump $(BUILD)/sites_dump $(BUILD)/symbols_dump $(BUILD)/growth_dump \
	$(BUILD)/stack_walk_dump

$(TOOLS): $(BUILD)/%: tools/%.c $(BUILD)/liballoctrace.a
	$(call say,LD,$@)
	$(Q)$(CC) $(CPPFLAGS) $(ALL_CFLAGS) -MMD -MP $< $(BUILD)/liballoctrace.a $(LIBS) -o $@

.PHONY: tools
tools: $(TOOLS)

# --- what it costs -------------------------------------------------------------------------------

# A target: its malloc is to be the C library's, so never with a sanitizer.
$(BUILD)/bench/loop: tools/bench/loop.c tests/targets/target.h
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) -std=gnu11 $(WARNINGS) $(CFLAGS) -D_GNU_SOURCE -fno-builtin -pthread -Itests/targets $< -o $@

$(BUILD)/bench/%: tools/bench/%.c $(BUILD)/liballoctrace.a
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) $(CPPFLAGS) $(ALL_CFLAGS) -MMD -MP $< $(BUILD)/liballoctrace.a $(LIBS) -o $@

.PHONY: bench-tools
bench-tools: $(BUILD)/bench/loop $(BUILD)/bench/floor $(BUILD)/bench/usual $(BUILD)/bench/spent \
	$(BUILD)/bench/census

# make bench BENCH=loop1,redis measures these alone; ROUNDS=9 takes more of each.
.PHONY: bench
bench: setup
	@tools/setup.sh $(BENCH_PACKAGES)
	@$(MAKE) $(JOBS) --no-print-directory $(BIN) bench-tools
	@tools/bench.py --alloctrace $(BIN) --tools $(BUILD)/bench --workloads '$(BENCH)' --output $(BUILD)/bench.json \
		$(if $(ROUNDS),--rounds $(ROUNDS))

# Two threads in malloc and free for a minute, twice: what is lost, and what alloctrace uses.
.PHONY: bench-soak
bench-soak: setup
	@$(MAKE) $(JOBS) --no-print-directory $(BIN) bench-tools
	@tools/bench.py --soak --alloctrace $(BIN) --tools $(BUILD)/bench --output $(BUILD)/bench-soak.json

# Names of addresses beside llvm-symbolizer's: time, memory, and whether they are the same. The first time it builds
# large programs, for minutes.
.PHONY: bench-symbols
bench-symbols: setup
	@tools/setup.sh $(BENCH_SYMBOLS_PACKAGES)
	@$(MAKE) $(JOBS) --no-print-directory $(BIN) tools bench-tools
	@tools/symbols_bench.py --alloctrace $(BIN) --dump $(BUILD)/symbols_dump --spent $(BUILD)/bench/spent \
		--keep $(BUILD)/bench --output $(BUILD)/bench-symbols.json $(if $(ROUNDS),--rounds $(ROUNDS))

# What watching all processes of a host costs, with 1 000 more that sleep; as root.
.PHONY: bench-host
bench-host: setup
	@$(MAKE) $(JOBS) --no-print-directory $(BUILD)/bench/census
	@$(BUILD)/bench/census 1000

# A sweep of a host with a thousand idle processes: what it costs the others, and what it uses. BENCH=redis,build,compile
# are the others.
.PHONY: bench-sweep
bench-sweep: setup
	@tools/setup.sh $(BENCH_PACKAGES)
	@$(MAKE) $(JOBS) --no-print-directory $(BIN) bench-tools
	@tools/bench.py --sweep --alloctrace $(BIN) --tools $(BUILD)/bench --workloads '$(BENCH)' \
		--output $(BUILD)/bench-sweep.json $(if $(ROUNDS),--rounds $(ROUNDS))

.PHONY: demo
demo: setup
	@$(MAKE) $(JOBS) --no-print-directory $(BIN) targets
	@tools/demo.sh ./$(BIN) $(BUILD)

.PHONY: format
format:
	clang-format -i $(wildcard bpf/*.[ch] include/*.h user/*.[ch] user/*/*.[ch] tests/*/*.[ch])

# --- install -------------------------------------------------------------------------------------

.PHONY: install
install: $(BIN)
	install -D -m 755 $(BIN) $(DESTDIR)$(PREFIX)/bin/alloctrace
	install -D -m 644 user/alloctrace.1 $(DESTDIR)$(PREFIX)/share/man/man1/alloctrace.1

.PHONY: clean
clean:
	rm -rf build build-san alloctrace

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
