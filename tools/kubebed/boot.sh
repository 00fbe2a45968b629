#!/bin/bash
# PID 1 of the bed: runs inside the new network, mount and pid namespaces that up.sh makes.
set -uo pipefail
. "$(dirname "$0")/components.sh"
cd "$BED" || exit
mkdir -p "$L"

# --- mounts that only the bed sees -----------------------------------------------------------
for d in /run /var/lib/kubelet /var/lib/cni /var/log/pods /var/log/containers; do mkdir -p $d; mount -t tmpfs tmpfs $d; done
mkdir -p /run/netns /run/lock
# A disk of this node: what core services and applications keep on their machine.
mkdir -p "$BED/lib" /var/lib/baetyl; mount --bind "$BED/lib" /var/lib/baetyl
mount --make-rshared /
# The kubelet insists on these machine-wide settings: give it files to write to instead. boot_id is one, too, so that
# a reboot of the bed's node looks like one.
for kv in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 kernel/keys/root_maxkeys=1000000 \
  kernel/keys/root_maxbytes=25000000 kernel/random/boot_id="$(cat /proc/sys/kernel/random/uuid)"; do
  f=$BED/sysctl/${kv%=*}; mkdir -p "${f%/*}"; echo "${kv#*=}" > "$f"; mount --bind "$f" "/proc/sys/${kv%=*}"
done

# --- network ---------------------------------------------------------------------------------
# The API server may not advertise a loopback address: a bridge without ports carries the node's.
ip link set lo up
ip link add node0 type bridge; ip addr add "$NODE_IP/24" dev node0; ip link set node0 up
ip route add default dev node0
echo 1 > /proc/sys/net/ipv4/ip_forward

# --- control plane ---------------------------------------------------------------------------
if [ -z "$JOIN" ]; then
  [ -n "$CONTROL_PLANE_ONLY" ] || start_registry
  start_etcd
  start_apiserver
  wait_api
  start_controller_manager
  start_scheduler
fi

# --- node ------------------------------------------------------------------------------------
if [ -z "$CONTROL_PLANE_ONLY" ]; then
  "$HERE/node-config.sh"
  start_containerd
  for i in "$BED"/images/*/; do
    tar -C "$i" -c . | CONTAINERD_ADDRESS=/run/ctd.sock ctr -n k8s.io images import - >> "$L/images.log" 2>&1
  done
  # A cgroup of our own in every hierarchy, so that the machine's own stay untouched.
  for c in $(cgroups); do
    mkdir -p "$c"
    for f in cpuset.cpus cpuset.mems; do [ ! -f "${c%/*}/$f" ] || cat "${c%/*}/$f" > "$c/$f"; done
  done
  [ -z "$JOIN" ] || wait_api
  start_kubelet
  start_proxy
fi
touch "$BED/booted"
# Stay and reap: every process of the bed ends when this one does.
while :; do sleep 3600 & wait $!; done
