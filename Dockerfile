# The images of Baetyl-rs: one target for each service and runtime.
#
#   docker buildx build --target baetyl-node --platform linux/amd64,linux/arm64,linux/arm/v7 \
#     --build-arg VERSION=0.1.0 --build-arg REVISION="$(git rev-parse HEAD)" -t registry.example/baetyl-node:0.1.0 .
#
# BINARIES=builder compiles the programs here (PROGRAMS says which). BINARIES=prebuilt takes those that
# `cargo xtask images` left in target/images/prebuilt. docs/runbooks/images.md tells more.

ARG BINARIES=builder
ARG RUST_IMAGE=docker.io/library/rust:1.95-bookworm
ARG PYTHON_IMAGE=docker.io/library/python:3.13-slim-bookworm
ARG GO_IMAGE=docker.io/library/golang:1.26-bookworm

# Compiles on the machine that builds, for the platform that is asked for.
FROM --platform=$BUILDPLATFORM ${RUST_IMAGE} AS builder
ARG TARGETARCH
ARG TARGETVARIANT
ARG PROFILE=release
ARG PROGRAMS="baetyl-cloud baetyl-init baetyl-node baetyl-sync baetyl-engine baetyl-function-proxy baetyl-edge baetyl-shim baetyl-runtime-python baetyl-runtime-echo baetylctl"
WORKDIR /src
COPY Cargo.toml Cargo.lock clippy.toml ./
COPY .cargo .cargo
COPY manifests manifests
COPY proto proto
COPY services services
COPY tests tests
COPY tools tools
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target,id=baetyl-${TARGETARCH}${TARGETVARIANT} \
    set -eu; \
    case "${TARGETARCH}${TARGETVARIANT}" in \
        amd64) debian=amd64 triple=x86_64-unknown-linux-gnu gcc=x86_64-linux-gnu-gcc ;; \
        arm64*) debian=arm64 triple=aarch64-unknown-linux-gnu gcc=aarch64-linux-gnu-gcc ;; \
        armv7) debian=armhf triple=armv7-unknown-linux-gnueabihf gcc=arm-linux-gnueabihf-gcc ;; \
        *) echo "no image is built for ${TARGETARCH}${TARGETVARIANT}" >&2; exit 1 ;; \
    esac; \
    if [ "$(dpkg --print-architecture)" != "${debian}" ]; then \
        apt-get update -q; \
        apt-get install -y -q --no-install-recommends "crossbuild-essential-${debian}"; \
        rustup target add "${triple}"; \
        lower="$(echo "${triple}" | tr - _)"; \
        export "CC_${lower}=${gcc}" "CARGO_TARGET_$(echo "${lower}" | tr a-z A-Z)_LINKER=${gcc}"; \
    fi; \
    export RUSTFLAGS="-Ctarget-feature=+crt-static --remap-path-prefix=/src=/baetyl --remap-path-prefix=/usr/local/cargo=/cargo"; \
    # GNU's linker breaks programs for this machine that have more than 16 MiB of code.
    if [ "${debian}" = armhf ]; then \
        command -v ld.lld > /dev/null || { apt-get update -q; apt-get install -y -q --no-install-recommends lld; }; \
        ln -sf "$(command -v ld.lld)" "/usr/local/bin/${gcc%-gcc}-ld.lld"; \
        export RUSTFLAGS="${RUSTFLAGS} -Clink-arg=-fuse-ld=lld"; \
    fi; \
    build() { cargo build --locked --profile "${PROFILE}" --target "${triple}" "$@"; }; \
    # baetyl-edge alone: together with the others it would get the features of their dependencies, too.
    together=; alone=; \
    for program in ${PROGRAMS}; do \
        case "${program}" in \
            baetyl-edge) alone="-p baetyl-edge --bin baetyl-edge" ;; \
            baetyl-shim) together="${together} -p baetyl-runtime-native --bin baetyl-shim" ;; \
            *) together="${together} -p ${program} --bin ${program}" ;; \
        esac; \
    done; \
    [ -z "${together}" ] || build ${together}; \
    [ -z "${alone}" ] || build ${alone}; \
    mkdir -p /out/bin /out/rootfs/etc /out/rootfs/tmp /out/rootfs/var/lib; \
    for program in ${PROGRAMS}; do cp "target/${triple}/${PROFILE}/${program}" /out/bin/; done; \
    printf 'root:x:0:0:root:/:/sbin/nologin\nbaetyl:x:65532:65532:baetyl:/var/lib/baetyl:/sbin/nologin\n' > /out/rootfs/etc/passwd; \
    printf 'root:x:0:\nbaetyl:x:65532:\n' > /out/rootfs/etc/group; \
    chmod 1777 /out/rootfs/tmp

# Programs that were compiled before: target/images/prebuilt/<architecture>/{bin,rootfs}.
FROM scratch AS prebuilt
ARG TARGETARCH
ARG TARGETVARIANT
COPY target/images/prebuilt/${TARGETARCH}${TARGETVARIANT} /out

FROM ${BINARIES} AS binaries

# Helm is optional and no program of ours: it is compiled for the target baetyl-helm alone (PROGRAMS= there, to compile
# nothing else).
FROM --platform=$BUILDPLATFORM ${GO_IMAGE} AS builder-helm
ARG TARGETARCH
ARG TARGETVARIANT
# Where modules come from; Go's own default unless it is given.
ARG GOPROXY
WORKDIR /src/tools/helm
COPY tools/helm .
RUN --mount=type=cache,target=/go/pkg/mod \
    --mount=type=cache,target=/go/build \
    GOCACHE=/go/build GOARCH="${TARGETARCH}" GOARM="${TARGETVARIANT#v}" ./build.sh /out/bin/helm

FROM scratch AS prebuilt-helm
ARG TARGETARCH
ARG TARGETVARIANT
COPY target/images/prebuilt/${TARGETARCH}${TARGETVARIANT}/bin/helm /out/bin/

FROM ${BINARIES}-helm AS helm

# What all services have: nothing but a user, a directory for data, and labels.
FROM scratch AS service
COPY --from=binaries /out/rootfs /
USER 65532:65532
WORKDIR /var/lib/baetyl
WORKDIR /
ENV PATH=/usr/bin
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.source="https://github.com/baetyl/baetyl-rs" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

FROM service AS baetyl-cloud
LABEL org.opencontainers.image.title="Baetyl cloud" \
      org.opencontainers.image.description="Cloud management suite: resources, nodes, activation, links"
COPY --from=binaries /out/bin/baetyl-cloud /usr/bin/
ENTRYPOINT ["/usr/bin/baetyl-cloud"]
CMD ["serve"]

FROM service AS baetyl-init
LABEL org.opencontainers.image.title="Baetyl init" \
      org.opencontainers.image.description="Activates an edge node and hands its identity to sync"
COPY --from=binaries /out/bin/baetyl-init /usr/bin/
ENTRYPOINT ["/usr/bin/baetyl-init"]
CMD ["run"]

FROM service AS baetyl-node
LABEL org.opencontainers.image.title="Baetyl node" \
      org.opencontainers.image.description="Owner of the node shadow: desire ledger, properties, node information"
COPY --from=binaries /out/bin/baetyl-node /usr/bin/
ENTRYPOINT ["/usr/bin/baetyl-node"]
CMD ["run"]

FROM service AS baetyl-sync
LABEL org.opencontainers.image.title="Baetyl sync" \
      org.opencontainers.image.description="The link of an edge node to its cloud and the content store"
COPY --from=binaries /out/bin/baetyl-sync /usr/bin/
ENTRYPOINT ["/usr/bin/baetyl-sync"]
CMD ["run"]

FROM service AS baetyl-engine
LABEL org.opencontainers.image.title="Baetyl engine" \
      org.opencontainers.image.description="Reconciler of an edge node: makes what is desired run, watches it, undoes what fails"
COPY --from=binaries /out/bin/baetyl-engine /usr/bin/
ENTRYPOINT ["/usr/bin/baetyl-engine"]
CMD ["run"]

FROM service AS baetyl-function-proxy
LABEL org.opencontainers.image.title="Baetyl function proxy" \
      org.opencontainers.image.description="Function proxy: HTTP and gRPC in, registered runtimes out"
COPY --from=binaries /out/bin/baetyl-function-proxy /usr/bin/
ENTRYPOINT ["/usr/bin/baetyl-function-proxy"]
CMD ["run"]

FROM service AS baetyl-edge
LABEL org.opencontainers.image.title="Baetyl edge" \
      org.opencontainers.image.description="All edge roles in one process, for native mode without Kubernetes"
COPY --from=binaries /out/bin/baetyl-edge /out/bin/baetyl-init /out/bin/baetyl-shim /usr/bin/
ENTRYPOINT ["/usr/bin/baetyl-edge"]
CMD ["run"]

FROM service AS baetyl-runtime-echo
LABEL org.opencontainers.image.title="Baetyl echo runtime" \
      org.opencontainers.image.description="Function runtime that answers what it is sent: for measurements and as an example"
COPY --from=binaries /out/bin/baetyl-runtime-echo /usr/bin/
ENTRYPOINT ["/usr/bin/baetyl-runtime-echo"]
CMD ["run"]

FROM service AS baetylctl
LABEL org.opencontainers.image.title="baetylctl" \
      org.opencontainers.image.description="Command line of the Baetyl cloud"
COPY --from=binaries /out/bin/baetylctl /usr/bin/
ENTRYPOINT ["/usr/bin/baetylctl"]

FROM service AS baetyl-helm
LABEL org.opencontainers.image.title="Baetyl Helm" \
      org.opencontainers.image.description="Helm, for applications of type helm in kube mode"
COPY --from=helm /out/bin/helm /usr/bin/
ENTRYPOINT ["/usr/bin/helm"]

# On an image with Python, whose PATH it keeps: official images have it in /usr/local/bin.
FROM ${PYTHON_IMAGE} AS baetyl-runtime-python
COPY --from=binaries /out/rootfs /
USER 65532:65532
WORKDIR /var/lib/baetyl
WORKDIR /
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.source="https://github.com/baetyl/baetyl-rs" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.title="Baetyl function runtime for Python" \
      org.opencontainers.image.description="Runs Python functions for the Baetyl function proxy"
COPY --from=binaries /out/bin/baetyl-runtime-python /usr/bin/
ENTRYPOINT ["/usr/bin/baetyl-runtime-python"]
CMD ["run"]
