#!/bin/bash
# install.sh FOLDER: Flower and NVIDIA FLARE, each in a virtual environment of its own below FOLDER.
set -eu
mkdir -p "$1"
python3 -m venv "$1/venv-flower"
"$1/venv-flower/bin/pip" install --quiet flwr==1.41.0
python3 -m venv "$1/venv-nvflare"
"$1/venv-nvflare/bin/pip" install --quiet nvflare==2.9.0 numpy
