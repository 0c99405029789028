# The image of the service: one static binary, certificate authorities, nothing else. `docker build .` makes it;
# `docker build --target dev .` makes one with the emulated Entra ID and Redis inside, for demos and tests.
#
# Any builder will do (Docker, Podman, buildah, `az acr build`): nothing here needs BuildKit. It builds for the
# architecture that it runs on. The dependencies are a layer of their own, kept until Cargo.lock changes.

FROM docker.io/library/rust:1.95-slim-trixie AS toolchain
# Writes the list of crates into the binary, for scanners.
RUN cargo install --locked --root /usr/local cargo-auditable@0.7.7
WORKDIR /build
# Neither a path of the builder nor the time of the build (__TIME__ of C) in the binary, so that it can be built again.
ENV RUSTFLAGS="--remap-path-prefix=/usr/local/cargo=cargo --remap-path-prefix=/build=entra-redis" SOURCE_DATE_EPOCH=0
# Static, to run from scratch; relocations packed, which is a megabyte less to read at start.
ENV STATIC="-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs"
# glibc resolves names by itself, without loading anything, if it is told to use no more than these two.
RUN mkdir -p /files/etc/ssl/certs \
 && cp /etc/ssl/certs/ca-certificates.crt /files/etc/ssl/certs/ \
 && echo 'hosts: files dns' > /files/etc/nsswitch.conf
COPY Cargo.toml Cargo.lock ./
COPY crates/entra-redis/Cargo.toml crates/entra-redis/
COPY crates/entra-redis-emulator/Cargo.toml crates/entra-redis-emulator/
# Empty sources in the place of ours, so that dependencies can be built before these are copied.
RUN mkdir -p src examples crates/entra-redis/src crates/entra-redis-emulator/src \
 && echo '//! Empty.' | tee src/lib.rs crates/entra-redis/src/lib.rs > crates/entra-redis-emulator/src/lib.rs \
 && (cat src/lib.rs && echo 'fn main() {}') | tee src/main.rs > examples/faults.rs

FROM toolchain AS dependencies
RUN cargo auditable build --locked --release --no-default-features

FROM dependencies AS build
COPY crates crates
COPY src src
# Sources may be older than the empty ones; cargo would then not build them.
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
# Huge pages would double the memory that little work needs.
ENV PATH=/ MIMALLOC_ALLOW_THP=0
USER 65532:65532
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["/entra-redis", "healthcheck"]
ENTRYPOINT ["/entra-redis"]
LABEL org.opencontainers.image.title="entra-redis" \
      org.opencontainers.image.description="GET /sample from Azure Managed Redis, signed in with Microsoft Entra ID" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="MIT"

# In a container the loopback that `dev` keeps to would be nobody's.
FROM base AS dev
COPY --from=build-dev /files /
ENV HOST=0.0.0.0
CMD ["dev"]

# The last one is what is built where none is named.
FROM base AS production
COPY --from=build /files /
