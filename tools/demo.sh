#!/bin/sh
# The demo: a server that churns and leaks, ten seconds of recording, a profile. `make demo` calls it
# with the program and the build folder.
set -eu
alloctrace=$1 build=$2

"$build/targets/server" >"$build/demo-server.log" &
server=$!
trap 'kill $server 2>/dev/null || true' EXIT INT TERM
# The server's first line says that its workers run.
until [ -s "$build/demo-server.log" ]; do kill -0 $server; sleep 0.05; done

echo "\$ alloctrace -p $server --duration 10s"
"$alloctrace" -p $server --duration 10s --output "$build/demo.pb.gz"
echo
echo "Look at it with:  go tool pprof -http=: $build/demo.pb.gz"
