#!/usr/bin/env python3
"""JAX's side of training_step.py: the same network, one jitted step, trained on request (the protocol is described there)."""
import os

import peer


class Jax:
    def __init__(self, arguments):
        # XLA takes as many threads as there are cores that it may run on.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])
        os.environ["JAX_PLATFORMS"] = "cuda" if arguments.device == "gpu" else "cpu"
        import jax

        try:
            jax.devices()
        except RuntimeError as error:
            raise ImportError(f"this JAX has no such device: {error}") from error
        jax.config.update("jax_default_matmul_precision", "tensorfloat32" if arguments.tf32 else "float32")
        self.jax = jax
        self.keep = arguments.keep
        parameters = jax.device_put(peer.initial_values(arguments))
        zeros = jax.tree.map(jax.numpy.zeros_like, parameters)
        self.state = (parameters, zeros, jax.tree.map(jax.numpy.zeros_like, parameters), 0, jax.random.key(1))
        # The state is given away: the new one takes its place in memory.
        self.train = jax.jit(self.next_state, donate_argnums=0)
        self.accuracy = jax.jit(self.mean_correct)

    def convolve(self, x, parameters, name):
        x = self.jax.lax.conv_general_dilated(
            x, parameters[f"{name}/weights"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return self.jax.nn.relu(x + parameters[f"{name}/bias"])

    # Two ways to pool, each the faster where it is used: the blocks have the faster gradient, the windows the faster value.
    def pool_blocks(self, x):
        batch, height, width, channels = x.shape
        return x.reshape(batch, height // 2, 2, width // 2, 2, channels).max((2, 4))

    def pool_windows(self, x):
        return self.jax.lax.reduce_window(x, -self.jax.numpy.inf, self.jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")

    def normalize(self, x):
        window = (1, 1, 1, 2 * peer.LRN_RADIUS + 1)
        sums = self.jax.lax.reduce_window(x * x, 0.0, self.jax.lax.add, window, (1, 1, 1, 1), "SAME")
        return x * self.jax.lax.rsqrt(1 + sums)

    def dropout(self, x, key):
        if key is None:
            return x
        kept = self.jax.random.bernoulli(key, self.keep, x.shape)
        return self.jax.numpy.where(kept, x / self.keep, 0)

    def logits(self, parameters, images, keys, pool):
        def dot(x, name):
            return x @ parameters[f"{name}/weights"] + parameters[f"{name}/bias"]

        relu = self.jax.nn.relu
        x = images.reshape(-1, 28, 28, 1)
        x = self.normalize(pool(self.convolve(x, parameters, "conv_1")))
        x = self.normalize(pool(self.convolve(x, parameters, "conv_2")))
        x = x.reshape(len(x), -1)
        x = relu(dot(self.dropout(x, keys[0]), "dot_1"))
        x = relu(dot(self.dropout(x, keys[1]), "dot_2"))
        return dot(self.dropout(x, keys[2]), "logits_layer")

    def losses(self, parameters, images, labels, keys):
        np = self.jax.numpy
        log_probabilities = self.jax.nn.log_softmax(self.logits(parameters, images, keys, self.pool_blocks))
        cost = -(labels * log_probabilities).sum(1).mean()
        weights = [value for name, value in parameters.items() if name.endswith("weights")]
        norms = sum(peer.L2 / 2 * np.square(w).sum() + peer.L1 * np.abs(w).sum() for w in weights)
        return cost + norms, cost

    def next_state(self, state, batch):
        jax, np, adam = self.jax, self.jax.numpy, peer.ADAM
        parameters, means, squares, step, key = state
        key, *keys = jax.random.split(key, 4)
        if self.keep == 1:
            keys = [None] * 3
        losses, gradients = jax.value_and_grad(self.losses, has_aux=True)(parameters, *batch, keys)
        step = step + 1
        beta1, beta2 = adam["beta1"], adam["beta2"]
        rate = adam["rate"] * np.sqrt(1 - beta2**step) / (1 - beta1**step)
        means = jax.tree.map(lambda m, g: beta1 * m + (1 - beta1) * g, means, gradients)
        squares = jax.tree.map(lambda v, g: beta2 * v + (1 - beta2) * g * g, squares, gradients)
        parameters = jax.tree.map(
            lambda p, m, v: p - rate * m / (np.sqrt(v) + adam["epsilon"]), parameters, means, squares
        )
        return (parameters, means, squares, step, key), losses

    def mean_correct(self, parameters, images, labels):
        logits = self.logits(parameters, images, [None] * 3, self.pool_windows)
        return (logits.argmax(1) == labels.argmax(1)).mean()

    def prepare(self, images, labels):
        return self.jax.device_put((images, labels))

    def step(self, batch):
        self.state, losses = self.train(self.state, batch)
        objective, cost = self.jax.device_get(losses)
        return float(objective), float(cost)

    def evaluate(self, split):
        return float(self.accuracy(self.state[0], *split))


def main():
    peer.serve(Jax, peer.parse(peer.parser(__doc__)))


if __name__ == "__main__":
    main()
