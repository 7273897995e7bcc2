# RSM Studio at port 7860, as user 1000; runs live in the volume /runs. CPU by default; for NVIDIA GPUs build with
#   --build-arg UV_TORCH_BACKEND=cu130   (or another CUDA release that PyTorch builds for and the driver knows)

FROM python:3.12-slim AS build
ARG UV_VERSION=0.13.9
ARG UV_TORCH_BACKEND=cpu
ENV UV_NO_CACHE=1 UV_PYTHON_DOWNLOADS=never UV_COMPILE_BYTECODE=1
RUN python -m pip install --no-cache-dir "uv==${UV_VERSION}"
WORKDIR /build
COPY requirements.txt requirements.lock ./
# The ranges name what is needed, the lock which versions: packages of tests and linter stay out.
RUN uv venv /opt/venv \
    && VIRTUAL_ENV=/opt/venv uv pip install -r requirements.txt -c requirements.lock

FROM python:3.12-slim
RUN useradd --create-home --uid 1000 user \
    && install -d -o user -g user /runs
COPY --from=build /opt/venv /opt/venv
WORKDIR /home/user/app
COPY app.py LICENSE ./
COPY assets assets
COPY rsm_app rsm_app
COPY trainers trainers
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    GRADIO_SERVER_NAME=0.0.0.0 \
    GRADIO_SERVER_PORT=7860 \
    GRADIO_TEMP_DIR=/tmp/gradio \
    HF_HOME=/home/user/.cache/huggingface \
    RSM_RUNS_DIR=/runs
USER 1000
# Python answers SIGINT also as the container's first process; a SIGTERM would be ignored until the kill.
STOPSIGNAL SIGINT
EXPOSE 7860
VOLUME /runs
# The page itself, through no proxy: it answers only when the app is up, which takes a slow machine half a minute.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; e = os.environ; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:' + (e.get('PORT') or e['GRADIO_SERVER_PORT']), timeout=9)"]
CMD ["python", "app.py"]
