#!/bin/bash
# down.sh: ends the bed of $BED, and the nodes that joined it, and takes everything of it away (KEEP=1: but its files).
set -uo pipefail
. "$(dirname "$0")/env.sh"
if [ -e "$BED/joined" ]; then
  sort -u "$BED/joined" | while read -r bed; do [ ! -d "$bed" ] || BED=$bed "$HERE/down.sh"; done
fi
init=$(cat "$BED/init.pid" 2> /dev/null)
if [ -n "$init" ] && grep -q boot.sh "/proc/$init/cmdline" 2> /dev/null; then
  kill -9 "$init"                      # PID 1 of the pid namespace: takes every process and mount along
  for _ in $(seq 100); do [ -e "/proc/$init" ] || break; sleep .1; done
fi
for _ in 1 2 3 4 5; do
  left=
  for c in $(cgroups); do
    find "$c" -depth -type d -exec rmdir {} + 2> /dev/null
    [ ! -d "$c" ] || left=$c
  done
  [ -n "$left" ] || break
  sleep .3
done
if [ -n "${KEEP:-}" ]; then rm -f "$BED/init.pid"; else rm -rf "${BED:?}"; fi
