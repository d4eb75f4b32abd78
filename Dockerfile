# The image of cluster/: this repository with what requirements/gpu.lock pins. Build it where there is a network:
#   docker build -t my-registry/ner-batch:0.1.0 . && docker push my-registry/ner-batch:0.1.0
# CUDA's libraries come as Python packages with torch; the node needs the NVIDIA driver and the container toolkit.
FROM python:3.11-slim-bookworm

# Triton compiles a launcher with the C compiler when an engine starts; wget is what KubeRay's probes call, rsync is how
# `ray up` copies its files into the container.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends build-essential rsync wget \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /app
COPY requirements/gpu.lock requirements/gpu.lock
RUN pip install --no-cache-dir --no-deps --requirement requirements/gpu.lock
COPY pyproject.toml README.md LICENSE ./
COPY ner_batch ner_batch
COPY jobs jobs
RUN pip install --no-cache-dir --no-deps --no-build-isolation .
