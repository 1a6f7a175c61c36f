#!/usr/bin/env python3
"""memory.py OUT: the most memory of all processes in this PID namespace, until it gets SIGTERM; then writes JSON to OUT.

Proportional set sizes count a page that several processes share once; resident set sizes count it for each. The sums are
sampled, so their peaks are lower bounds; `peak_of` is what the kernel recorded of each process (VmHWM).
"""
import json
import os
import signal
import sys
import time

# Looking itself costs time that the measured programs need.
INTERVAL_S = 1.0
stopped = False


def stop(*_):
    global stopped
    stopped = True


def kib(path, field):
    with open(path) as file:
        for line in file:
            if line.startswith(field):
                return int(line.split()[1])
    return 0


def name_of(pid):
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        words = file.read().decode(errors="replace").split("\0")
    return " ".join(os.path.basename(word) for word in words[:3]).strip()


signal.signal(signal.SIGTERM, stop)
peaks = {"pss_mib": 0, "rss_mib": 0, "processes": 0}
peak_of = {}
while not stopped:
    pss = rss = processes = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) == os.getpid():
            continue
        try:
            pss += kib(f"/proc/{pid}/smaps_rollup", "Pss:")
            rss += kib(f"/proc/{pid}/smaps_rollup", "Rss:")
            peak_of[pid] = (name_of(pid), round(kib(f"/proc/{pid}/status", "VmHWM:") / 1024))
            processes += 1
        except OSError:
            continue  # It has ended.
    now = {"pss_mib": pss / 1024, "rss_mib": rss / 1024, "processes": processes}
    peaks = {key: max(peaks[key], round(now[key])) for key in peaks}
    time.sleep(INTERVAL_S)
largest = sorted(peak_of.values(), key=lambda peak: -peak[1])
with open(sys.argv[1], "w") as out:
    json.dump({**peaks, "peak_of": [{"process": name, "mib": mib} for name, mib in largest[:30]]}, out, indent=1)
