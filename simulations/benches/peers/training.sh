#!/bin/bash
# training.sh [TURNS]: steps of local training with PyTorch and with fedledger by turns, and the medians beside each other.
# PYTHON is the interpreter that has PyTorch; Debian's is /usr/bin/python3 with the package python3-torch.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
lines=$(mktemp)
trap 'rm -f "$lines"' EXIT
cd "$here/../../.."
cargo bench --workspace --profile dev --bench steps --no-run
for _ in $(seq "${1:-3}"); do
    "$python" "$here/pytorch.py" | tee -a "$lines"
    cargo bench --quiet --workspace --profile dev --bench steps | tee -a "$lines"
done
"$python" "$here/ratios.py" < "$lines"
