# clipsrv in a container.
#   docker build --target cpu -t clipsrv .                             the bundled demo model
#   docker build --target cpu --build-arg MODEL=vit-b-32 -t clipsrv .  a converted model of ./onnx_models
#   docker build --target cpu --build-arg MODEL=vit-b-32 --build-arg PRECISION=int8 -t clipsrv .    of it one precision
#   docker build --target gpu --build-arg MODEL=vit-l-14 -t clipsrv:gpu .
#   docker build --target convert -t clipsrv:convert . && \
#     docker run --rm --user "$(id -u)" -v "$PWD/onnx_models:/onnx_models" clipsrv:convert vit-l-14
# Only `convert` carries PyTorch, only `gpu` CUDA. A builder without BuildKit makes every stage above its target: the
# lightest target stands first.

FROM python:3.11-slim-bookworm AS base
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PATH=/opt/clipsrv/bin:$PATH
# The environment has no pip of its own: the base image's installs into it, and stays out of the runtime.
RUN python3 -m venv --without-pip /opt/clipsrv
WORKDIR /app

FROM base AS install-cpu
COPY deploy/requirements-cpu.txt .
RUN pip --python /opt/clipsrv/bin/python install --no-deps --require-hashes -r requirements-cpu.txt && \
    find /opt/clipsrv -type d -name tests -prune -exec rm -r {} +

# clipsrv with its compiled parts. Python's full image has a C compiler. Bytecode too: the server cannot write any.
FROM python:3.11-bookworm AS compile
WORKDIR /app
COPY setup.py setup.cfg ./
COPY clipsrv clipsrv
RUN python3 setup.py --quiet build_ext --inplace && python3 -m compileall -q clipsrv

# The model; if a PRECISION is named, without the graphs of others where a tower has it.
FROM python:3.11-slim-bookworm AS model
ARG MODEL=demo
ARG PRECISION=
COPY onnx_models/${MODEL} /model
RUN if [ -n "$PRECISION" ]; then \
        ls "/model/vision.$PRECISION.onnx" && \
        for tower in vision text; do \
            if [ -e "/model/$tower.$PRECISION.onnx" ]; then \
                find /model -name "$tower.*.onnx*" ! -name "$tower.$PRECISION.onnx*" -delete; \
            fi; \
        done; \
    fi

FROM python:3.11-slim-bookworm AS runtime
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PATH=/opt/clipsrv/bin:$PATH MALLOC_ARENA_MAX=2
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin clipsrv
WORKDIR /app
COPY --from=compile /app/clipsrv clipsrv
ARG MODEL=demo
ARG PRECISION=
COPY --from=model /model onnx_models/${MODEL}
ENV CLIPSRV_MODEL=${MODEL} CLIPSRV_PRECISION=${PRECISION:-auto} CLIPSRV_HOST=0.0.0.0 CLIPSRV_PORT=5000
USER 10001
EXPOSE 5000
# Unhealthy while the model loads is what "starting" means to an orchestrator; a large model takes a while.
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['CLIPSRV_PORT'] + '/health', timeout=4)"]
# The exec form makes the server PID 1's program, so that SIGTERM reaches it.
ENTRYPOINT ["python", "-m", "clipsrv"]
STOPSIGNAL SIGTERM

FROM runtime AS cpu
COPY --from=install-cpu /opt/clipsrv /opt/clipsrv
ENV CLIPSRV_DEVICE=cpu

FROM base AS install-gpu
COPY deploy/requirements-gpu.txt .
RUN pip --python /opt/clipsrv/bin/python install --no-deps --require-hashes -r requirements-gpu.txt

FROM runtime AS gpu
COPY --from=install-gpu /opt/clipsrv /opt/clipsrv
# What the NVIDIA Container Toolkit is to bring in: the driver's libraries for computing.
ENV CLIPSRV_DEVICE=cuda NVIDIA_DRIVER_CAPABILITIES=compute,utility

FROM compile AS install-convert
# The CPU build of PyTorch is enough and far smaller: add --build-arg PIP_EXTRA_INDEX_URL with PyTorch's own CPU index.
ARG PIP_EXTRA_INDEX_URL=
RUN python3 -m venv --without-pip /opt/clipsrv
COPY pyproject.toml README.md LICENSE ./
COPY conversions conversions
COPY onnx_models/demo onnx_models/demo
RUN pip --python /opt/clipsrv/bin/python install --no-cache-dir ".[convert]"

FROM base AS convert
COPY --from=install-convert /opt/clipsrv /opt/clipsrv
ENV HF_HOME=/tmp/huggingface
ENTRYPOINT ["python", "-m", "conversions", "--models-dir", "/onnx_models"]

# Without --target.
FROM cpu
