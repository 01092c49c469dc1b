# syntax=docker/dockerfile:1
#
#   docker build --target gateway -t gateway .
#   docker build --target worker-agent -t worker-agent .
#   docker build --target inference-example -t inference-example .

FROM python:3.13-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python -m venv /opt/gateway
# Dependencies first: they change less often than the code, so their layer stays cached.
COPY pyproject.toml ./
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" > requirements.txt \
 && /opt/gateway/bin/pip install --requirement requirements.txt
COPY README.md LICENSE ./
COPY wire ./wire
COPY runtime ./runtime
COPY http1 ./http1
COPY http2 ./http2
COPY queueing ./queueing
COPY gateway ./gateway
COPY worker_agent ./worker_agent
COPY invocation_client ./invocation_client
COPY config ./config
RUN /opt/gateway/bin/pip install --no-deps . \
 && /opt/gateway/bin/python -m compileall -q /opt/gateway/lib

# The object store in S3 (objects.backend) and instances as pods, which workers do not have.
FROM build AS build-gateway
RUN /opt/gateway/bin/pip install '.[s3,kubernetes]' \
 && /opt/gateway/bin/python -m compileall -q /opt/gateway/lib

FROM build AS build-examples
RUN /opt/gateway/bin/pip install '.[examples]' \
 && /opt/gateway/bin/python -m compileall -q /opt/gateway/lib

# Nothing is written outside of the volume and /tmp: the root file system may be read-only.
FROM python:3.13-slim AS base
RUN groupadd --system --gid 10001 gateway \
 && useradd --system --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent gateway
ENV PATH=/opt/gateway/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# A numeric user, which Kubernetes can check for runAsNonRoot.
USER 10001:10001
WORKDIR /

# Runs beside the inference server, in the same pod. All settings come from the environment.
FROM base AS worker-agent
COPY --from=build /opt/gateway /opt/gateway
HEALTHCHECK --interval=10s --timeout=2s --start-period=60s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:%s/v1/health/live' % os.environ.get('HEALTH_PORT', '8080'), timeout=1.5)"]
ENTRYPOINT ["worker-agent"]

# The model server of the examples in deploy/.
FROM base AS inference-example
COPY --from=build-examples /opt/gateway /opt/gateway
ENTRYPOINT ["python", "-m", "gateway.examples.inference"]

FROM base AS gateway
USER root
COPY --from=build-gateway /opt/gateway /opt/gateway
RUN install -d -o 10001 -g 10001 -m 0700 /var/lib/gateway
USER 10001:10001
# Holds the master key: without it the secrets of functions are lost.
VOLUME /var/lib/gateway
COPY config/gateway.toml /etc/gateway/gateway.toml
# The file's addresses are loopback, unreachable from outside the container. These variables also
# override a file that is mounted in its place, so change them, not the file, for other addresses.
# Set at run time: GATEWAY_ATTACH__ADVERTISE (the container's or pod's address), GATEWAY_NATS__URLS.
ENV GATEWAY_EDGE__LISTEN=0.0.0.0:8080 \
    GATEWAY_ATTACH__LISTEN=0.0.0.0:8090 \
    GATEWAY_ADMIN__LISTEN=0.0.0.0:41337 \
    GATEWAY_CONTROL__SECRETS_KEY_FILE=/var/lib/gateway/master.key \
    GATEWAY_PROVISION__FOLDER=/var/lib/gateway/instances \
    GATEWAY_OBJECTS__FOLDER=/var/lib/gateway/objects
EXPOSE 8080 8090 41337
HEALTHCHECK --interval=10s --timeout=2s --start-period=10s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:%s/health/live' % os.environ['GATEWAY_ADMIN__LISTEN'].rpartition(':')[2], timeout=1.5)"]
ENTRYPOINT ["gateway"]
CMD ["serve", "--config", "/etc/gateway/gateway.toml"]
