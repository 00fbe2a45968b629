# Sourced by the other scripts. BED is the bed's directory: short (sockets lie in it), absolute, throw-away.
: "${BED:?set BED to an absolute directory for the test bed}"
case $BED in /*) ;; *) echo "BED must be an absolute path, not $BED" >&2; exit 1 ;; esac
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# A bed that stands knows its own settings; they win over what the environment says.
[ ! -e "$BED/settings" ] || . "$BED/settings"
KBED=${KBED:-}                             # directory of the programs kbed and pause; up.sh asks build.sh for it
NODE_NAME=${NODE_NAME:-edge0}
NODE_IP=${NODE_IP:-10.250.0.1}             # in 10.250.0.0/24; must differ between beds that link.sh joins
POD_CIDR=${POD_CIDR:-10.244.0.0/24}        # so must this, inside CLUSTER_CIDR
CLUSTER_CIDR=${CLUSTER_CIDR:-10.244.0.0/16}
JOIN=${JOIN:-}                             # directory of another bed: be a further node of it
CONTROL_PLANE_ONLY=${CONTROL_PLANE_ONLY:-} # not empty: no node, no containerd, no registry
METRICS=${METRICS:-}                       # not empty: metrics-server
API_IP=${API_IP:-$NODE_IP}
if [ -n "$JOIN" ]; then
  [ -e "$JOIN/api-ip" ] || { echo "JOIN names $JOIN, but no bed is up there" >&2; exit 1; }
  API_IP=$(cat "$JOIN/api-ip")
fi
SERVICE_CIDR=${SERVICE_CIDR:-10.96.0.0/16}
API_SERVICE_IP=${API_SERVICE_IP:-10.96.0.1}
DNS_IP=${DNS_IP:-10.96.0.10}
PROXY_MODE=${PROXY_MODE:-nftables}
CNI_BIN=${CNI_BIN:-/usr/lib/cni}
APISERVER_ARGS=${APISERVER_ARGS:-}
CONTROLLER_MANAGER_ARGS=${CONTROLLER_MANAGER_ARGS:-}
KUBELET_ARGS=${KUBELET_ARGS:-}
CGROUP=kbed-$(basename "$BED")-$(printf %s "$BED" | cksum | cut -d" " -f1)   # beds of one name in two places stay apart
PKI=$BED/pki

# Directories of the bed's own cgroup: one, or one in every hierarchy of version 1.
cgroups() {
  if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    echo "/sys/fs/cgroup/$CGROUP"
  else
    for c in /sys/fs/cgroup/*/; do [ ! -d "$c" ] || echo "$c$CGROUP"; done
  fi
}
