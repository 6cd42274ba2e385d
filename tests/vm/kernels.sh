#!/bin/sh
# Debian's cloud kernels: they need no modules to boot in a virtual machine.
#
#	kernels.sh FOLDER
#
# Downloads the newest of each version (6.1, 6.12, ...) of each suite into FOLDER/kernels, and prints
# a line for each:
#	NAME <tab> PATH OF THE IMAGE <tab>
#	NAME <tab>                   <tab> WHY THERE IS NONE
# Images stay, and are not downloaded again; without a network those that are there will do.
set -eu
export LC_ALL=C

mkdir -p "$1"
folder=$(cd "$1" && pwd)
suites='bullseye bookworm bookworm-backports trixie trixie-backports sid'
arch=amd64
. "$(dirname "$0")/../debian.sh"

# The newest of each major.minor of the suite configured, as "6.12.95+deb12-cloud-amd64".
versions() {
	apt-cache -c "$apt/apt.conf" pkgnames linux-image- |
		sed -n "s/^linux-image-\([0-9].*-cloud-$arch\)$/\1/p" | sort -V |
		awk '{ split($0, part, "."); key = part[1] "." part[2] }
		     key != last && last != "" { print newest }
		     { last = key; newest = $0 }
		     END { if (last != "") print newest }'
}

# fetch VERSION IMAGE: the image is complete when it has its name.
fetch() {
	# From 7.2 on the image is in a package of its own, and in another folder: linux-image only depends on it.
	package=$(apt-cache -c "$apt/apt.conf" pkgnames "linux-binary-$1" | grep -Fx "linux-binary-$1" ||
		echo "linux-image-$1")
	unpack "$package" || return 1
	for image in "$apt/package/boot/vmlinuz-$1" "$apt/package/usr/lib/modules/$1/vmlinuz"; do
		[ -e "$image" ] && mv "$image" "$2"
	done
	rm -rf "$apt/package"
	[ -e "$2" ] || { echo "no vmlinuz in $package" >"$apt/log"; return 1; }
}

suite() {
	images=$folder/kernels/$1
	mkdir -p "$images"
	configure "$1"
	if ! update; then
		why="no package list: $(error)"
		for image in "$images"/*-cloud-$arch; do
			[ -e "$image" ] || { say "$1" '' "$why"; return; }
			say "$1 ${image##*/}" "$image" ''
		done
		return
	fi
	wanted=$(versions)
	[ -n "$wanted" ] || { say "$1" '' 'has no cloud kernel'; return; }
	for image in "$images"/*; do
		case " $(echo $wanted) " in
		*" ${image##*/} "*) ;;
		*) rm -f "$image" ;;
		esac
	done
	for version in $wanted; do
		[ -e "$images/$version" ] || echo "downloading: $1 $version" >&2
		if [ -e "$images/$version" ] || fetch "$version" "$images/$version"; then
			say "$1 $version" "$images/$version" ''
		else
			say "$1 $version" '' "not downloaded: $(error)"
		fi
	done
}

mirror=$(find_mirror) || mirror=
for name in $suites; do
	if [ -n "$mirror" ]; then
		suite "$name"
	else
		say "$name" '' "this machine's package sources name no Debian mirror"
	fi
done
