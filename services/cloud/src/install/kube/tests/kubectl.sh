#!/bin/sh
# A cluster for tests of the install script: answers from the files beside it and writes down what it is asked.
# Files that are read: version, nodes, planes, cores, owner, identity, cannot, refusal, job, deployments, pods,
# upgrade (there is one),
# begins (engine begins one when the manifests are applied first), pull-NAMESPACE (of the Secret "pull": its label part-of).
# Files that are written: asked, cores, owner, token, applied, namespace-NAME, pull-NAMESPACE, copied.
at=$(dirname "$0")
echo "$*" >>"$at/asked"
if [ "$1" = --context ]; then
    [ "$2" = there ] || { echo "error: context \"$2\" does not exist" >&2 && exit 1; }
    shift 2
fi

# The next line of a file; the last one stays.
next() {
    [ -f "$at/$1" ] || return 0
    head -n 1 "$at/$1"
    if [ "$(wc -l <"$at/$1")" -gt 1 ]; then
        tail -n +2 "$at/$1" >"$at/rest" && mv "$at/rest" "$at/$1"
    fi
}

given() { if [ -f "$at/$1" ]; then cat "$at/$1"; fi; }

case "$*" in
'get --raw /version')
    [ -f "$at/version" ] || { echo 'The connection to the server 127.0.0.1:6443 was refused' >&2 && exit 1; }
    printf '{\n  "major": "1",\n  "minor": "34",\n  "gitVersion": "%s",\n  "goVersion": "go1.26"\n}\n' "$(cat "$at/version")"
    ;;
'auth can-i'*) if [ -f "$at/cannot" ]; then echo no && exit 1; fi ;;
'get nodes -l baetyl.io/core=true'*) given cores ;;
'get nodes -l node-role.kubernetes.io/control-plane'*) given planes ;;
'get nodes'*) given nodes ;;
'get namespace baetyl-edge-system'*) given owner ;;
*'get namespace '*) if [ -f "$at/namespace-$5" ]; then echo "namespace/$5"; fi ;;
*'get job baetyl-upgrade'*) if [ -f "$at/upgrade" ]; then echo job.batch/baetyl-upgrade; fi ;;
*'delete job baetyl-upgrade'*) rm -f "$at/upgrade" ;;
*'get secret baetyl-core-manifests'*) ;;
*'get secret pull '*)
    namespace=default
    if [ "$1" = -n ]; then namespace=$2; fi
    [ -f "$at/pull-$namespace" ] || exit 0
    case "$*" in
    *.type*) printf %s "$(given type)" ;;
    *dockerconfigjson*) printf %s "of-$namespace" ;;
    *part-of*) printf %s "$(cat "$at/pull-$namespace")" ;;
    *) echo secret/pull ;;
    esac
    ;;
*'get secret baetyl-core-identity'*) if [ -f "$at/identity" ]; then echo secret/baetyl-core-identity; fi ;;
'create namespace '*) : >"$at/namespace-$3" ;;
'annotate namespace '*) echo "${6#*=} ${5#*=}" >"$at/owner" ;;
'label node '*) echo "$3" >"$at/cores" ;;
'apply --server-side --field-manager=baetyl-core --force-conflicts -f -')
    text=$(cat)
    case $text in
    *dockerconfigjson*) echo "$text" >>"$at/copied" ;;
    *) echo "$text" >"$at/token" ;;
    esac
    ;;
'apply --server-side --field-manager=baetyl-core --dry-run=server -f '*)
    refusal=$(next refusal)
    if [ -n "$refusal" ]; then echo "$refusal" >&2 && exit 1; fi
    ;;
'apply --server-side --field-manager=baetyl-core -f '*)
    cat "$5" >"$at/applied"
    if [ -f "$at/begins" ]; then mv "$at/begins" "$at/upgrade"; fi
    ;;
'apply --dry-run=client -o name -f '*) echo deployment.apps/baetyl-engine ;;
*'get job baetyl-init'*) next job ;;
*'get deployments'*) given deployments ;;
*'get pods'*) given pods ;;
*'get events'*) echo 'Pod/baetyl-sync-1: FailedScheduling: 0/1 nodes are available' ;;
*'delete '*) ;;
*logs*) echo 'the cloud does not answer' ;;
*) echo "what is this: $*" >&2 && exit 3 ;;
esac
