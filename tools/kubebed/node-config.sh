#!/bin/bash
# Writes what containerd, CNI, kubelet and kube-proxy of the bed read.
set -euo pipefail
. "$(dirname "$0")/env.sh"
mkdir -p "$BED/ctd" "$BED/cni.d" "$BED/kubelet" "$BED/pod-logs" "$BED/manifests"
cat > "$BED/cni.d/10-bed.conflist" <<JSON
{ "cniVersion": "0.4.0", "name": "bed", "plugins": [
  { "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
    "ipam": { "type": "host-local", "ranges": [[{ "subnet": "$POD_CIDR" }]], "routes": [{ "dst": "0.0.0.0/0" }], "dataDir": "$BED/cni-ipam" } },
  { "type": "portmap", "capabilities": { "portMappings": true }, "snat": true } ] }
JSON
cat > "$BED/ctd/config.toml" <<TOML
version = 2
root = "$BED/ctd/root"
state = "/run/ctd"
[grpc]
  address = "/run/ctd.sock"
[ttrpc]
  address = "/run/ctd.sock.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "$BED/ctd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true
  disable_apparmor = true
  tolerate_missing_hugetlb_controller = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "$BED/ctd/registries"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "$CNI_BIN"
    conf_dir = "$BED/cni.d"
TOML
# The bed's registry speaks plain HTTP at both its ports.
for registry in "$API_IP:5000" "$API_IP:5001"; do
  mkdir -p "$BED/ctd/registries/$registry"
  cat > "$BED/ctd/registries/$registry/hosts.toml" <<TOML
server = "http://$registry"
[host."http://$registry"]
  capabilities = ["pull", "resolve"]
TOML
done
: > "$BED/resolv.conf"
cat > "$BED/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: { anonymous: { enabled: false }, webhook: { enabled: true }, x509: { clientCAFile: "$PKI/ca.crt" } }
authorization: { mode: Webhook }
tlsCertFile: "$PKI/kubelet.crt"
tlsPrivateKeyFile: "$PKI/kubelet.key"
address: 0.0.0.0
cgroupDriver: cgroupfs
cgroupRoot: /$CGROUP
cgroupsPerQOS: true
enforceNodeAllocatable: [pods]
failSwapOn: false
failCgroupV1: false
oomScoreAdj: 0
maxOpenFiles: 20000
maxPods: 250
serializeImagePulls: false
registryPullQPS: 0
containerRuntimeEndpoint: unix:///run/ctd.sock
clusterDNS: ["$DNS_IP"]
clusterDomain: cluster.local
resolvConf: "$BED/resolv.conf"
podLogsDir: "$BED/pod-logs"
staticPodPath: "$BED/manifests"
volumePluginDir: "$BED/kubelet/volumeplugins"
evictionHard: { "memory.available": 100Mi, "nodefs.available": "1%", "imagefs.available": "1%" }
imageGCHighThresholdPercent: 100
nodeStatusUpdateFrequency: 5s
syncFrequency: 10s
YAML
cat > "$BED/proxy.yaml" <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: { kubeconfig: "$PKI/proxy.kubeconfig" }
mode: $PROXY_MODE
clusterCIDR: "$CLUSTER_CIDR"
hostnameOverride: "$NODE_NAME"
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
conntrack: { maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s }
oomScoreAdj: 0
YAML
