# Sourced inside the bed's namespaces by boot.sh and by the faults: how each program of the bed is started.
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
L=$BED/log

# start NAME COMMAND...: in the background, with a log and a file that holds its pid (as seen inside the bed).
start() {
  local name=$1; shift
  setsid "$@" >> "$L/$name.log" 2>&1 < /dev/null &
  echo $! > "$BED/pid.$name"
}

# stop NAME...: kill -9, and waits until they are gone.
stop() {
  local name pid
  for name; do
    pid=$(cat "$BED/pid.$name")
    kill -9 "$pid" 2> /dev/null || true
    while [ -e "/proc/$pid" ] && ! grep -q '^State:.Z' "/proc/$pid/status" 2> /dev/null; do sleep .05; done
  done
}

wait_api() { for _ in $(seq 600); do curl -sfk -m 2 --noproxy '*' "https://$API_IP:6443/readyz" > /dev/null && break; sleep .1; done; }

start_registry() {
  start registry "$KBED/kbed" registry --dir "$BED/registry" --credentials "$BED/registry-credentials" \
    --listen "$NODE_IP:5000" --listen-closed "$NODE_IP:5001"
}

start_etcd() {
  start etcd "$KBED/kbed" etcd --name bed --data-dir "$BED/etcd" --unsafe-no-fsync --log-level warn \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
    --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
    --initial-cluster bed=http://127.0.0.1:2380
}

start_apiserver() {
  start kube-apiserver "$KBED/kbed" kube-apiserver --etcd-servers http://127.0.0.1:2379 \
    --advertise-address "$NODE_IP" --secure-port 6443 --service-cluster-ip-range "$SERVICE_CIDR" --allow-privileged \
    --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction --client-ca-file "$PKI/ca.crt" \
    --tls-cert-file "$PKI/apiserver.crt" --tls-private-key-file "$PKI/apiserver.key" \
    --service-account-issuer https://kubernetes.default.svc.cluster.local \
    --service-account-key-file "$PKI/sa.pub" --service-account-signing-key-file "$PKI/sa.key" \
    --kubelet-client-certificate "$PKI/apiserver-kubelet-client.crt" --kubelet-client-key "$PKI/apiserver-kubelet-client.key" \
    --kubelet-certificate-authority "$PKI/ca.crt" --kubelet-preferred-address-types InternalIP \
    --requestheader-client-ca-file "$PKI/front-proxy-ca.crt" --requestheader-allowed-names front-proxy-client \
    --requestheader-username-headers X-Remote-User --requestheader-group-headers X-Remote-Group \
    --requestheader-extra-headers-prefix X-Remote-Extra- \
    --proxy-client-cert-file "$PKI/front-proxy-client.crt" --proxy-client-key-file "$PKI/front-proxy-client.key" \
    --audit-policy-file "$HERE/audit.yaml" --audit-log-path "$BED/audit.log" --audit-log-maxsize 2000 \
    --enable-aggregator-routing --profiling=false $APISERVER_ARGS
}

# These two give up at once when the default RBAC rules are not there yet: call wait_api before.
start_controller_manager() {
  start kube-controller-manager "$KBED/kbed" kube-controller-manager --kubeconfig "$PKI/controller-manager.kubeconfig" \
    --leader-elect=false --kube-api-qps 200 --kube-api-burst 400 --bind-address 127.0.0.1 \
    --use-service-account-credentials --service-account-private-key-file "$PKI/sa.key" \
    --root-ca-file "$PKI/ca.crt" --cluster-signing-cert-file "$PKI/ca.crt" --cluster-signing-key-file "$PKI/ca.key" \
    --authentication-kubeconfig "$PKI/controller-manager.kubeconfig" --authorization-kubeconfig "$PKI/controller-manager.kubeconfig" \
    --node-monitor-grace-period 20s --flex-volume-plugin-dir "$BED/flex" --profiling=false $CONTROLLER_MANAGER_ARGS
}
start_scheduler() {
  start kube-scheduler "$KBED/kbed" kube-scheduler --kubeconfig "$PKI/scheduler.kubeconfig" --leader-elect=false \
    --bind-address 127.0.0.1 --authentication-kubeconfig "$PKI/scheduler.kubeconfig" \
    --authorization-kubeconfig "$PKI/scheduler.kubeconfig" --profiling=false
}

start_containerd() {
  start containerd containerd -c "$BED/ctd/config.toml"
  for _ in $(seq 100); do CONTAINERD_ADDRESS=/run/ctd.sock ctr version > /dev/null 2>&1 && break; sleep .1; done
}

start_kubelet() {
  start kubelet "$KBED/kbed" kubelet --config "$BED/kubelet.yaml" --kubeconfig "$PKI/kubelet.kubeconfig" \
    --root-dir "$BED/kubelet" --cert-dir "$BED/kubelet/pki" --hostname-override "$NODE_NAME" --node-ip "$NODE_IP" $KUBELET_ARGS
}

start_proxy() { start kube-proxy "$KBED/kbed" kube-proxy --config "$BED/proxy.yaml"; }
