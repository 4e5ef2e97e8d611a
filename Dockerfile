# The manager's image: one static binary and the public certificate authorities,
# no shell, no package manager, no root. Both images are arguments, so that a
# site can use its own; BASE_IMAGE may be anything, down to nothing at all.
ARG BUILDER_IMAGE=golang:1.26-bookworm
ARG BASE_IMAGE=scratch

FROM ${BUILDER_IMAGE} AS builder
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY api/ api/
COPY cmd/ cmd/
COPY internal/ internal/
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o /out/manager ./cmd/manager && \
    mkdir -p /out/etc/ssl/certs && \
    cp /etc/ssl/certs/ca-certificates.crt /out/etc/ssl/certs/

FROM ${BASE_IMAGE}
COPY --from=builder /out/ /
USER 65532:65532
ENTRYPOINT ["/manager"]
