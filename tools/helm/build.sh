#!/bin/sh
# build.sh OUT: builds Helm for the image baetyl-helm from the modules that go.mod pins; OUT is an absolute path. For
# another machine than this one set GOARCH (and GOARM). `cargo xtask images` and the Dockerfile both call it.
set -eu
cd "$(dirname "$0")"
version=$(go list -m -f '{{.Version}}' helm.sh/helm/v3)
# The version of Kubernetes that templates see where no cluster is asked: that of the client Helm is built with, v0.37 = 1.37.
minor=$(go list -m -f '{{.Version}}' k8s.io/client-go | cut -d. -f2)
ld="-s -w -X helm.sh/helm/v3/internal/version.version=$version -X helm.sh/helm/v3/internal/version.metadata="
for package in lint/rules chartutil; do
  ld="$ld -X helm.sh/helm/v3/pkg/$package.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/$package.k8sVersionMinor=$minor"
done
CGO_ENABLED=0 GOOS=linux GOFLAGS=-mod=readonly \
  go build -trimpath -buildvcs=false -ldflags "$ld" -o "$1" helm.sh/helm/v3/cmd/helm
