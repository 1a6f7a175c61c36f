"""The models and the local training that both peers are measured with; what each peer does around it is its own."""
import numpy as np

SHAPES = {"tiny": [(13, 32), (32,), (32, 1), (1,)], "big": [(1000, 1000)] * 25}
ROWS, STEPS, LEARNING_RATE = 100, 5, 0.5


def initial(kind):
    random = np.random.default_rng(0)
    return [random.standard_normal(shape, dtype=np.float32) * np.float32(0.1) for shape in SHAPES[kind]]


def train(weights, seed):
    """A few steps of gradient descent for the tiny model; for the big one hardly any work, so that the rest shows."""
    if len(weights) != len(SHAPES["tiny"]):
        return [weight + np.float32(0.001) for weight in weights]
    random = np.random.default_rng(seed)
    rows = random.standard_normal((ROWS, 13), dtype=np.float32)
    labels = (rows[:, :1] > 0).astype(np.float32)
    w1, b1, w2, b2 = (weight.copy() for weight in weights)
    for _ in range(STEPS):
        hidden = np.tanh(rows @ w1 + b1)
        error = (1 / (1 + np.exp(-(hidden @ w2 + b2))) - labels) / ROWS
        inner = (error @ w2.T) * (1 - hidden * hidden)
        gradients = rows.T @ inner, inner.sum(0), hidden.T @ error, error.sum(0)
        for weight, gradient in zip((w1, b1, w2, b2), gradients):
            weight -= np.float32(LEARNING_RATE) * gradient
    return [w1, b1, w2, b2]
