#!/bin/sh
# Builds the fuzz target for the search of allocators and the files that it damages, and runs it:
#	tests/fuzz/allocators.sh [BUILD_FOLDER [SECONDS]]
# A finding is left in BUILD_FOLDER/fuzz as crash-* or timeout-*, and the exit status is not 0.
set -eu

build=${1:-build}/fuzz
seconds=${2:-300}
cd "$(dirname "$0")/../.."
mkdir -p "$build/allocators.corpus"

# The library's own sources that it needs, instrumented too.
clang -g -O1 -D_GNU_SOURCE -Iuser -Iinclude -std=gnu11 -fsanitize=fuzzer,address,undefined \
	-fno-sanitize-recover=undefined tests/fuzz/fuzz_allocators.c user/binary/allocators.c \
	user/binary/code_ranges.c user/binary/families.c user/binary/go_text.c user/binary/image.c \
	user/binary/minidebug.c user/binary/nesting.c user/binary/plt.c user/binary/probe_site.c \
	user/binary/symtab.c user/binary/x86_insn.c -lelf -lz -llzma -lZydis -o "$build/fuzz_allocators"

# A small static program, and the same with its symbols compressed as Fedora does it.
printf '#include <stdlib.h>\nint main(void) { free(realloc(calloc(3, 3), 100)); return 0; }\n' >"$build/static.c"
cc -O1 -static -no-pie "$build/static.c" -o "$build/static"
objcopy -S "$build/static" "$build/mini"
objcopy --only-keep-debug "$build/static" "$build/mini.debug"
objcopy --strip-debug "$build/mini.debug"
xz -kf "$build/mini.debug"
objcopy --add-section ".gnu_debugdata=$build/mini.debug.xz" "$build/static" "$build/mini"

seeds=$build/static:$build/mini
for file in /lib/*/libc.so.6 /usr/lib/*/libjemalloc.so.2 /usr/lib/*/libmimalloc.so.2 \
	/usr/lib/*/libtcmalloc_minimal.so.4 /usr/lib/*-linux-musl/libc.so; do
	[ ! -r "$file" ] || seeds=$seeds:$file
done

# Each as it is, to begin with.
for n in 0 1 2 3 4 5 6; do
	printf "\\$n" >"$build/allocators.corpus/whole-$n"
done

root=$PWD
cd "$build"
ALLOCTRACE_FUZZ_SEEDS=$(echo "$seeds" | sed "s,\(^\|:\)$build,\1$root/$build,g") \
	exec ./fuzz_allocators -max_len=520 -max_total_time="$seconds" -len_control=0 -print_final_stats=1 -timeout=20 \
	-rss_limit_mb=4096 allocators.corpus
