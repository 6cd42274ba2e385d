#!/bin/sh
# Builds the fuzz target for call frame information and its seed corpus, and runs it:
#	tests/fuzz/eh_frame.sh [BUILD_FOLDER [SECONDS]]
# A finding is left in BUILD_FOLDER/fuzz as crash-*, and the exit status is not 0.
set -eu

build=${1:-build}/fuzz
seconds=${2:-300}
cd "$(dirname "$0")/../.."
mkdir -p "$build/eh_frame.corpus"

# The library's own sources that it needs, instrumented too.
clang -g -O1 -D_GNU_SOURCE -Iuser -Iinclude -std=gnu11 -fsanitize=fuzzer,address,undefined \
	-fno-sanitize-recover=undefined tests/fuzz/fuzz_eh_frame.c user/binary/cfi.c \
	user/binary/eh_frame.c user/binary/eh_frame_open.c user/binary/call_sites.c \
	user/binary/unwind_table.c user/binary/image.c user/binary/symtab.c \
	-lelf -ldw -lz -o "$build/fuzz_eh_frame"

# seed NAME FLAGS FILE SECTION: flags, the section's address (little-endian), its bytes.
seed() {
	set -- "$@" $(readelf -SW "$3" | sed 's/^ *\[ *[0-9]*\] *//' | awk -v s="$4" '$1 == s')
	[ $# -ge 9 ] || return 0
	# $5 name, $6 type, $7 address, $8 offset, $9 size
	{
		printf "\\$(printf %03o "$2")"
		echo "$7" | sed 's/../& /g' | awk '{for (i = 8; i > 0; i--) print $i}' |
			while read -r byte; do printf "\\$(printf %03o "0x$byte")"; done
		tail -c +$((0x$8 + 1)) "$3" | head -c $((0x$9)) | head -c 6000
	} >"$build/eh_frame.corpus/$1"
}

n=0
for file in /bin/true /bin/ls /usr/bin/python3 /lib/*/libc.so.6 /lib/*/ld-linux*.so.? \
	/usr/lib/*/libcrypto.so.3 /usr/aarch64-linux-gnu/lib/*.so.?; do
	[ -r "$file" ] || continue
	n=$((n + 1))
	for flags in 0 2 4 6; do
		seed "file-$n-$flags" $flags "$file" .eh_frame
	done
done

# Every instruction that the assemblers can be made to write, for both machines.
cat >"$build/all.s" <<'END'
	.globl _start
	.cfi_sections .eh_frame, .debug_frame
_start:	.cfi_startproc
	.cfi_personality 0x1b, _start
	.cfi_lsda 0x1b, _start
	nop
	.cfi_def_cfa 7, 16
	nop
	.cfi_remember_state
	.cfi_def_cfa_register 6
	.cfi_offset 6, -16
	.skip 300
	.cfi_restore_state
	.cfi_adjust_cfa_offset 8
	.cfi_restore 6
	.skip 70000
	.cfi_undefined 6
	.cfi_same_value 6
	.cfi_register 6, 3
	.cfi_offset 40, 64
	nop
	.cfi_escape 0x0f, 3, 0x76, 0x78, 0x06
	.cfi_escape 0x10, 6, 2, 0x76, 0
	.cfi_escape 0x16, 6, 2, 0x76, 0
	nop
	.cfi_escape 0x0f, 11, 0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22
	.cfi_escape 0x0f, 5, 0x77, 40, 0x06, 0x23, 8
	.cfi_escape 0x12, 7, 2, 0x13, 3, 0x14, 6, 1, 0x15, 6, 1, 0x11, 6, 1, 0x05, 6, 1, 0x2f, 6, 1
	.cfi_escape 0x2e, 16
	nop
	.cfi_endproc
	.cfi_startproc
	.cfi_signal_frame
	.cfi_undefined 16
	nop
	.cfi_endproc
END
for target in x86_64 aarch64; do
	flags=0
	[ $target = x86_64 ] || flags=2
	clang --target=$target-linux-gnu -c "$build/all.s" -o "$build/all.o" 2>/dev/null || continue
	seed "all-$target" $flags "$build/all.o" .eh_frame
	seed "all-$target-image" $((flags + 4)) "$build/all.o" .eh_frame
	seed "all-$target-debug" $((flags + 1)) "$build/all.o" .debug_frame
done

cd "$build"
exec ./fuzz_eh_frame -max_len=8192 -max_total_time="$seconds" -print_final_stats=1 \
	-timeout=10 eh_frame.corpus
