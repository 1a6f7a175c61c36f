#!/bin/bash
# flower.sh FOLDER tiny|big ROUNDS: a Flower deployment on this machine, SuperLink and four SuperNodes as processes, without
# TLS. Prints one JSON line. To be run through loopback.sh.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=$(cd "$1" && pwd) model=$2 rounds=$3 nodes=4
work=$folder/flower-$model
rm -rf "$work" && mkdir -p "$work/home"
export FLWR_HOME=$work/home FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1 OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
export PATH=$folder/venv-flower/bin:$PATH PYTHONPATH=$here PYTHONDONTWRITEBYTECODE=1
printf '[superlink]\ndefault = "local"\n[superlink.local]\naddress = "127.0.0.1:39091"\ninsecure = true\n' >"$FLWR_HOME/config.toml"

python3 "$here/memory.py" "$work/memory.json" & watch=$!
flower-superlink --insecure --disable-runtime-dependency-installation --host 127.0.0.1 --port 39091 >"$work/superlink.log" 2>&1 &
until curl -sf -o /dev/null http://127.0.0.1:39091/health; do sleep 0.1; done
for node in $(seq 0 $((nodes - 1))); do
    flower-supernode --insecure --superlink 127.0.0.1:39091 --host 127.0.0.1 --port $((39200 + node)) \
        --node-config "partition-id=$node num-partitions=$nodes" >"$work/node$node.log" 2>&1 &
done
cd "$here/flower_app"
timeout 570 flwr run . local --stream -c "num-rounds=$rounds nodes=$nodes model='$model' times='$work/times'" >"$work/run.log" 2>&1
kill -TERM $watch && wait $watch
python3 "$here/summary.py" "$work/times" "$work/memory.json"
