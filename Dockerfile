# docker build -t lwd .                                                          for CPUs
# docker build -t lwd:cuda --build-arg TORCH_INDEX=https://pypi.org/simple .     for NVIDIA's GPUs: PyPI's PyTorch brings CUDA
# docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/work" lwd demo            (--gpus all --ipc host)
ARG BASE=python:3.11-slim
FROM ${BASE}

# torch.compile calls a compiler, on GPUs for its launchers, too.
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*

WORKDIR /src
COPY constraints.txt ./
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir --constraint constraints.txt --extra-index-url "${TORCH_INDEX}" torch
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN pip install --no-cache-dir --constraint constraints.txt '.[all]'

# Whoever runs it, by --user, has a name and a home for caches; nobody needs to be root.
RUN useradd --create-home lwd && chmod 1777 /home/lwd && mkdir /work && chown lwd /work
ENV HOME=/home/lwd USER=lwd
USER lwd
WORKDIR /work
ENTRYPOINT ["lwd"]
CMD ["--help"]
