# Uses only the syntax of the plain builder.
#
#   docker build -t machineid-sidecar .                          the daemon, with the wrapper and the command line
#   docker build -t machineid-authority --target authority .     an authority of your own
#
# With --build-arg BUILDER=IMAGE, where that image has the five programs in /programs, nothing is compiled.

ARG BUILDER=rust:1.95-bookworm
FROM ${BUILDER} AS build
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY crates crates
COPY packaging packaging
COPY benches benches
COPY tests tests
COPY src src
COPY machineid-sidecar.toml CHANGELOG.md README.md ./
# To put the commit of a checkout into the image: --build-arg MACHINEID_COMMIT="$(git log -1 --abbrev=12 --format='%h %cs')"
ARG MACHINEID_COMMIT=""
RUN programs=/programs \
    && { [ -d "$programs" ] || { MACHINEID_COMMIT="$MACHINEID_COMMIT" packaging/build.sh && programs=target/dist/bin; }; } \
    && mkdir -p /rootfs \
    && packaging/install.sh --bin "$programs" --destdir /rootfs --prefix /usr --part all \
    && rm -rf /rootfs/usr/lib /rootfs/usr/share /rootfs/etc/default

FROM debian:bookworm-slim AS base
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 65532 machineid \
    && useradd --uid 65532 --gid 65532 --home-dir /nonexistent --no-create-home --shell /usr/sbin/nologin machineid

FROM base AS authority
COPY --from=build /rootfs/usr/bin/machineid-authority /usr/bin/
RUN install -d -m 700 -o 65532 -g 65532 /var/lib/machineid-authority
USER 65532:65532
VOLUME /var/lib/machineid-authority
EXPOSE 8424
# Listens on the container's loopback, for a TLS proxy that shares its network namespace. With a certificate instead:
#   serve --listen 0.0.0.0:8424 --tls-cert /tls/tls.crt --tls-key /tls/tls.key --database sqlite:/var/lib/machineid-authority/authority.db
ENTRYPOINT ["/usr/bin/machineid-authority"]
CMD ["serve", "--database", "sqlite:/var/lib/machineid-authority/authority.db"]

FROM base AS sidecar
COPY --from=build /rootfs/usr/bin/machineid-sidecar /rootfs/usr/bin/machineid-run /rootfs/usr/bin/machineid /usr/bin/
COPY --from=build /rootfs/etc/machineid /etc/machineid
# A daemon that is not root may then stop other users' processes, where the platform leaves CAP_KILL in its bounding set and allows
# privileges of files (the DaemonSet). Permitted, not effective: without either, the program still starts.
RUN apt-get update \
    && apt-get install -y --no-install-recommends libcap2-bin \
    && setcap cap_kill=p /usr/bin/machineid-sidecar \
    && apt-get purge -y --auto-remove libcap2-bin \
    && rm -rf /var/lib/apt/lists/*
RUN install -d -m 755 -o 65532 -g 65532 /run/machineid \
    && install -d -m 700 -o 65532 -g 65532 /run/machineid-sidecar /var/lib/machineid-sidecar
# The daemon's directories, in the variables that systemd would set.
ENV RUNTIME_DIRECTORY=/run/machineid:/run/machineid-sidecar \
    STATE_DIRECTORY=/var/lib/machineid-sidecar
USER 65532:65532
# All that the daemon writes to. Volumes, so that it can also where the root is read-only: they have the owners above, and a tmpfs
# over one of these directories is root's. The first is the socket's, for agents in other containers.
VOLUME /run/machineid /run/machineid-sidecar /var/lib/machineid-sidecar
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["/usr/bin/machineid-sidecar", "healthcheck"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/machineid-sidecar"]
