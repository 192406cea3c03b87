# The commands, recipes and simulators in a container.
#
#   docker build --tag cwm-hub .                                                          # for CPUs
#   docker build --tag cwm-hub:cuda --build-arg TORCH_INDEX=https://pypi.org/simple .     # PyPI's torch brings CUDA
#   docker run --rm --volume $PWD/runs:/cwm-hub/runs cwm-hub python recipes/demo.py
#   docker run --rm --gpus all --ipc host --volume $PWD:/work cwm-hub:cuda cwm-hub bench /work/shards/mine
FROM python:3.12-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

# What draws Meta-world and DMC headless: EGL, and Mesa where there is no GPU. Recipes ask git for their commit.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git libegl1 libgl1-mesa-dri \
    && rm -rf /var/lib/apt/lists/*

# torch and torchvision from one index: of different builds they do not import beside each other.
RUN pip install --no-cache-dir --index-url ${TORCH_INDEX} "torch>=2.15,<3" torchvision

# The code last, so that a change of it does not install torch again.
WORKDIR /cwm-hub
COPY pyproject.toml README.md LICENSE ./
COPY cwm_hub cwm_hub
COPY dataprep dataprep
COPY cards cards
COPY recipes recipes
RUN pip install --no-cache-dir --editable ".[all,s3]"

# What the Hub's client keeps goes where runs go, which is what one mounts.
ENV HF_HOME=/cwm-hub/runs/huggingface
CMD ["cwm-dataprep", "--help"]
