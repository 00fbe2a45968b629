#!/bin/bash
# up.sh: from nothing to a ready one-node cluster in $BED, in namespaces of its own. See env.sh for the settings.
set -euo pipefail
. "$(dirname "$0")/env.sh"
[ ! -e "$BED/init.pid" ] || { echo "$BED is already up (or was not taken down)" >&2; exit 1; }
[ -n "$KBED" ] || KBED=$("$HERE/build.sh")
KBED=$(cd "$KBED" && pwd)
mkdir -p "$BED/images"
for v in KBED NODE_NAME NODE_IP POD_CIDR CLUSTER_CIDR JOIN CONTROL_PLANE_ONLY METRICS API_IP SERVICE_CIDR API_SERVICE_IP \
  DNS_IP PROXY_MODE CNI_BIN APISERVER_ARGS CONTROLLER_MANAGER_ARGS KUBELET_ARGS; do
  printf '%s=%q\n' "$v" "${!v}"
done > "$BED/settings"
"$HERE/pki.sh"
if [ -z "$CONTROL_PLANE_ONLY" ]; then
  "$KBED/kbed" image "$BED/images/pause" localhost/pause:1 entry=/pause /pause="$KBED/pause"
  "$KBED/kbed" image "$BED/images/box" localhost/box:1 /bin/busybox=/bin/busybox '/bin/sh->/bin/busybox'
  if [ -n "$JOIN" ]; then
    echo "$BED" >> "$JOIN/joined"
  else
    (umask 077; echo "bed:$(openssl rand -hex 16)" > "$BED/registry-credentials")
  fi
fi

export BED
setsid unshare --net --mount --pid --fork --kill-child --mount-proc --propagation private \
  bash "$HERE/boot.sh" > "$BED/boot.log" 2>&1 < /dev/null &
outer=$!
for _ in $(seq 100); do
  init=$(cat "/proc/$outer/task/$outer/children" 2> /dev/null || true)
  [ -z "$init" ] || break
  sleep .05
done
init=${init// /}
echo "${init:?the bed did not start, see $BED/boot.log}" > "$BED/init.pid"

cat > "$BED/in" <<END
#!/bin/bash
# Runs a command inside the bed's namespaces; KUBECONFIG is the admin's.
export KUBECONFIG=\${KUBECONFIG:-$PKI/admin.kubeconfig} CONTAINERD_ADDRESS=/run/ctd.sock
exec nsenter -t $init --net --mount --pid --wd="\$PWD" -- "\$@"
END
cat > "$BED/kubectl" <<END
#!/bin/bash
# kubectl as the cluster's administrator.
KUBECONFIG=\${KUBECONFIG:-$PKI/admin.kubeconfig} exec nsenter -t $init --net -- $KBED/kbed kubectl "\$@"
END
cat > "$BED/push" <<END
#!/bin/bash
# push LAYOUT_DIR NAME:TAG: an OCI layout directory into the bed's registry.
exec nsenter -t $init --net -- $KBED/kbed push "\$1" "$API_IP:5000/\$2"
END
chmod +x "$BED/in" "$BED/kubectl" "$BED/push"
echo "$API_IP" > "$BED/api-ip"; echo "$NODE_IP" > "$BED/node-ip"; echo "$POD_CIDR" > "$BED/pod-cidr"; echo "$NODE_NAME" > "$BED/node-name"
[ -z "$JOIN" ] || "$HERE/link.sh" "$JOIN" "$BED"

# Names of programs of the bed that are no more.
ended() { "$BED/in" bash -c 'for f in "$0"/pid.*; do [ -e "/proc/$(cat "$f")" ] || echo "${f##*/pid.}"; done' "$BED" 2> /dev/null; }
wait_for() { # WHAT SECONDS COMMAND...
  local what=$1 end=$((SECONDS + $2)) last gone; shift 2
  while :; do
    if last=$("$@" 2>&1); then return 0; fi
    [ -e "/proc/$init" ] || { echo "the bed ended while it came up; see $BED/boot.log" >&2; return 1; }
    gone=$(ended | head -1 || true)
    [ -z "$gone" ] || { echo "$gone has ended; the end of its log:" >&2; tail -n 5 "$BED/log/$gone.log" >&2; return 1; }
    [ $SECONDS -lt $end ] || { echo "not ready: $what; last answer: $last; logs: $BED/log" >&2; return 1; }
    sleep .2
  done
}
wait_for kube-apiserver 120 "$BED/kubectl" get --raw /readyz
wait_for 'default service account' 60 "$BED/kubectl" get serviceaccount default
if [ -z "$CONTROL_PLANE_ONLY" ]; then
  wait_for 'box in the registry' 30 "$BED/push" "$BED/images/box" box:1
  wait_for node 120 "$BED/kubectl" wait --for=condition=Ready "node/$NODE_NAME" --timeout=1s
fi
if [ -z "$CONTROL_PLANE_ONLY$JOIN" ]; then
  addon() { sed -e "s|@KBED@|$KBED|; s|@DNS_IP@|$DNS_IP|" "$HERE/$1" | "$BED/kubectl" apply -f - > /dev/null; }
  addon addons.yaml
  [ -z "$METRICS" ] || addon metrics.yaml
  wait_for coredns 120 "$BED/kubectl" -n kube-system rollout status deployment/coredns --timeout=1s
fi
echo "up: $BED/kubectl ..., $BED/in COMMAND, $BED/push LAYOUT_DIR NAME:TAG"
