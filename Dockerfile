# One file for the three deployables; `docker build --target worker .` builds one of them. It needs nothing of BuildKit:
# what can be kept from one build to the next is in layers of its own. Modules are downloaded, and their packages
# compiled, again only when go.mod or go.sum have changed; a change of our own source then takes seconds.

ARG GO_IMAGE=golang:1.26-bookworm
ARG BASE_IMAGE=gcr.io/distroless/static-debian12:nonroot

# Go compiles for any platform on the builder's own, where nothing is emulated. BuildKit tells which that is; to the
# classic builder "linux" means the same.
ARG BUILDER_PLATFORM=${BUILDPLATFORM:-linux}

FROM --platform=${BUILDER_PLATFORM} ${GO_IMAGE} AS build
WORKDIR /src
# BuildKit sets these for the platform that was asked for; without it the builder's own platform is built.
ARG TARGETOS
ARG TARGETARCH
ENV CGO_ENABLED=0 GOOS=${TARGETOS} GOARCH=${TARGETARCH} GOFLAGS="-trimpath -tags=nomsgpack"
COPY go.mod go.sum ./
# The API's image would be twice as large with what is of no use in it: the dashboard's source maps, which only its own
# developers' browsers ask for, gin's HTTP/3 server, its second YAML package, MessagePack, and functions inlined for speed
# that an API does not need (-l).
RUN go mod download \
 && cp -r "$(go list -m -f '{{.Dir}}' github.com/hibiken/asynqmon)" /asynqmon \
 && cp -r "$(go list -m -f '{{.Dir}}' github.com/gin-gonic/gin)" /gin \
 && chmod -R u+w /asynqmon /gin && find /asynqmon -name '*.map' -delete \
 && sed -i '/^func (engine \*Engine) RunQUIC/,/^}/d; /quic-go/d' /gin/gin.go \
 && ! grep -q quic-go /gin/gin.go \
 && sed -i 's#github.com/goccy/go-yaml#go.yaml.in/yaml/v3#' /gin/binding/yaml.go /gin/render/yaml.go \
 && go mod edit -replace github.com/hibiken/asynqmon=/asynqmon -replace github.com/gin-gonic/gin=/gin
# Which packages are compiled here only matters for the time that it saves below.
RUN set -e; \
    shared="github.com/spf13/viper github.com/hibiken/asynq github.com/bsm/redislock go.mongodb.org/mongo-driver/v2/mongo \
      github.com/prometheus/client_golang/prometheus/promhttp go.opentelemetry.io/otel/exporters/otlp/otlptrace"; \
    go build -mod=mod $shared; \
    go build -mod=mod -gcflags all=-l $shared github.com/hibiken/asynqmon github.com/gin-gonic/gin \
      go.opentelemetry.io/contrib/instrumentation/github.com/gin-gonic/gin/otelgin
COPY cmd cmd
COPY internal internal
COPY pkg pkg
ARG VERSION=dev
RUN set -e; \
    ldflags="-s -w -X github.com/codex-api/codex-jobs/internal/version.linked=${VERSION}"; \
    go build -ldflags "$ldflags" -o /out/ ./cmd/scheduler ./cmd/worker; \
    go build -ldflags "$ldflags" -gcflags all=-l -o /out/ ./cmd/api

FROM ${BASE_IMAGE} AS api
COPY --from=build /out/api /api
EXPOSE 4000
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s CMD ["/api", "--healthy"]
ENTRYPOINT ["/api"]

FROM ${BASE_IMAGE} AS scheduler
COPY --from=build /out/scheduler /scheduler
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s CMD ["/scheduler", "--healthy"]
ENTRYPOINT ["/scheduler"]

FROM ${BASE_IMAGE} AS worker
COPY --from=build /out/worker /worker
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s CMD ["/worker", "--healthy"]
ENTRYPOINT ["/worker"]
