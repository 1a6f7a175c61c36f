#!/bin/bash
# nvflare.sh FOLDER tiny|big ROUNDS simulator|poc: NVIDIA FLARE with four clients on this machine, in its simulator or as
# services ("POC mode"). Prints one JSON line. To be run through loopback.sh.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=$(cd "$1" && pwd) model=$2 rounds=$3 mode=$4
work=$folder/nvflare-$mode-$model
rm -rf "$work" && mkdir -p "$work/home"
export HOME=$work/home NVFLARE_POC_WORKSPACE=$work/poc BENCH_TIMES=$work/received PYTHONDONTWRITEBYTECODE=1
export PATH=$folder/venv-nvflare/bin:$PATH PYTHONPATH=$here OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

python3 "$here/memory.py" "$work/memory.json" & watch=$!
timeout 570 python3 "$here/nvflare_app/job.py" "$mode" "$model" "$rounds" "$work" >"$work/run.log" 2>&1
kill -TERM $watch && wait $watch
# A round begins when the first client has received its model.
sort -n "$work/received" | awk '!seen[$2]++ { print $1 }' >"$work/times"
python3 "$here/summary.py" "$work/times" "$work/memory.json"
