# Packages of any suite of Debian, without touching the machine's own apt: for shell scripts to read in.
# They set
#	folder	where apt may keep its files
#	arch	of the packages
#	mirror	where from: $(find_mirror)
# apt gets a configuration and folders of its own. From the machine's it takes the address of the Debian
# mirror, and settings such as a proxy's.
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# say NAME PATH WHY NOT: a line of what such a script prints.
say() {
	printf '%s\t%s\t%s\n' "$1" "$2" "$3"
}

# The address that the machine gets Debian's main archive from. Where its package lists have been removed
# nothing tells whose archive an address is, but for the usual name of its folder.
find_mirror() {
	apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' |
		head -n 1 | grep . ||
		apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' |
		grep '/debian/$' | head -n 1
}

# configure SUITE: an apt of its own for it in $apt, so that one suite's versions do not hide another's.
configure() {
	apt=$folder/apt/$1-$arch
	mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/none"
	signed=
	[ -r "$keyring" ] && signed=" signed-by=$keyring"
	echo "deb [arch=$arch$signed] $mirror $1 main" >"$apt/sources.list"
	# Hooks of the machine's configuration, which may empty its own cache, are not for us.
	cat >"$apt/apt.conf" <<-END
		#clear APT::Update;
		#clear DPkg;
		#clear APT::Architectures;
		APT::Architecture "$arch";
		APT::Architectures { "$arch"; };
		APT::Update::Error-Mode "any";
		APT::Sandbox::User "root";
		Acquire::Languages "none";
		Acquire::Retries "2";
		Acquire::http::Timeout "30";
		Acquire::https::Timeout "30";
		Dir::Etc::sourcelist "$apt/sources.list";
		Dir::Etc::sourceparts "$apt/none";
		Dir::Etc::preferences "$apt/none/preferences";
		Dir::Etc::preferencesparts "$apt/none";
		Dir::State::lists "$apt/lists";
		Dir::State::status "/dev/null";
		Dir::State::extended_states "$apt/extended_states";
		Dir::Cache "$apt/cache";
		Dir::Cache::srcpkgcache "";
		Dir::Cache::pkgcache "";
	END
}

# What went wrong, of what has been logged, as one line.
error() {
	{ grep '^E: ' "$apt/log" || tail -n 1 "$apt/log"; } | head -n 1 | tr '\t' ' '
}

# The package lists of the suite configured.
update() {
	timeout 180 apt-get -c "$apt/apt.conf" -qq update >"$apt/log" 2>&1
}

# unpack PACKAGE: its files, into $apt/package.
unpack() {
	rm -rf "$apt/package"
	mkdir "$apt/package"
	(cd "$apt/package" && timeout 300 apt-get -c "$apt/apt.conf" -qq download "$1") >"$apt/log" 2>&1 </dev/null &&
		dpkg-deb -x "$apt/package/"*.deb "$apt/package" 2>"$apt/log"
}
