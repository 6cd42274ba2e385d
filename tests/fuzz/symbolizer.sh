#!/bin/sh
# Builds the fuzz target for names, files and lines, and the programs that it damages, and runs it:
#	tests/fuzz/symbolizer.sh [BUILD_FOLDER [SECONDS]]
# A finding is left in BUILD_FOLDER/fuzz as crash-*, oom-* or timeout-*, and the exit status is not 0.
set -eu

build=${1:-build}/fuzz
seconds=${2:-300}
cd "$(dirname "$0")/../.."
mkdir -p "$build/symbolizer.corpus"

# The library's own sources that it needs, instrumented too.
clang -g -O1 -D_GNU_SOURCE -Iuser -Iinclude -std=gnu11 -fsanitize=fuzzer,address,undefined \
	-fno-sanitize-recover=undefined tests/fuzz/fuzz_symbolizer.c user/symbol/*.c user/binary/image.c \
	user/binary/families.c user/binary/minidebug.c user/binary/plt.c user/binary/symtab.c user/binary/x86_insn.c \
	user/util/open_file.c -ldw -lelf -lz -llzma -lzstd -liberty -lZydis -ldl -o "$build/fuzz_symbolizer"

# What is damaged is written to: in memory, where there is a file system for it.
folder=$(mktemp -d -p "$([ -w /dev/shm ] && echo /dev/shm || echo /tmp)" alloctrace-fuzz-XXXXXX)
trap 'rm -rf "$folder"' EXIT

cat >"$folder/a.c" <<'END'
void *malloc(unsigned long), free(void *), abort(void);
struct point { int x, y, z; struct point *next; const char *name; };
struct shape { struct point corners[8]; double weight; struct shape *parent; };
static inline __attribute__((always_inline)) void *grab(unsigned long n)
{
	void *p = malloc(n);
	__asm__ volatile("" : "+r"(p));
	return p;
}
static inline __attribute__((always_inline)) void *grab_two(unsigned long n)
{
	void *p = grab(n);
	free(grab(n + 1));
	return p;
}
__attribute__((noinline, cold)) static void refuse(int n) { for (int i = 0; i < n; i++) grab(i); abort(); }
void *site(int n, struct shape *s)
{
	if (n < 0)
		refuse(s->corners[n].x);
	if (n > 3) {
		unsigned long m = n;
		return grab_two(m * 2);
	}
	return grab(n);
}
END
cat >"$folder/b.cc" <<'END'
void *operator new(unsigned long);
namespace shop {
template <typename T> struct shelf {
	T items[4]; int n = 0;
	virtual ~shelf() {}
	void put(T x) { items[n++ & 3] = x; }
	template <typename F> void each(F f) { for (auto &i : items) f(i); }
};
namespace { __attribute__((noinline)) int hidden(int n) { return n * 3; } }
}
extern "C" void *other(int n)
{
	struct local { int operator()(int x) const { return shop::hidden(x) + 1; } };
	shop::shelf<int> s;
	for (int i = 0; i < n; i++)
		s.put(local()(i));
	s.each([&](int &i) { n += i; });
	return new int(n);
}
END

seeds=
# seed NAME COMPILER FLAGS: a shared library of the two, +SOURCE.dwo if the flags make one.
seed() {
	name=$1 compiler=$2
	shift 2
	mkdir -p "$folder/$name"
	(cd "$folder/$name" && for source in a.c b.cc; do
		$compiler "$@" -w -fPIC -O2 -g -c "../$source" -o "${source%.*}.o" &&
			objcopy -R .comment -R .note.GNU-stack "${source%.*}.o"
	done && $compiler -shared -nostdlib "$@" a.o b.o -o lib.so)
	dwo=
	[ ! -e "$folder/$name/b.dwo" ] || dwo="+$folder/$name/b.dwo"
	seeds="$seeds:$folder/$name/lib.so$dwo"
}
for compiler in gcc clang; do
	for version in 4 5; do
		seed $compiler-$version $compiler -gdwarf-$version
		seed $compiler-$version-split $compiler -gdwarf-$version -gsplit-dwarf
	done
done
seed types gcc -gdwarf-4 -fdebug-types-section
seed types-5 clang -gdwarf-5 -fdebug-types-section
seed packed gcc -gdwarf-5 -gz=zlib
seed packed-4 gcc -gdwarf-4 -gz=zlib-gnu
seed packed-split gcc -gdwarf-5 -gz -gsplit-dwarf
seed three gcc -gdwarf-3 -gstrict-dwarf
seed wide gcc -gdwarf-5 -gdwarf64
seed dwz gcc -gdwarf-4 -Wl,--build-id=0x11
seed dwz-2 gcc -gdwarf-4 -Wl,--build-id=0x12
(cd "$folder" && dwz -m dwz/common.debug -M common.debug dwz/lib.so dwz-2/lib.so) || :
[ ! -e "$folder/dwz/common.debug" ] || seeds="$seeds:$folder/dwz/lib.so+$folder/dwz/common.debug"
seeds=${seeds#:}

# Each as it is, to begin with.
for n in $(seq 0 31); do
	printf "\\$(printf %03o "$n")" >"$build/symbolizer.corpus/whole-$n"
done

cd "$build"
ALLOCTRACE_FUZZ_SEEDS=$seeds ./fuzz_symbolizer -max_len=520 -max_total_time="$seconds" -len_control=0 \
	-print_final_stats=1 -timeout=20 -rss_limit_mb=4096 -malloc_limit_mb=2500 symbolizer.corpus
