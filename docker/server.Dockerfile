# The coordination server: gateway, SuperLink and runs. Build from the repository's root:
#   docker build -f docker/server.Dockerfile -t fedvault-server .
FROM python:3.11-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python -m venv /opt/fedvault
# another build of PyTorch: --build-arg PIP_EXTRA_INDEX_URL=URL
ARG PIP_EXTRA_INDEX_URL=""
RUN /opt/fedvault/bin/pip install "torch>=2.13,<2.14"
COPY pyproject.toml README.md ./
COPY client client
COPY server server
COPY shared shared
COPY simulations simulations
RUN /opt/fedvault/bin/pip install ".[postgresql,tracking]"

FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="FedVault coordination server"
ENV FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1 FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1 \
    RAY_USAGE_STATS_ENABLED=0 MLFLOW_DISABLE_TELEMETRY=true HF_HUB_OFFLINE=1 PATH=/opt/fedvault/bin:$PATH HOME=/tmp \
    FEDVAULT_SERVER_HOME=/var/lib/fedvault FEDVAULT_DATA=/
COPY --from=build /opt/fedvault /opt/fedvault
RUN groupadd --gid 10001 fedvault && useradd --uid 10001 --gid 10001 --no-create-home fedvault \
    && install --directory --owner 10001 --group 10001 --mode 0700 /var/lib/fedvault
USER 10001:10001
VOLUME /var/lib/fedvault
EXPOSE 8443
HEALTHCHECK --interval=30s --timeout=20s --start-period=60s \
    CMD ["fedvault-server", "status", "--check"]
ENTRYPOINT ["fedvault-server"]
CMD ["start"]
