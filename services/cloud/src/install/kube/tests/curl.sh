#!/bin/sh
# A cloud for tests of the install script: gives the files beside it. What it is asked, and with which header, is written
# down.
at=$(dirname "$0")
echo "$*" >>"$at/asked"
header=$(cat)
out=
while [ "$#" -gt 1 ]; do
    if [ "$1" = -o ]; then out=$2; fi
    shift
done
echo "$header" >>"$at/headers"
[ -f "$at/online" ] || { echo 'curl: (7) Failed to connect' >&2 && exit 7; }
case $1 in
*/v1/init/kube/manifests*) cat "$at/manifests" >"$out" ;;
*/v1/init/kube/state) printf '{"node":"default/edge-1","ready":"%s","version":""}' "$(cat "$at/online")" >"$out" ;;
esac
if [ -f "$at/denied" ]; then
    printf '{"code":"ErrRequestAccessDenied","message":"the install token of node edge-1 expired","requestId":"1"}' >"$out"
    printf 401
else
    printf 200
fi
