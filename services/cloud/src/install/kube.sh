#!/bin/sh
# Makes a Kubernetes cluster (K3s or any other from 1.30 on) a Baetyl edge node. The cloud's install command fetches this and
# runs it; a bundle (`baetylctl node bundle`) has it for machines without a network.
#
# Safe to run again: what is there already is left as it is, and a cluster that is another node is refused. Every request to
# the cloud is checked against the authority of --ca; the token comes by the environment and goes into the cluster by
# standard input, because everybody on a machine can read the arguments of its programs.
set -eu
umask 077
export LC_ALL=C

SYSTEM=baetyl-edge-system
USERS=baetyl-edge
OLDEST_MINOR=30

cloud=
ca=
class=
registry=
pull_secret=
kube_node=
context=
bundle=
dry_run=
waits=yes
timeout=600
token=${BAETYL_INIT__TOKEN:-}
# Seconds between two looks.
poll=${BAETYL_INSTALL_POLL:-2}
program=

say() { printf '%s\n' "$*"; }

fail() {
    printf 'baetyl: %s\n' "$*" >&2
    exit 1
}

usage() {
    cat <<'TEXT'
Usage: BAETYL_INIT__TOKEN=... sh install.sh --cloud URL --ca FILE [options]
       sh install.sh --bundle FILE-OR-DIRECTORY [options]

  --cloud URL        where the cloud's activation listens, https://host:9003
  --ca FILE          PEM file with the authority of the cloud
  --class CLASS      node class, whose manifests are applied (node-1gb, node-standard, node-gpu, cluster, k3s)
  --registry REG     registry, with path, of the images
  --pull-secret NAME Secret that opens the registry: in the namespace of the context, or in both of ours already
  --kube-node NAME   the Kubernetes node the core services belong to
  --context NAME     context of kubectl
  --bundle PATH      installs from a bundle: nothing is fetched
  --timeout SECONDS  how long to wait for the node (600)
  --no-wait          ends when everything is applied
  --dry-run          checks everything and changes nothing
TEXT
}

value() {
    [ "$#" -ge 2 ] || fail "$1 needs a value; see --help"
    printf '%s' "$2"
}

read_arguments() {
    while [ "$#" -gt 0 ]; do
        case $1 in
        --cloud) cloud=$(value "$@"); shift 2 ;;
        --ca) ca=$(value "$@"); shift 2 ;;
        --class) class=$(value "$@"); shift 2 ;;
        --registry) registry=$(value "$@"); shift 2 ;;
        --pull-secret) pull_secret=$(value "$@"); shift 2 ;;
        --kube-node) kube_node=$(value "$@"); shift 2 ;;
        --context) context=$(value "$@"); shift 2 ;;
        --bundle) bundle=$(value "$@"); shift 2 ;;
        --timeout) timeout=$(value "$@"); shift 2 ;;
        --no-wait) waits=; shift ;;
        --dry-run) dry_run=yes; shift ;;
        --help | -h) usage; exit 0 ;;
        *) fail "unknown option $1; see --help" ;;
        esac
    done
    plain --class "$class"
    plain --registry "$registry"
    plain --pull-secret "$pull_secret"
    case $timeout in
    '' | *[!0-9]*) fail "--timeout is a number of seconds, not \"$timeout\"" ;;
    esac
    if [ -n "$bundle" ] && [ -n "$cloud$class$registry$pull_secret" ]; then
        fail "--cloud, --class, --registry and --pull-secret are part of a bundle; make another one to change them"
    fi
    if [ -z "$bundle" ] && { [ -z "$cloud" ] || [ -z "$ca" ]; }; then
        fail "--cloud and --ca are needed; use the install command that the cloud gives for the node"
    fi
}

# What becomes part of an address or of YAML has nothing in it that means something there.
plain() {
    case $2 in
    *[!A-Za-z0-9._:/@-]*) fail "$1: \"$2\" has characters that do not belong there" ;;
    esac
}

kube() {
    if [ -n "$context" ]; then set -- --context "$context" "$@"; fi
    if [ "$program" = k3s ]; then set -- kubectl "$@"; fi
    "$program" "$@"
}

# --- the cloud ------------------------------------------------------------------------------------------------------

# fetch PATH FILE: true when FILE is the answer. What went wrong is in $work/error, in the cloud's words where it said some.
# The directory of authorities is an empty one: otherwise every authority of the system would be good enough, too.
fetch() {
    rm -f "$2"
    if command -v curl >/dev/null 2>&1; then
        code=$(printf 'header = "authorization: Bearer %s"\n' "$token" |
            curl -sS --proto '=https' --connect-timeout 20 --max-time 120 --retry 4 --retry-connrefused \
                --cacert "$ca" --capath "$work/none" -K - -o "$2" -w '%{http_code}' "$cloud$1" 2>"$work/error") || return 1
        [ "$code" = 200 ] && return 0
    elif wget --help 2>&1 | grep -q -e --ca-directory; then
        printf 'header = Authorization: Bearer %s\n' "$token" >"$work/wgetrc"
        WGETRC=$work/wgetrc wget -nv --no-hsts --timeout=20 --tries=5 --retry-connrefused --content-on-error --ca-certificate="$ca" \
            --ca-directory="$work/none" -O "$2" "$cloud$1" 2>"$work/error" && return 0
    else
        say "neither curl nor a wget that checks certificates is installed" >"$work/error"
        return 1
    fi
    words=$(sed -n 's/.*"message":"\([^"]*\)".*/\1/p' "$2" 2>/dev/null || true)
    if [ -n "$words" ]; then
        say "$words" >"$work/error"
    elif [ -s "$2" ]; then
        say "it answers something else" >"$work/error"
    fi
    return 1
}

# A line `# baetyl.io/NAME: VALUE` of the manifests.
about() { sed -n "s|^# baetyl\.io/$1: ||p" "$manifests" | head -n 1; }

get_manifests() {
    if [ -n "$bundle" ]; then
        open_bundle
    else
        manifests=$work/manifests.yaml
        fetch "/v1/init/kube/manifests?class=$class&registry=$registry&pullSecret=$pull_secret&distribution=$distribution" "$manifests" ||
            fail "the cloud at $cloud gives no manifests: $(cat "$work/error")"
    fi
    node=$(about node)
    uid=$(about node-uid)
    pull_secret=$(about pull-secret)
    if [ -z "$node" ] || [ -z "$uid" ]; then
        fail "$manifests does not say for which node it is; get a new install command or bundle"
    fi
}

open_bundle() {
    if [ -f "$bundle" ]; then
        tar -xf "$bundle" -C "$work" || fail "$bundle cannot be unpacked"
        # Everything in a bundle lies in one directory.
        for found in "$work"/*/manifests.yaml; do bundle=${found%/manifests.yaml}; done
    fi
    manifests=$bundle/manifests.yaml
    [ -f "$manifests" ] || fail "$bundle is no bundle: it has no manifests.yaml"
    cloud=$(about cloud)
    ca=$bundle/ca.pem
    if [ -z "$token" ] && [ -f "$bundle/token" ]; then token=$(cat "$bundle/token"); fi
}

import_images() {
    if command -v k3s >/dev/null 2>&1; then
        set -- k3s ctr
    elif command -v ctr >/dev/null 2>&1; then
        set -- ctr
    else
        fail "no ctr and no k3s here to import the images with; run this on the machine of the cluster, as root"
    fi
    for archive in "$bundle"/images/*.tar; do
        [ -f "$archive" ] || continue
        say "importing ${archive##*/}"
        "$@" -n k8s.io images import "$archive" >"$work/imported" 2>&1 ||
            fail "the images of $archive are not imported: $(cat "$work/imported")"
    done
    machines=$(lines "$work/nodes")
    if [ "$machines" -gt 1 ]; then
        say "this cluster has $machines machines: import images/*.tar on the others, too"
    fi
}

# --- what the cluster is --------------------------------------------------------------------------------------------

lines() { echo $(($(wc -l <"$1"))); }

find_kubectl() {
    tried=
    for program in kubectl k3s; do
        command -v "$program" >/dev/null 2>&1 || continue
        if kube get --raw /version >"$work/version" 2>"$work/error"; then return 0; fi
        tried="$tried
$program: $(tail -n 1 "$work/error")"
    done
    [ -n "$tried" ] || fail "neither kubectl nor k3s is installed here"
    fail "the cluster does not answer. Is KUBECONFIG set, and are you allowed to read it?$tried"
}

check_version() {
    version=$(sed -n 's/.*"gitVersion": *"\([^"]*\)".*/\1/p' "$work/version" | head -n 1)
    major=${version#v}
    major=${major%%.*}
    minor=${version#v*.}
    minor=${minor%%.*}
    case "$major$minor" in
    '' | *[!0-9]*) fail "the cluster says it has version \"$version\", which is none" ;;
    esac
    if [ "$major" -lt 1 ] || { [ "$major" -eq 1 ] && [ "$minor" -lt "$OLDEST_MINOR" ]; }; then
        fail "Kubernetes 1.$OLDEST_MINOR or newer is needed; this cluster has $version"
    fi
    distribution=
    case $version in
    *+k3s*) distribution=k3s ;;
    esac
    kube auth can-i create clusterroles.rbac.authorization.k8s.io >/dev/null 2>&1 ||
        fail "the rights of an administrator of the cluster are needed: you may not create ClusterRoles"
}

names_of() {
    kube get nodes -l "$1" -o jsonpath='{range .items[*]}{.metadata.name}{"\n"}{end}' >"$2" ||
        fail "the nodes of the cluster cannot be listed"
}

choose_node() {
    kube get nodes -o jsonpath='{range .items[*]}{.metadata.name}{" "}{.status.nodeInfo.architecture}{" "}{.status.capacity.memory}{"\n"}{end}' \
        >"$work/nodes" || fail "the nodes of the cluster cannot be listed"
    names_of baetyl.io/core=true "$work/cores"
    names_of node-role.kubernetes.io/control-plane "$work/planes"
    core=$(head -n 1 "$work/cores")
    if [ -n "$core" ] && [ -n "$kube_node" ] && [ "$kube_node" != "$core" ]; then
        fail "the core services belong to $core (label baetyl.io/core) and have their data there; uninstall the node first"
    fi
    if [ -z "$kube_node" ]; then
        if [ -n "$core" ]; then
            kube_node=$core
        elif [ "$(lines "$work/nodes")" -eq 1 ]; then
            kube_node=$(cut -d' ' -f1 "$work/nodes")
        elif [ "$(lines "$work/planes")" -eq 1 ]; then
            kube_node=$(cat "$work/planes")
        else
            fail "say with --kube-node which machine the core services belong to; there are: $(cut -d' ' -f1 "$work/nodes" | tr '\n' ' ')"
        fi
    fi
    while read -r name arch memory; do
        if [ "$name" = "$kube_node" ]; then
            case $arch in
            amd64 | arm64 | arm) return 0 ;;
            *) fail "$kube_node is a machine of architecture $arch; there are programs for amd64, arm64 and arm" ;;
            esac
        fi
    done <"$work/nodes"
    fail "the cluster has no node $kube_node; there are: $(cut -d' ' -f1 "$work/nodes" | tr '\n' ' ')"
}

# mebibytes QUANTITY: nothing when it is none.
mebibytes() {
    case ${1%[KMG]i} in
    '' | *[!0-9]*) return 0 ;;
    esac
    case $1 in
    *Ki) echo $((${1%Ki} / 1024)) ;;
    *Mi) echo "${1%Mi}" ;;
    *Gi) echo $((${1%Gi} * 1024)) ;;
    *) echo $(($1 / 1048576)) ;;
    esac
}

check_memory() {
    has=$(mebibytes "$memory")
    wants=$(about min-memory-mib)
    if [ -n "$has" ] && [ -n "$wants" ] && [ "$has" -lt "$wants" ]; then
        fail "$kube_node has $has MiB of memory; class $(about class) needs $wants MiB. Use --class with a smaller one"
    fi
}

# exists NAMESPACE KIND NAME
exists() { [ -n "$(kube -n "$1" get "$2" "$3" --ignore-not-found -o name)" ]; }

check_identity() {
    there=$(kube get namespace "$SYSTEM" --ignore-not-found \
        -o jsonpath='{.metadata.annotations.baetyl\.io/node-uid}{" "}{.metadata.annotations.baetyl\.io/node}')
    owner=${there%% *}
    if [ -n "$owner" ] && [ "$owner" != "$uid" ]; then
        fail "this cluster is the node ${there#* } ($owner), not $node ($uid): nothing was changed. To make it another node,
uninstall that one first: baetylctl node uninstall ${there##*/}"
    fi
    activated=
    if exists "$SYSTEM" secret baetyl-core-identity; then activated=yes; fi
    if [ -z "$activated" ] && [ -z "$token" ]; then
        fail "the install token is missing: set BAETYL_INIT__TOKEN; a new install command has one"
    fi
}

# secret_field JSONPATH [-n NAMESPACE]: of the Secret that opens the registry; nothing when it is not there.
secret_field() {
    field=$1
    shift
    kube "$@" get secret "$pull_secret" --ignore-not-found -o "jsonpath=$field" 2>/dev/null || true
}

# What opens the registry is found before anything is changed: in the namespace of the context, or where it shall be.
check_pull_secret() {
    [ -n "$pull_secret" ] || return 0
    for namespace in '' "$SYSTEM" "$USERS"; do
        type=$(secret_field '{.type}' ${namespace:+-n "$namespace"})
        case $type in
        kubernetes.io/dockerconfigjson)
            pull_from=$namespace
            return 0
            ;;
        '') ;;
        *) fail "the Secret $pull_secret has the type $type; a registry is opened by one of type kubernetes.io/dockerconfigjson" ;;
        esac
    done
    fail "the Secret $pull_secret, which opens the registry, is not there. Make it and run this again:
kubectl create secret docker-registry $pull_secret --docker-server=... --docker-username=... --docker-password=..."
}

# --- what is done ---------------------------------------------------------------------------------------------------

put_namespaces() {
    for namespace in "$SYSTEM" "$USERS"; do
        exists default namespace "$namespace" || kube create namespace "$namespace" >/dev/null ||
            fail "the namespace $namespace cannot be made"
    done
    kube annotate namespace "$SYSTEM" --overwrite "baetyl.io/node=$node" "baetyl.io/node-uid=$uid" \
        "baetyl.io/class=$(about class)" "baetyl.io/registry=$(about registry)" "baetyl.io/version=$(about version)" \
        >/dev/null || fail "the namespace $SYSTEM cannot be marked as that of node $node"
}

# Of no use once the node is activated.
put_token() {
    [ -z "$activated" ] || return 0
    printf 'apiVersion: v1\nkind: Secret\nmetadata:\n  name: baetyl-init-token\n  namespace: %s\n  labels:\n    app.kubernetes.io/part-of: baetyl\nstringData:\n  token: %s\n' \
        "$SYSTEM" "$token" | kube apply --server-side --field-manager=baetyl-core --force-conflicts -f - >/dev/null ||
        fail "the Secret baetyl-init-token cannot be written"
}

# A Pod uses Secrets of its own namespace only. What somebody else made there is left as it is; a copy of ours follows its
# original.
put_pull_secret() {
    [ -n "$pull_secret" ] || return 0
    content=$(secret_field '{.data.\.dockerconfigjson}' ${pull_from:+-n "$pull_from"})
    for namespace in "$SYSTEM" "$USERS"; do
        if [ "$namespace" = "$pull_from" ]; then continue; fi
        if exists "$namespace" secret "$pull_secret" &&
            [ "$(secret_field '{.metadata.labels.app\.kubernetes\.io/part-of}' -n "$namespace")" != baetyl ]; then
            continue
        fi
        printf 'apiVersion: v1\nkind: Secret\ntype: kubernetes.io/dockerconfigjson\nmetadata:\n  name: %s\n  namespace: %s\n  labels:\n    app.kubernetes.io/part-of: baetyl\ndata:\n  .dockerconfigjson: %s\n' \
            "$pull_secret" "$namespace" "$content" |
            kube apply --server-side --field-manager=baetyl-core --force-conflicts -f - >/dev/null ||
            fail "the Secret $pull_secret cannot be written to the namespace $namespace"
    done
}

try_apply() { kube apply --server-side --field-manager=baetyl-core "$@" -f "$manifests" >"$work/applied" 2>&1; }

# First as a question to the API server: what it refuses leaves nothing half done. A Job of another version cannot be changed
# and is made anew.
apply_manifests() {
    if ! try_apply --dry-run=server; then
        grep -q 'field is immutable' "$work/applied" || refused
        kube -n "$SYSTEM" delete job baetyl-init --ignore-not-found >/dev/null
        kube -n "$USERS" delete job baetyl-prepare --ignore-not-found >/dev/null
        try_apply --dry-run=server || refused
    fi
    try_apply || refused
}

# An upgrade under way would put other things in the place of what is applied here, or go back from it.
end_upgrade() {
    exists "$SYSTEM" job baetyl-upgrade || exists "$SYSTEM" secret baetyl-core-manifests || return 1
    kube -n "$SYSTEM" delete job baetyl-upgrade --ignore-not-found --cascade=foreground >/dev/null &&
        kube -n "$SYSTEM" delete secret baetyl-core-manifests --ignore-not-found >/dev/null ||
        fail "the upgrade that is under way cannot be ended"
}

refused() {
    cat "$work/applied" >&2
    if grep -q 'conflict with' "$work/applied"; then
        fail "somebody else manages these fields, so they are left as they are. Take that change back and run this again"
    fi
    fail "the cluster does not take the manifests; its words are above"
}

# --- waiting --------------------------------------------------------------------------------------------------------

# Of the Job: complete, failed, or nothing.
job_state() {
    conditions=$(kube -n "$SYSTEM" get job baetyl-init --ignore-not-found \
        -o jsonpath='{range .status.conditions[*]}{.type}={.status} {end}' 2>/dev/null || true)
    case " $conditions" in
    *' Complete=True '*) echo complete ;;
    *' Failed=True '*) echo failed ;;
    esac
}

# Names of what is not there yet, in one line.
missing_services() {
    kube -n "$SYSTEM" get deployments -l app.kubernetes.io/part-of=baetyl \
        -o jsonpath='{range .items[*]}{.metadata.name}{" "}{.status.availableReplicas}{"\n"}{end}' \
        >"$work/deployments" 2>/dev/null || say API-server >"$work/deployments"
    while read -r name available; do
        case $available in
        '' | 0) printf '%s ' "$name" ;;
        esac
    done <"$work/deployments"
}

explain() {
    say "What the cluster says:" >&2
    for namespace in "$SYSTEM" "$USERS"; do
        kube -n "$namespace" get pods -l app.kubernetes.io/part-of=baetyl \
            -o jsonpath='{range .items[*]}{.metadata.name}{": "}{.status.phase}{range .status.conditions[?(@.status=="False")]}{" "}{.reason}{" "}{.message}{end}{range .status.containerStatuses[*]}{" "}{.state.waiting.reason}{" "}{.state.waiting.message}{" "}{.state.terminated.reason}{end}{"\n"}{end}' >&2 || true
        kube -n "$namespace" get events --field-selector type=Warning --sort-by=.lastTimestamp \
            -o jsonpath='{range .items[*]}{.involvedObject.kind}{"/"}{.involvedObject.name}{": "}{.reason}{": "}{.message}{"\n"}{end}' 2>/dev/null |
            tail -n 10 >&2 || true
    done
    kube -n "$SYSTEM" logs job/baetyl-init --tail=10 >&2 2>/dev/null || true
}

# Counted, not read from the clock: that of a new machine may jump.
another_look() {
    waited=$((waited + (poll > 0 ? poll : 1)))
    if [ "$waited" -gt "$timeout" ]; then
        explain
        fail "$1 within $timeout seconds; nothing is lost: mend what is said above and run this again"
    fi
    sleep "$poll"
}

tell() {
    if [ "$1" != "$told" ]; then
        say "$1"
        told=$1
    fi
}

wait_services() {
    while :; do
        state=$(job_state)
        missing=$(missing_services)
        if [ "$state" = failed ]; then
            explain
            fail "the Job baetyl-init gave up. Mend what is said above, then: kubectl -n $SYSTEM delete job baetyl-init, and run this again"
        fi
        if [ "$state" = complete ] && [ -z "$missing" ]; then return 0; fi
        tell "waiting for ${missing:-the Job baetyl-init, which activates the node}"
        another_look "the core services are not ready"
    done
}

wait_online() {
    while :; do
        ready=
        if fetch /v1/init/kube/state "$work/state"; then
            ready=$(sed -n 's/.*"ready":"\([a-z]*\)".*/\1/p' "$work/state")
        fi
        if [ "$ready" = online ]; then return 0; fi
        if [ -z "$ready" ] && [ -n "$activated" ]; then
            say "the cloud was not asked whether the node is online: $(cat "$work/error")"
            return 0
        fi
        tell "waiting for the cloud to see the node (${ready:-$(cat "$work/error")})"
        another_look "the node is not online"
    done
}

main() {
    read_arguments "$@"
    work=$(mktemp -d) || fail "no temporary directory can be made"
    trap 'rm -rf "$work"' EXIT
    trap 'exit 1' HUP INT TERM
    mkdir "$work/none"
    find_kubectl
    check_version
    choose_node
    get_manifests
    check_memory
    check_identity
    check_pull_secret
    say "node $node, version $(about version), class $(about class), on $kube_node ($arch) of Kubernetes $version"
    if [ -n "$dry_run" ]; then
        kube apply --dry-run=client -o name -f "$manifests" || fail "the manifests cannot be read"
        say "nothing was changed (--dry-run)"
        return 0
    fi
    if [ -n "$bundle" ]; then import_images; fi
    kube label node "$kube_node" --overwrite baetyl.io/core=true >/dev/null || fail "$kube_node cannot be labelled"
    put_namespaces
    put_pull_secret
    put_token
    end_upgrade || true
    apply_manifests
    # The engine of before may have begun one in between.
    if end_upgrade; then apply_manifests; fi
    say "everything is applied"
    if [ -z "$waits" ]; then return 0; fi
    waited=0
    told=
    wait_services
    say "the core services are ready"
    wait_online
    kube -n "$SYSTEM" delete secret baetyl-init-token --ignore-not-found >/dev/null || true
    say "node $node is installed"
}

main "$@"
