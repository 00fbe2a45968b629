#!/bin/bash
# Makes the bed's certificates and kubeconfigs under $BED/pki (about 1 s).
set -euo pipefail
. "$(dirname "$0")/env.sh"
umask 077
mkdir -p "$PKI"; cd "$PKI"
key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:prime256v1 -out "$1.key" 2>/dev/null; }
ca() {
  key "$1"
  openssl req -x509 -new -key "$1.key" -out "$1.crt" -days 3650 -subj "/CN=$1" \
    -addext keyUsage=critical,keyCertSign,cRLSign
}
leaf() { # NAME CA SUBJECT [subjectAltName]
  key "$1"
  printf 'basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n%s\n' "${4:+subjectAltName=$4}" > "$1.ext"
  openssl req -new -key "$1.key" -subj "$3" -out "$1.csr"
  openssl x509 -req -in "$1.csr" -CA "$2.crt" -CAkey "$2.key" -CAcreateserial -days 3650 -out "$1.crt" -extfile "$1.ext" 2>/dev/null
  rm -f "$1.csr" "$1.ext"
}
kubeconfig() { # NAME
  cat > "$1.kubeconfig" <<YAML
apiVersion: v1
kind: Config
clusters: [{name: bed, cluster: {server: "https://$API_IP:6443", certificate-authority-data: $(base64 -w0 ca.crt)}}]
users: [{name: $1, user: {client-certificate-data: $(base64 -w0 "$1.crt"), client-key-data: $(base64 -w0 "$1.key")}}]
contexts: [{name: bed, context: {cluster: bed, user: $1}}]
current-context: bed
YAML
}
if [ -n "$JOIN" ]; then
  cp "$JOIN"/pki/{ca.crt,ca.key,ca.srl,admin.kubeconfig,proxy.kubeconfig} .
  leaf kubelet ca "/O=system:nodes/CN=system:node:$NODE_NAME" "DNS:$NODE_NAME,IP:$NODE_IP"; kubeconfig kubelet
  exit
fi
ca ca; ca front-proxy-ca; key sa; openssl pkey -in sa.key -pubout -out sa.pub
leaf apiserver ca /CN=kube-apiserver "IP:$NODE_IP,IP:127.0.0.1,IP:$API_SERVICE_IP,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
leaf apiserver-kubelet-client ca /O=system:masters/CN=kube-apiserver-kubelet-client
leaf front-proxy-client front-proxy-ca /CN=front-proxy-client
leaf admin ca /O=system:masters/CN=admin; kubeconfig admin
leaf controller-manager ca /CN=system:kube-controller-manager; kubeconfig controller-manager
leaf scheduler ca /CN=system:kube-scheduler; kubeconfig scheduler
leaf proxy ca /CN=system:kube-proxy; kubeconfig proxy
leaf kubelet ca "/O=system:nodes/CN=system:node:$NODE_NAME" "DNS:$NODE_NAME,IP:$NODE_IP"; kubeconfig kubelet
