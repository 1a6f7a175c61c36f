"""Reads lines of steps per second of several libraries, and prints medians and their ratio to PyTorch's."""

import collections
import json
import statistics
import sys

KINDS = ["steps_per_second", "steps_per_processor_second"]

found = collections.defaultdict(lambda: collections.defaultdict(list))
for line in sys.stdin:
    record = json.loads(line)
    library = "fedledger" if record["library"] == "fedledger" else "PyTorch"
    for kind in KINDS:
        found[record["case"], kind][library].append(record[kind])
for (case, kind), rates in found.items():
    medians = {library: statistics.median(values) for library, values in rates.items()}
    if "PyTorch" in medians and "fedledger" in medians:
        spread = {library: f"{min(values):.0f} to {max(values):.0f}" for library, values in rates.items()}
        print(f"{case}, {kind}: fedledger {medians['fedledger']:.0f} ({spread['fedledger']}), "
              f"PyTorch {medians['PyTorch']:.0f} ({spread['PyTorch']}), "
              f"{medians['fedledger'] / medians['PyTorch']:.2f} x")
