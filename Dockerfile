# The same binaries as `make image` builds, for those who have Docker:
#   docker build -t halopsa-operator .
#   docker build -t halosim --target halosim .
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --workspace

FROM gcr.io/distroless/cc-debian12:nonroot AS halosim
COPY --from=build /src/target/release/halosim /usr/local/bin/halosim
ENTRYPOINT ["/usr/local/bin/halosim"]

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/target/release/halopsa-operator /usr/local/bin/halopsa-operator
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/halopsa-operator"]
