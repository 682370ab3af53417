# One file for the three programs; `docker build --target worker .` builds one of them. It needs nothing of BuildKit:
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
# The tags are the Makefile's, so that what is tested is what is shipped.
ENV CGO_ENABLED=0 GOOS=${TARGETOS} GOARCH=${TARGETARCH} GOFLAGS="-trimpath -tags=nomsgpack"
COPY go.mod go.sum ./
# The dashboard's source maps, which only its own developers' browsers ask for, stay out of the API's program: they are 5 MiB of it, and
# an image may have 40. They are data that asynqmon embeds; the code is what it is.
RUN go mod download \
 && find "$(go list -m -f '{{.Dir}}' github.com/hibiken/asynqmon)/ui" -name '*.map' -delete
# Which packages are compiled here only matters for the time that it saves below.
RUN go build github.com/spf13/viper github.com/hibiken/asynq github.com/hibiken/asynqmon \
      go.mongodb.org/mongo-driver/v2/mongo github.com/prometheus/client_golang/prometheus/promhttp github.com/gin-gonic/gin \
      go.opentelemetry.io/contrib/instrumentation/github.com/gin-gonic/gin/otelgin \
      go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp
COPY cmd cmd
COPY internal internal
COPY pkg pkg
ARG VERSION=dev
RUN go build -ldflags "-s -w -X github.com/codex-api/codex-jobs/internal/version.linked=${VERSION}" \
      -o /out/ ./cmd/api ./cmd/scheduler ./cmd/worker

FROM ${BASE_IMAGE} AS api
COPY --from=build /out/api /api
EXPOSE 4000
HEALTHCHECK --interval=30s --timeout=5s CMD ["/api", "--healthy"]
ENTRYPOINT ["/api"]

FROM ${BASE_IMAGE} AS scheduler
COPY --from=build /out/scheduler /scheduler
HEALTHCHECK --interval=30s --timeout=5s CMD ["/scheduler", "--healthy"]
ENTRYPOINT ["/scheduler"]

FROM ${BASE_IMAGE} AS worker
COPY --from=build /out/worker /worker
HEALTHCHECK --interval=30s --timeout=5s CMD ["/worker", "--healthy"]
ENTRYPOINT ["/worker"]
