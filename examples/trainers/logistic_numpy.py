#!/usr/bin/env python3
"""Logistic regression on a CSV table, with numpy only: an external trainer for fedledger.

The plan's configuration, with its defaults:
  label           column that is above 0 in positive rows (required)
  features        numeric columns that the model sees, in this order (required)
  scale           by feature, [subtracted, divided by] (none)
  epochs          passes through the rows per round (5)
  batch_size      (16)
  learning_rate   (0.05)

The model is `bias` of shape [1] and `weight` of shape [number of features].
"""

import csv
import json
import math
import os
import struct

import numpy as np


def read_weights(path):
    """The tensors of a safetensors file: eight bytes of header length, a JSON header, the values."""
    with open(path, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        payload = file.read()
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        assert entry["dtype"] == "F32", name
        begin, end = entry["data_offsets"]
        tensors[name] = np.frombuffer(payload[begin:end], "<f4").reshape(entry["shape"]).copy()
    return tensors


def write_weights(path, tensors):
    header, begin = {}, 0
    for name, values in sorted(tensors.items()):
        end = begin + 4 * values.size
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, values in sorted(tensors.items()):
            file.write(np.ascontiguousarray(values, "<f4").tobytes())


def read_rows(path, told):
    """Features and labels of the records to train on and of those to test on, and how many were skipped for which reason."""
    options, limit = told["configuration"], told.get("bad_rows_max", 0)
    with open(told["rows"]) as file:
        parts = {number: name for name, numbers in json.load(file).items() for number in numbers}
    found, skipped = {"train": ([], []), "test": ([], [])}, {}
    with open(path, newline="") as file:
        table = csv.DictReader(file)
        for row in table:
            # The node counts lines, the first below the header being number 0.
            part = parts.get(table.line_num - 2)
            if part is None:
                continue
            try:
                values = [float(row[name]) for name in [*options["features"], options["label"]]]
                reason = None if all(map(math.isfinite, values)) else "out_of_range"
            except (ValueError, TypeError):
                reason = "not_a_number"
            if reason is None:
                found[part][0].append(values[:-1])
                found[part][1].append(values[-1] > 0)
            else:
                skipped[reason] = skipped.get(reason, 0) + 1
            if sum(skipped.values()) > limit:
                raise SystemExit("more than %d records cannot be read, the last one in line %d" % (limit, table.line_num))
    arrays = {}
    for part, (features, labels) in found.items():
        features, labels = np.array(features, float).reshape(-1, len(options["features"])), np.array(labels, float)
        for name, (subtracted, divided) in options.get("scale", {}).items():
            column = options["features"].index(name)
            features[:, column] = (features[:, column] - subtracted) / divided
        arrays[part] = features, labels
    return arrays["train"], arrays["test"], skipped


def probabilities(weights, features):
    return 1 / (1 + np.exp(-(features @ weights["weight"] + weights["bias"][0])))


def scores(weights, features, labels):
    found = np.clip(probabilities(weights, features), 1e-7, 1 - 1e-7)
    loss = -np.mean(labels * np.log(found) + (1 - labels) * np.log(1 - found))
    return {"loss": float(loss), "accuracy": float(np.mean((found > 0.5) == (labels > 0.5)))}


def save_state(epoch, before, weights):
    """A whole file or none: the node may be stopped at any moment."""
    with open("state/partial", "wb") as file:
        np.savez(file, epoch=epoch, before=before, **weights)
    os.replace("state/partial", "state/epoch.npz")


def load_state():
    with np.load("state/epoch.npz") as saved:
        weights = {name: saved[name] for name in saved.files if name not in ("epoch", "before")}
        return int(saved["epoch"]), float(saved["before"]), weights


def train(told, options, features, labels):
    epochs, size = options.get("epochs", 5), options.get("batch_size", 16)
    rate = options.get("learning_rate", 0.05)
    first, weights = 0, {name: values.astype(float) for name, values in read_weights(told["base"]).items()}
    before = scores(weights, features, labels)["loss"]
    if told["resumption"] and os.path.exists("state/epoch.npz"):
        # With the loss of the round's beginning, so that what is reported does not depend on interruptions.
        first, before, weights = load_state()
    for epoch in range(first, epochs):
        # The order depends on the round's seed and the epoch alone, so an interrupted run ends with the same weights.
        order = np.random.default_rng([int(told["seed"], 16), epoch]).permutation(len(labels))
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            error = probabilities(weights, features[rows]) - labels[rows]
            weights["weight"] = weights["weight"] - rate * (features[rows].T @ error) / len(rows)
            weights["bias"] = weights["bias"] - rate * np.mean(error, keepdims=True)
        save_state(epoch + 1, before, weights)
        message = "loss %.4f" % scores(weights, features, labels)["loss"]
        print(json.dumps({"progress": (epoch + 1) / epochs, "message": message}), flush=True)
    write_weights(told["trained"], weights)
    return {**scores(weights, features, labels), "loss_first": before}


def main():
    with open("configuration.json") as file:
        told = json.load(file)
    options = told["configuration"]
    training, testing, skipped = read_rows(told["data"], told)
    if told["task"] == "evaluate":
        features, labels = testing
        metrics = scores(read_weights(told["base"]), features, labels)
    else:
        features, labels = training
        metrics = train(told, options, features, labels)
    with open(told["metrics"], "w") as file:
        json.dump({"examples": len(labels), "metrics": metrics, "skipped_rows": skipped}, file)


if __name__ == "__main__":
    main()
