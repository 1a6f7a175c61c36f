#!/usr/bin/env python3
"""A multilayer perceptron on a CSV table, with PyTorch: an external trainer for fedledger.

The plan's configuration, with its defaults:
  label           column that is above 0 in positive rows (required)
  features        numeric columns that the model sees, in this order (required)
  hidden          units of the hidden layers ([16])
  epochs          passes through the rows per round (5)
  batch_size      (16)
  learning_rate   (0.01)

`perceptron_torch.py --architecture CONFIGURATION.json` prints the plan's [architecture] for such a configuration.
"""

import csv
import json
import math
import os
import struct
import sys

import torch


def model_of(options):
    """Put your own model here. Whatever is in its state_dict travels; all of it must be 32-bit floats."""
    widths = [len(options["features"]), *options.get("hidden", [16])]
    layers = []
    for inputs, outputs in zip(widths, widths[1:]):
        # LayerNorm and GroupNorm have no running statistics, which would be averaged between hospitals like weights.
        layers += [torch.nn.Linear(inputs, outputs), torch.nn.LayerNorm(outputs), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(widths[-1], 1))


def load(model, path):
    """Puts the values of a safetensors file into a model."""
    with open(path, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        payload = bytearray(file.read())
    values = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            values[name] = torch.frombuffer(payload[begin:end], dtype=torch.float32).reshape(entry["shape"]).clone()
    model.load_state_dict(values)


def store(model, path):
    header, begin, payload = {}, 0, []
    for name, values in sorted(model.state_dict().items()):
        end = begin + 4 * values.numel()
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [begin, end]}
        payload.append(values.detach().contiguous().numpy().astype("<f4").tobytes())
        begin = end
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(payload))


def read_rows(path, told):
    """Features and labels of the records to train on and of those to test on, and how many were skipped for which reason.
    The features get mean 0 and deviation 1 over the training records; those to test on are no part of that."""
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
    width = len(options["features"])
    tensors = [
        (torch.tensor(features).reshape(-1, width), torch.tensor(labels, dtype=torch.float32))
        for features, labels in found.values()
    ]
    mean, deviation = tensors[0][0].mean(0), tensors[0][0].std(0) + 1e-6
    training, testing = (((features - mean) / deviation, labels) for features, labels in tensors)
    return training, testing, skipped


def scores(model, features, labels):
    with torch.no_grad():
        logits = model(features).squeeze(1)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
        return {"loss": loss.item(), "accuracy": ((logits > 0) == (labels > 0.5)).float().mean().item()}


def train(model, told, options, features, labels):
    epochs, size = options.get("epochs", 5), options.get("batch_size", 16)
    optimizer = torch.optim.Adam(model.parameters(), lr=options.get("learning_rate", 0.01))
    first = 0
    before = scores(model, features, labels)["loss"]
    if told["resumption"] and os.path.exists("state/epoch.pt"):
        # With the loss of the round's beginning, so that what is reported does not depend on interruptions.
        first, before, weights, moments = torch.load("state/epoch.pt")
        model.load_state_dict(weights)
        optimizer.load_state_dict(moments)
    for epoch in range(first, epochs):
        # The order depends on the round's seed and the epoch alone, so an interrupted run ends with the same weights.
        order = torch.Generator().manual_seed((int(told["seed"][:15], 16) + epoch) % 2**63)
        for rows in torch.randperm(len(labels), generator=order).split(size):
            optimizer.zero_grad()
            logits = model(features[rows]).squeeze(1)
            torch.nn.functional.binary_cross_entropy_with_logits(logits, labels[rows]).backward()
            optimizer.step()
        # A whole file or none: the node may be stopped at any moment.
        torch.save((epoch + 1, before, model.state_dict(), optimizer.state_dict()), "state/partial")
        os.replace("state/partial", "state/epoch.pt")
        message = "loss %.4f" % scores(model, features, labels)["loss"]
        print(json.dumps({"progress": (epoch + 1) / epochs, "message": message}), flush=True)
    store(model, told["trained"])
    return {**scores(model, features, labels), "loss_first": before}


def architecture(model):
    """The model as a plan lists it: weights begin uniform in 1/sqrt(inputs), normalisations with 1, biases with 0."""
    lines = ['[architecture]\nkind = "custom"\ntensors = [']
    for name, values in sorted(model.state_dict().items()):
        begins = 'constant = "1"' if values.dim() < 2 else 'bound = "%.6f"' % (values[0].numel() ** -0.5)
        begins = 'bound = "0"' if name.endswith("bias") else begins
        lines.append('    { name = "%s", shape = %s, %s },' % (name, list(values.shape), begins))
    return "\n".join([*lines, "]"])


def main():
    if sys.argv[1:2] == ["--architecture"]:
        with open(sys.argv[2]) as file:
            return print(architecture(model_of(json.load(file))))
    with open("configuration.json") as file:
        told = json.load(file)
    torch.set_num_threads(told["threads"])
    torch.use_deterministic_algorithms(True)
    options = told["configuration"]
    model = model_of(options)
    load(model, told["base"])
    training, testing, skipped = read_rows(told["data"], told)
    if told["task"] == "evaluate":
        features, labels = testing
        metrics = scores(model, features, labels)
    else:
        features, labels = training
        metrics = train(model, told, options, features, labels)
    with open(told["metrics"], "w") as file:
        json.dump({"examples": len(labels), "metrics": metrics, "skipped_rows": skipped}, file)


if __name__ == "__main__":
    main()
