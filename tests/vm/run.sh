#!/bin/sh
# The tracer on other kernels, each booted in a virtual machine: `make check-vm` calls it.
#
#	tests/vm/run.sh BUILD ALLOCTRACE [VMLINUZ...]
#
# Without further arguments: the cloud kernels that Debian has, the newest of each version, from 5.10
# (which has to be refused) to sid. Each boots an initramfs that holds the tracer, targets and the libraries
# of all of them (init), and hands back over a serial port what the tracer did with every way of attaching;
# boot.py compares that with the targets' books. One line per kernel, and as the last one
#	N passed, N failed, N skipped
# where each way of attaching on each kernel counts, for each target.
#
# Needs no KVM and no root (root only to install what is missing); what it downloads and makes is in
# BUILD/vm. The machine's own kernel and apt configuration are not touched.
set -eu
export LC_ALL=C

if [ $# -lt 2 ]; then
	echo "usage: $0 BUILD ALLOCTRACE [VMLINUZ...]" >&2
	exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1/vm"
work=$(cd "$1/vm" && pwd)
targets=$(cd "$1" && pwd)/targets
alloctrace=$(realpath "$2")
shift 2

# Several boot tests in one folder would overwrite each other's files.
exec 9>"$work/lock"
flock 9

machine=$(uname -m)
if [ "$machine" != x86_64 ]; then
	echo "skip  vm: kernels for $machine are not known here"
	echo "0 passed, 0 failed, 1 skipped"
	exit 0
fi
programs="$alloctrace $targets/ledger $targets/ledger_throws $targets/throws $targets/mapper"
for file in $programs; do
	[ -x "$file" ] || { echo "alloctrace: not built: $file" >&2; exit 1; }
done
"$here/../../tools/setup.sh" qemu-system-x86 busybox-static cpio kmod dpkg python3 libtcmalloc-minimal4 libjemalloc2
# To be preloaded: init has their names too.
allocators="/usr/lib/$machine-linux-gnu/libtcmalloc_minimal.so.4 /usr/lib/$machine-linux-gnu/libjemalloc.so.2"

# --- what the machines run -------------------------------------------------------------------------

root=$work/root
rm -rf "$root"
mkdir -p "$root/bin" "$root/dev" "$root/proc" "$root/sys" "$root/tmp" "$root/results"
cp "$(command -v busybox)" "$root/bin/busybox"
ln -s busybox "$root/bin/sh"
cp "$here/init" "$root/init"
cp $programs "$root/bin"
chmod 755 "$root/init" "$root"/bin/*
# Where its return probe goes: in a segment of code, GNU ld makes addresses equal offsets in the file.
nm "$targets/ledger_throws" | sed -n 's/ T watched_round$//p' >"$root/watched_round"
# Libraries lie where they lie here, the loader too: that is where programs look for them.
{
	for file in $programs $allocators; do
		ldd "$file"
	done | sed -n 's/^\t\(.* => \)\?\(\/[^ ]*\) (0x.*/\2/p'
	printf '%s\n' $allocators
} | sort -u | while read -r library; do
	mkdir -p "$root$(dirname "$library")"
	cp -L "$library" "$root$library"
done
(cd "$root" && find . | cpio --quiet -o -H newc -R 0:0) | gzip -1 >"$work/initramfs.gz"

# --- the kernels -----------------------------------------------------------------------------------

if [ $# -gt 0 ]; then
	for kernel; do
		printf '%s\t%s\t\n' "$(basename "$kernel")" "$(realpath "$kernel")"
	done
else
	"$here/kernels.sh" "$work"
fi >"$work/kernels.list"

exec /usr/bin/python3 -B "$here/boot.py" "$work"
