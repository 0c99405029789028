# The service's image: one static binary and certificate authorities, nothing else. `docker build .` builds it;
# `docker build --target dev .` builds an image that also contains the emulated Entra ID and Redis, for demos and tests.
#
# Works with any builder (Docker, Podman, buildah, `az acr build`), because nothing needs BuildKit, and builds for the
# machine's own architecture. The dependencies are a separate layer, cached until Cargo.lock changes.

FROM docker.io/library/rust:1.95-slim-trixie AS toolchain
# Embeds the list of crates in the binary, for scanners.
RUN cargo install --locked --root /usr/local cargo-auditable@0.7.7
WORKDIR /build
# Keeps the builder's paths and the build time (C's __TIME__) out of the binary, so that the build is reproducible.
ENV RUSTFLAGS="--remap-path-prefix=/usr/local/cargo=cargo --remap-path-prefix=/build=entra-redis" SOURCE_DATE_EPOCH=0
# Static, to run from scratch; with packed relocations, which saves reading a megabyte at start.
ENV STATIC="-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs"
# With only these two sources, glibc resolves names without loading a library.
RUN mkdir -p /files/etc/ssl/certs \
 && cp /etc/ssl/certs/ca-certificates.crt /files/etc/ssl/certs/ \
 && echo 'hosts: files dns' > /files/etc/nsswitch.conf
COPY Cargo.toml Cargo.lock ./
COPY crates/entra-redis/Cargo.toml crates/entra-redis/
COPY crates/entra-redis-emulator/Cargo.toml crates/entra-redis-emulator/
# Empty sources, so that dependencies can be built before the real sources are copied.
RUN mkdir -p src examples crates/entra-redis/src crates/entra-redis-emulator/src \
 && echo '//! Empty.' > src/lib.rs \
 && cp src/lib.rs crates/entra-redis/src/ && cp src/lib.rs crates/entra-redis-emulator/src/ \
 && (cat src/lib.rs && echo 'fn main() {}') > src/main.rs \
 && cp src/main.rs examples/faults.rs

FROM toolchain AS dependencies
RUN cargo auditable build --locked --release --no-default-features

FROM dependencies AS build
COPY crates crates
COPY src src
# The sources may be older than the empty ones; cargo would then not build them.
RUN touch src/*.rs crates/*/src/lib.rs \
 && cargo auditable rustc --locked --release --no-default-features --bin entra-redis -- $STATIC \
 && cp target/release/entra-redis /files/

FROM dependencies AS build-dev
COPY crates crates
COPY src src
RUN touch src/*.rs crates/*/src/lib.rs \
 && cargo auditable rustc --locked --release --bin entra-redis -- $STATIC \
 && cp target/release/entra-redis /files/

FROM scratch AS base
# Huge pages would double the memory use of an idle service.
ENV PATH=/ MIMALLOC_ALLOW_THP=0
USER 65532:65532
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["/entra-redis", "healthcheck"]
ENTRYPOINT ["/entra-redis"]
LABEL org.opencontainers.image.title="entra-redis" \
      org.opencontainers.image.description="GET /sample from Azure Managed Redis, authenticated with Microsoft Entra ID" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="MIT"

# `dev` listens on the loopback address by default, which is unreachable from outside a container.
FROM base AS dev
COPY --from=build-dev /files /
ENV HOST=0.0.0.0
CMD ["dev"]

# The last stage is the default target.
FROM base AS production
COPY --from=build /files /
