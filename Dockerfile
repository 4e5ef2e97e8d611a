# The manager's image: one static binary, the public certificate authorities and the
# licences; no shell, no package manager, no root. Both images are arguments, so that a
# site can use its own; BASE_IMAGE may be anything, down to nothing at all.
#
#   docker buildx build --platform linux/amd64,linux/arm64 --build-arg VERSION=1.2.3 \
#     --build-arg REVISION=$(git rev-parse HEAD) --tag registry.example.com/jwks-trust-manager:v1.2.3 .
ARG BUILDER_IMAGE=golang:1.26-bookworm
ARG BASE_IMAGE=scratch

# Compiles on the machine's own platform for whichever one is asked for.
FROM --platform=${BUILDPLATFORM} ${BUILDER_IMAGE} AS builder
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY api/ api/
COPY cmd/ cmd/
COPY internal/ internal/
ARG TARGETOS
ARG TARGETARCH
ARG VERSION=
ARG REVISION=
# As a release is built (tools/release/build.go), to the byte where the Go is the same.
RUN stamped=github.com/jwks-trust/jwks-trust-manager/internal/version && \
    CGO_ENABLED=0 GOOS=${TARGETOS} GOARCH=${TARGETARCH} go build -trimpath -buildvcs=false \
      -ldflags "-s -w -X $stamped.release=${VERSION:+v$VERSION} -X $stamped.revision=${REVISION}" \
      -o /out/manager ./cmd/manager && \
    mkdir -p /out/etc/ssl/certs && \
    cp /etc/ssl/certs/ca-certificates.crt /out/etc/ssl/certs/ && \
    echo 'nonroot:x:65532:65532:nonroot:/:/sbin/nologin' > /out/etc/passwd && \
    echo 'nonroot:x:65532:' > /out/etc/group

FROM ${BASE_IMAGE}
ARG VERSION=
ARG REVISION=
ARG SOURCE=https://github.com/jwks-trust/jwks-trust-manager
LABEL org.opencontainers.image.title="jwks-trust-manager" \
      org.opencontainers.image.description="Manages which JWT issuers a Kubernetes cluster trusts" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=builder /out/ /
COPY LICENSE THIRD_PARTY_LICENSES.txt /licenses/
USER 65532:65532
ENTRYPOINT ["/manager"]
