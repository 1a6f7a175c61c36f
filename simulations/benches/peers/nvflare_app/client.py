"""A client of NVIDIA FLARE; writes the time at which it has received the model of each round."""
import os
import time
import zlib

import model
import numpy as np
import nvflare.client as flare

KEY = "numpy_key"


def main():
    flare.init()
    seed = zlib.crc32(flare.get_site_name().encode())
    while flare.is_running():
        received = flare.receive()
        if received is None:
            break
        with open(os.environ["BENCH_TIMES"], "a") as file:
            file.write(f"{time.time()} {received.current_round}\n")
        array = np.asarray(received.params[KEY], dtype=np.float32)
        trained = train(array, seed)
        meta = {"NUM_STEPS_CURRENT_ROUND": model.ROWS}
        flare.send(flare.FLModel(params={KEY: trained}, params_type="FULL", metrics={"loss": 0.0}, meta=meta))


def train(array, seed):
    shapes = model.SHAPES["tiny"]
    sizes = [int(np.prod(shape)) for shape in shapes]
    if array.size != sum(sizes):
        return model.train([array], seed)[0]
    parts = np.split(array, np.cumsum(sizes)[:-1])
    trained = model.train([part.reshape(shape) for part, shape in zip(parts, shapes)], seed)
    return np.concatenate([weight.ravel() for weight in trained])


if __name__ == "__main__":
    main()
