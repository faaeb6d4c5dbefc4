# syntax=docker/dockerfile:1
# The server's image: one binary, no shell, a user without rights.

# The version of Rust is that of Cargo.toml, the system that of the last stage.
FROM rust:1.95-bookworm AS build
WORKDIR /src
# Nothing of the image's system is needed but a C compiler, make and perl: the C
# libraries are built from source and linked in.
COPY Cargo.toml Cargo.lock build.rs ./
COPY proto proto
COPY src src
COPY web/dist web/dist
# The caches stay on the building machine: dependencies are fetched and built again
# only when they change. What is kept has to be copied out of them.
RUN --mount=type=cache,sharing=locked,target=/usr/local/cargo/registry \
    --mount=type=cache,sharing=locked,target=/src/target \
    cargo build --release --locked --features export --bin herald && \
    cp target/release/herald /herald
# The last stage has no shell to make a folder with.
RUN mkdir /data

# glibc, libgcc and the certificates of public authorities, little else.
FROM gcr.io/distroless/cc-debian12:nonroot
LABEL org.opencontainers.image.title="herald" \
      org.opencontainers.image.description="A game event service: typed gRPC actions in, a durable event log and a resumable live feed out." \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /herald /usr/local/bin/herald
# A new volume takes its owner from here.
COPY --from=build --chown=65532:65532 /data /var/lib/herald
ENV HERALD_DATA_DIR=/var/lib/herald
VOLUME /var/lib/herald
# gRPC; health and metrics. Herald listens on loopback only until it is told otherwise
# (HERALD_LISTEN, HERALD_ADMIN_LISTEN, HERALD_INSECURE), in an image as anywhere.
EXPOSE 50051 50052
# By number, so that Kubernetes can see that it is not root.
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/herald"]
CMD ["serve"]
