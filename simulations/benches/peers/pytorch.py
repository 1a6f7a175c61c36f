"""The training steps of fedledger's benchmark, with PyTorch on one thread.

Prints for each model the optimiser steps per second and per second of processor time, as one line of JSON. The data
stand in memory, and a batch is taken from them by its rows, as a data set that fits into memory would be read.
"""

import argparse
import json
import time

import torch
from torch import nn

ROWS = 2048


def perceptron(width):
    return nn.Sequential(nn.Linear(13, width), nn.ReLU(), nn.Linear(width, 1))


def convolutional():
    return nn.Sequential(
        nn.Conv2d(1, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(512, 128), nn.ReLU(), nn.Linear(128, 10),
    )


def table():
    return torch.rand(ROWS, 13) * 2 - 1, (torch.arange(ROWS) % 2).float().unsqueeze(1)


def images():
    return torch.rand(ROWS, 1, 28, 28) * 2 - 1, torch.arange(ROWS) % 10


# Name as in fedledger's benchmark, model, loss, optimiser, data, rows of a batch, steps.
CASES = [
    ("perceptron 13-32-1, batch 32, SGD", perceptron(32), nn.BCEWithLogitsLoss(),
     lambda parameters: torch.optim.SGD(parameters, lr=0.01), table(), 32, 5000),
    ("perceptron 13-1024-1, batch 256, AdamW", perceptron(1024), nn.BCEWithLogitsLoss(),
     lambda parameters: torch.optim.AdamW(parameters, lr=0.001, weight_decay=0.01), table(), 256, 400),
    ("convolutional 16c5-32c5-128-10, batch 32, SGD", convolutional(), nn.CrossEntropyLoss(),
     lambda parameters: torch.optim.SGD(parameters, lr=0.01), images(), 32, 200),
]


def batches(features, labels, rows):
    """Batches without end, shuffled anew for each pass."""
    while True:
        order = torch.randperm(len(features))
        for start in range(0, len(features), rows):
            chosen = order[start:start + rows]
            yield features[chosen], labels[chosen]


def measure(model, loss, optimizer, data, rows, steps):
    """Steps per second on the clock and of processor time, after a tenth of the steps to warm up."""
    optimizer, stream = optimizer(model.parameters()), batches(*data, rows)
    for step in range(-(steps // 10), steps):
        if step == 0:
            clock, processor = time.perf_counter(), time.process_time()
        features, labels = next(stream)
        optimizer.zero_grad()
        loss(model(features), labels).backward()
        optimizer.step()
    return steps / (time.perf_counter() - clock), steps / (time.process_time() - processor)


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("filter", nargs="?", default="", help="measure only cases whose name contains this")
    chosen = arguments.parse_args().filter
    torch.manual_seed(1)
    torch.set_num_threads(1)
    for name, *case in CASES:
        if chosen in name:
            per_second, per_processor_second = measure(*case)
            print(json.dumps({
                "case": name, "library": f"PyTorch {torch.__version__}",
                "steps_per_second": round(per_second, 1),
                "steps_per_processor_second": round(per_processor_second, 1),
            }), flush=True)


if __name__ == "__main__":
    main()
