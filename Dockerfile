# empg in a container. CPU:  docker build -t empg .
# NVIDIA GPUs:               docker build -t empg --build-arg TORCH_BACKEND=cu128 .    (auto would look for a GPU where it is built)
# Run:                       docker run --rm -it -v "$PWD/runs:/agents/runs" empg train experiment=demo
#                            (--gpus all for GPUs; --user "$(id -u):$(id -g)" where the folder is yours alone)
FROM python:3.12-slim
ARG TORCH=torch==2.13.0
ARG TORCH_BACKEND=cpu
ARG EXTRAS=report,joblib,lora,parquet,serve

ENV PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1 PYTHONUNBUFFERED=1
RUN useradd --create-home --uid 1000 empg && mkdir -p /agents /src && chown empg:empg /agents && pip install uv

WORKDIR /src
# torch changes less often than what is written here, and has a layer of its own.
RUN uv pip install --system --torch-backend="$TORCH_BACKEND" "$TORCH"
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY src src
COPY conf conf
RUN uv pip install --system --torch-backend="$TORCH_BACKEND" "$TORCH" --constraint constraints.txt ".[$EXTRAS]" && rm -rf /src/*

USER empg
WORKDIR /agents
ENTRYPOINT ["empg"]
CMD ["--help"]
