#!/bin/sh
# The shared libraries of packages of one suite of Debian.
#
#	debs.sh FOLDER SUITE ARCH PATTERN...
#
# For each package whose name is matched by one of the patterns (extended regular expressions), downloads
# the newest one, keeps its shared libraries below FOLDER/SUITE-ARCH, and prints a line:
#	PACKAGE VERSION <tab> FOLDER OF ITS LIBRARIES <tab>
#	PACKAGE VERSION <tab>                         <tab> WHY THERE ARE NONE
# Libraries stay, and are not downloaded again; without a network those that are there will do. A line that
# names SUITE and ARCH in place of the package says why there are no packages at all.
set -eu
export LC_ALL=C

mkdir -p "$1"
folder=$(cd "$1" && pwd)
suite=$2
arch=$3
shift 3
. "$(dirname "$0")/debian.sh"

# fetch PACKAGE FOLDER: the libraries are complete when the folder has its name.
fetch() {
	unpack "$1" || return 1
	rm -rf "$apt/libraries"
	mkdir "$apt/libraries"
	# Not the hundreds of character sets.
	(cd "$apt/package" && find . ! -type d -name '*.so*' ! -path '*/gconv/*') | while read -r file; do
		mkdir -p "$apt/libraries/$(dirname "$file")"
		mv "$apt/package/$file" "$apt/libraries/$file"
	done
	rm -rf "$apt/package"
	rmdir "$apt/libraries" 2>/dev/null && { echo "no shared library in $1" >"$apt/log"; return 1; }
	mv "$apt/libraries" "$2"
}

# "PACKAGE VERSION" of each package that a pattern matches.
packages() {
	patterns=$(printf '|%s' "$@")
	apt-cache -c "$apt/apt.conf" dumpavail |
		awk -v "names=^(${patterns#|})\$" '$1 == "Package:" { name = $2 }
			$1 == "Version:" && name ~ names { print name, $2 }'
}

# Those that are there, as the folders are called.
kept() {
	for libraries in "$debs"/*_*; do
		if [ -d "$libraries" ]; then
			basename "$libraries" | sed 's/_/ /'
		fi
	done
}

mirror=$(find_mirror) || mirror=
[ -n "$mirror" ] || { say "$suite $arch" '' "this machine's package sources name no Debian mirror"; exit 0; }
configure "$suite"
debs=$folder/$suite-$arch
mkdir -p "$debs"
exec 9>"$apt/lock"
flock 9
if update; then
	wanted=$(packages "$@")
	why='has none of these packages'
else
	wanted=$(kept)
	why="no package list: $(error)"
fi
[ -n "$wanted" ] || { say "$suite $arch" '' "$why"; exit 0; }
echo "$wanted" | while read -r package version; do
	libraries=$debs/${package}_$version
	if [ ! -d "$libraries" ]; then
		echo "downloading: $suite $arch $package $version" >&2
		rm -rf "$debs/${package}_"*
		fetch "$package" "$libraries" || { say "$package $version" '' "not downloaded: $(error)"; continue; }
	fi
	say "$package $version" "$libraries" ''
done
