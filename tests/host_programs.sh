#!/bin/sh
# Servers for a host to be swept, without installing them: that would start them, and make them start again.
#
#	host_programs.sh FOLDER
#
# Prints a line for each of nginx, postgres and redis-server:
#	NAME <tab> PATH OF THE PROGRAM <tab>
#	NAME <tab>                     <tab> WHY THERE IS NONE
# One that the machine has is taken. Others come from packages of the machine's own suite of Debian, which are
# unpacked below FOLDER and stay there; the libraries that they need have to be installed.
set -eu
export LC_ALL=C

mkdir -p "$1"
folder=$(cd "$1" && pwd)
. "$(dirname "$0")/debian.sh"
export PATH="$PATH:/usr/sbin:/sbin"
arch=$(dpkg --print-architecture)
suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
configured=

# Once, when it is needed.
prepare() {
	[ -z "$configured" ] || return 0
	mkdir -p "$folder/apt/$suite-$arch"
	apt=$folder/apt/$suite-$arch
	mirror=$(find_mirror) && [ -n "$mirror" ] || { echo 'E: no Debian mirror is known' >"$apt/log"; return 1; }
	configure "$suite"
	update && configured=yes
}

# fetch NAME PACKAGE: its files in FOLDER/NAME, which has its name when they are complete.
fetch() {
	[ -d "$folder/$1" ] && return 0
	prepare && unpack "$2" && mv "$apt/package" "$folder/$1"
}

# program NAME PACKAGE PATTERN...: a pattern is of paths where it may be.
program() {
	name=$1 package=$2
	shift 2
	installed=$(command -v "$name" || true)
	for path in $installed "$@"; do
		[ -x "$path" ] && { say "$name" "$(realpath "$path")" ''; return; }
	done
	fetch "$name" "$package" || { say "$name" '' "not downloaded: $(error)"; return; }
	rm -rf "$folder/$name/"*.deb
	for path in "$@"; do
		for unpacked in "$folder/$name"$path; do
			[ -x "$unpacked" ] && { say "$name" "$unpacked" ''; return; }
		done
	done
	say "$name" '' "not in the package $package"
}

exec 9>"$folder/lock"
flock 9
program nginx nginx /usr/sbin/nginx
program postgres postgresql-15 '/usr/lib/postgresql/*/bin/postgres' $(ls -d /usr/lib/postgresql/*/bin/postgres 2>/dev/null)
# In Debian's redis-tools it goes by the name it is called by.
program redis-server redis-tools /usr/bin/redis-check-rdb
