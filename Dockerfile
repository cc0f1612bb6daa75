# docker build -t relay .
# docker run -e UPSTREAM=rtmp://origin.example.com/live -p 1935:1935 -p 127.0.0.1:8080:8080 relay
#
# The first stage builds the program and a root directory for it; the second is that root and nothing else: the program, the
# C library, root certificates, one user, and busybox for a shell and wget.
ARG RUST_VERSION=1.95
FROM rust:${RUST_VERSION}-slim-bookworm AS build

RUN apt-get update \
    && apt-get install -y --no-install-recommends busybox-static ca-certificates \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /src

# The dependencies first: they are built again only when they change.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src \
    && echo 'fn main() {}' > src/main.rs \
    && touch src/lib.rs \
    && cargo build --release --locked --bin relay \
    && rm -r src

COPY assets assets
COPY src src
# Cargo goes by times, and those of a copied file are older than the build above.
RUN touch src/main.rs src/lib.rs \
    && cargo build --release --locked --bin relay

RUN set -eu; \
    mkdir -p /root-of-image/app /root-of-image/bin /root-of-image/etc/ssl/certs /root-of-image/usr/local/bin; \
    cp target/release/relay /root-of-image/usr/local/bin/; \
    # Whatever the loader would load, from the path where it looks for it. Names are looked up by the C library itself.
    ldd target/release/relay | grep -o '/[^ ]*' | xargs -I{} cp -L --parents {} /root-of-image; \
    echo 'hosts: files dns' > /root-of-image/etc/nsswitch.conf; \
    echo 'appuser:x:1000:1000:relay:/app:/bin/sh' > /root-of-image/etc/passwd; \
    echo 'appuser:x:1000:' > /root-of-image/etc/group; \
    cp /etc/ssl/certs/ca-certificates.crt /root-of-image/etc/ssl/certs/; \
    cp /bin/busybox /root-of-image/bin/; \
    ln -s busybox /root-of-image/bin/sh; \
    ln -s busybox /root-of-image/bin/wget; \
    chown 1000:1000 /root-of-image/app

FROM scratch

ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="relay" \
      org.opencontainers.image.description="The front door for live video: an RTMP relay that knows who may come in, which origin works, and where a frame ends" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

COPY --from=build /root-of-image /

ENV PATH=/usr/local/bin:/bin
# ./config.json is read where there is one; variables win over it.
WORKDIR /app
# The number, for Kubernetes judges `runAsNonRoot` by it; it is called appuser.
USER 1000:1000
EXPOSE 1935 8080
# Lets streams end for `shutdown_timeout` (30 s): give it longer than that, `docker stop -t 60`.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s --retries=3 CMD ["relay", "health"]
ENTRYPOINT ["relay"]
