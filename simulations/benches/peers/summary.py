#!/usr/bin/env python3
"""summary.py TIMES MEMORY: one JSON line of what was measured. TIMES holds the time (s) at which each round began or ended."""
import json
import statistics
import sys

times = [float(line) for line in open(sys.argv[1])]
rounds = [later - earlier for earlier, later in zip(times, times[1:])]
memory = json.load(open(sys.argv[2]))
line = {"rounds": len(rounds), "memory": {key: memory[key] for key in ("pss_mib", "rss_mib", "processes")}}
if rounds:
    seconds = {"median": statistics.median(rounds), "min": min(rounds), "max": max(rounds)}
    line["round_s"] = {key: round(value, 3) for key, value in seconds.items()}
line["largest_processes"] = memory["peak_of"][:6]
print(json.dumps(line))
