#!/bin/bash
# collect.sh OUT: puts what explains a failure of the bed of $BED into the directory OUT: logs of its programs and of
# Pods, the audit log, and what the cluster says about itself (Secrets are left out).
set -uo pipefail
. "$(dirname "$0")/env.sh"
[ $# = 1 ] || { echo "usage: collect.sh OUT" >&2; exit 2; }
mkdir -p "$1"
cp -r "$BED"/log "$BED"/boot.log "$BED"/audit.log "$BED"/pod-logs "$1/" 2> /dev/null
k() { timeout 20 "$BED/kubectl" --request-timeout=5s "$@" 2>&1; }
k get nodes,pv,ns -o wide > "$1/cluster.txt" || exit 0       # the API server does not answer: the logs must do
k get all,cm,pvc,ing,netpol -A -o wide > "$1/objects.txt"
k get events -A --sort-by=.lastTimestamp > "$1/events.txt"
k describe pods -A > "$1/pods.txt"
