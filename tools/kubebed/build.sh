#!/bin/bash
# build.sh [OUT]: builds kbed and pause (see main.go, pause/main.go) from the modules that go.mod names and prints where
# they are. Without OUT they are kept in the user's cache, under a hash of the sources, and built once only; what nobody
# asked for in a month is thrown away there.
# build.sh --built: builds nothing; prints where they are if they were built before, else nothing.
set -euo pipefail
cd "$(dirname "$0")"
sources=$(sha256sum go.mod go.sum ./*.go pause/*.go | sha256sum | cut -c1-16)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/baetyl-kubebed/$sources
if [ "${1:-}" = --built ]; then
  [ ! -e "$cache/complete" ] || echo "$cache"
  exit
fi
out=${1:-$cache}
mkdir -p "$out"
out=$(cd "$out" && pwd)
exec 9> "$out/lock"
flock 9                                    # of two that build at once the second finds what the first made
if [ ! -e "$out/complete" ] || [ "$(cat "$out/complete")" != "$sources" ]; then
  echo "building the test bed's Kubernetes into $out (from nothing: about 7 minutes on two cores)" >&2
  v=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
  minor=${v#v1.}; minor=${minor%%.*}
  # Without these the programs call themselves v0.0.0-master, and version checks of clients fail.
  ld='-s -w'
  for p in k8s.io/client-go/pkg/version k8s.io/component-base/version; do
    ld="$ld -X $p.gitVersion=$v -X $p.gitMajor=1 -X $p.gitMinor=$minor -X $p.gitTreeState=clean -X $p.buildDate=1970-01-01T00:00:00Z"
  done
  CGO_ENABLED=0 go build -buildvcs=false -trimpath -ldflags "$ld" -o "$out/" . ./pause >&2
  echo "$sources" > "$out/complete"
fi
if [ $# = 0 ]; then
  touch "$out"
  find "${cache%/*}" -mindepth 1 -maxdepth 1 -type d -mtime +30 -exec rm -rf {} +
fi
echo "$out"
