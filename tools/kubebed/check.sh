#!/bin/bash
# check.sh: does the bed of $BED do what a product on it needs? Prints one line for each thing; last line 'N passed, N failed'.
set -uo pipefail
. "$(dirname "$0")/env.sh"
pass=0 fail=0
k() { "$BED/kubectl" -n demo "$@"; }
in_web() { k exec deploy/web -c web -- /bin/sh -c "$1"; }
t() { # NAME COMMAND...: passes when the command does
  local n=$1 out s; shift; s=${EPOCHREALTIME/[.,]/}
  if out=$("$@" 2>&1); then pass=$((pass + 1)); echo "ok   $n ($(((${EPOCHREALTIME/[.,]/} - s) / 1000)) ms)"
  else fail=$((fail + 1)); echo "FAIL $n: $(tail -3 <<< "$out" | tr '\n' ' ' | cut -c1-300)"; fi
}
has() { local want=$1 got; shift; got=$("$@" 2>&1); grep -q -- "$want" <<< "$got" || { echo "$got"; return 1; }; }
until_has() { local want=$1; shift; for _ in $(seq 100); do has "$want" "$@" > /dev/null && return 0; sleep .3; done; "$@"; return 1; }
portforward() {
  "$BED/kubectl" -n demo port-forward svc/web 18081:80 > "$BED/pf.log" 2>&1 & local p=$! r=1
  for _ in $(seq 30); do sleep .2; "$BED/in" curl -sf --noproxy '*' http://127.0.0.1:18081/ | grep -q web- && r=0 && break; done; kill $p; return $r
}
apply() { sed "s|@BED@|$BED|; s|@KBED@|$KBED|" "$HERE/demo.yaml" | "$BED/kubectl" apply -f -; }
t apply apply
t 'deployment ready' k rollout status deploy/web --timeout=60s
t 'daemonset ready (hostNetwork)' k rollout status ds/agent --timeout=60s
t 'statefulset ready (hostPath PV bound)' k rollout status sts/db --timeout=60s
t 'job complete (ClusterIP, DNS, token from inside a pod)' k wait --for=condition=complete job/once --timeout=60s
t 'logs' has 'kubernetes.default.svc' k logs job/once
t 'logs -f' has tick timeout 3 "$BED/kubectl" -n demo logs -f ds/agent
t 'exec, ConfigMap' has hello-from-configmap in_web 'cat /conf/greeting'
t 'Secret volume and env' has 's3cret s3cret' in_web 'echo $(cat /sec/word) $WORD'
t 'not root, no capabilities, seccomp' has 'CapBnd:.0*$' in_web 'id -u | grep -q 65532 && grep -q "Seccomp:.2" /proc/self/status && grep CapBnd /proc/self/status'
t 'read-only root' has 'Read-only file system' in_web 'touch /x'
t 'memory limit' has 33554432 cat $(for c in $(cgroups); do find "$c/kubepods" -name memory.limit_in_bytes -o -name memory.max; done 2>/dev/null)
t 'in-cluster client with its service account' until_has 'system:serviceaccount:demo:default' k logs job/whoami
t 'port-forward to a service' portforward
t 'NodePort' has web- "$BED/in" curl -sf --noproxy '*' "http://$NODE_IP:30080/"
t 'ClusterIP from the node' has web- "$BED/in" curl -sf --noproxy '*' "http://$(k get svc web -o jsonpath='{.spec.clusterIP}')/"
t 'RBAC denies' has '^no$' k auth can-i get secrets --as system:serviceaccount:demo:default
t 'token request + self subject review' has 'system:serviceaccount:demo:default' k --token "$(k create token default)" --server "https://$NODE_IP:6443" auth whoami --kubeconfig /dev/null --certificate-authority "$PKI/ca.crt"
t 'scale' k scale deploy/web --replicas=3
t 'rolled out' k rollout status deploy/web --timeout=60s
k patch configmap conf --type merge -p '{"data":{"greeting":"changed"}}' > /dev/null
t 'rolling update' k set env deploy/web NEW=1
t 'rolled out again' k rollout status deploy/web --timeout=90s
t 'crash is restarted' bash -c "$BED/kubectl -n demo exec ds/agent -- /bin/busybox kill -TERM 1"
t 'restart count' until_has '^1$' k get pod -l app=agent -o 'jsonpath={.items[0].status.containerStatuses[0].restartCount}'
k run oom --image=localhost/box:1 --image-pull-policy=Never --restart=Never --overrides='{"spec":{"containers":[{"name":"oom","image":"localhost/box:1","imagePullPolicy":"Never","resources":{"limits":{"memory":"16Mi"}},"command":["/bin/sh","-c","busybox tail /dev/zero"]}]}}' > /dev/null
t 'OOMKilled' until_has OOMKilled k get pod oom -o 'jsonpath={.status.containerStatuses[0].state.terminated.reason}'
k create -f - > /dev/null <<'YAML'
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: { name: things.demo.example.com }
spec:
  group: demo.example.com
  scope: Namespaced
  names: { kind: Thing, plural: things, singular: thing }
  versions: [{ name: v1, served: true, storage: true, subresources: { status: {} }, schema: { openAPIV3Schema: { type: object, properties: { spec: { type: object, properties: { n: { type: integer, minimum: 1 } } }, status: { type: object, x-kubernetes-preserve-unknown-fields: true } } } } }]
YAML
t 'CRD established' "$BED/kubectl" wait --for=condition=Established crd/things.demo.example.com --timeout=20s
thing() { printf 'apiVersion: demo.example.com/v1\nkind: Thing\nmetadata: {name: %s}\nspec: {n: %s}\n' "$1" "$2" | k apply --server-side -f -; }
t 'custom resource' until_has serverside-applied thing a 1
t 'schema rejects' has 'greater than or equal to 1' thing b 0
t 'namespace goes away' "$BED/kubectl" delete ns demo --timeout=90s
"$BED/kubectl" delete pv/pv0 crd/things.demo.example.com > /dev/null 2>&1
echo "$pass passed, $fail failed"
[ $fail = 0 ]
