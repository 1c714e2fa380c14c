# A client node: one image, two containers. `vault` holds the data and has no network, `link` has the network and no
# data. Build from the repository's root:
#   docker build -f docker/node.Dockerfile -t fedvault-node .
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
RUN /opt/fedvault/bin/pip install .

FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="FedVault node"
ENV FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1 FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1 \
    RAY_USAGE_STATS_ENABLED=0 MLFLOW_DISABLE_TELEMETRY=true HF_HUB_OFFLINE=1 PATH=/opt/fedvault/bin:$PATH HOME=/tmp
COPY --from=build /opt/fedvault /opt/fedvault
# two users and one group between them: the link may use the vault's socket and nothing else of its folder
RUN groupadd --gid 10010 fedvault-socket \
    && useradd --uid 10011 --gid 10010 --no-create-home vault \
    && useradd --uid 10012 --gid 10010 --no-create-home link \
    && install --directory --owner 10011 --group 10010 --mode 0750 /node /node/home /node/home/run \
    && install --directory --owner 10011 --group 10010 --mode 0700 /node/home/operator \
    && install --directory --owner 10012 --group 10010 --mode 0700 /node/home/link \
    && install --directory --owner 10011 --group 10010 --mode 0700 /node/ledger-copy
WORKDIR /node
USER 10011:10010
ENTRYPOINT ["fedvault-node"]
CMD ["--help"]
