"""What training_step.py's peers share: options, data, initial values, and their side of the protocol described there."""
import argparse
import os
import sys
import time

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), *[os.pardir] * 2, "tests", "tensorflow"))
import mnist  # noqa: E402  (found through the path set before)

# The tutorial's network: its parameters in TensorFlow's layout, and the constants of its training.
SHAPES = {
    "conv_1/weights": (5, 5, 1, 20), "conv_1/bias": (20,),
    "conv_2/weights": (3, 3, 20, 50), "conv_2/bias": (50,),
    "dot_1/weights": (1250, 800), "dot_1/bias": (800,),
    "dot_2/weights": (800, 800), "dot_2/bias": (800,),
    "logits_layer/weights": (800, 10), "logits_layer/bias": (10,),
}
L1 = L2 = 1e-4
EPOCH = 100  # batches
ADAM = {"rate": 0.01, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}
LRN_RADIUS = 5  # x / sqrt(1 + sum of x^2 over the channels that far to either side)


def parser(description):
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--data", default="data")
    options.add_argument("--batch", type=int, default=500)
    options.add_argument("--keep", type=float, default=0.5)
    options.add_argument("--threads", type=int, default=0, help="0: all cores")
    options.add_argument("--device", default="cpu", choices=("cpu", "gpu"))
    options.add_argument("--tf32", action="store_true", help="on a GPU, products of matrices in TensorFloat-32")
    return options


def parse(options):
    """The arguments of a peer that builds the network itself."""
    options.add_argument("--weights", metavar="NPZ", help="initial values, by TensorFlow's names of the parameters")
    arguments = options.parse_args()
    arguments.threads = arguments.threads or len(os.sched_getaffinity(0))
    return arguments


def initial_values(arguments):
    """The parameters' initial values by name: those of `--weights`, or a truncated normal distribution like the tutorial's."""
    if arguments.weights:
        with np.load(arguments.weights) as values:
            return {name: values[name] for name in SHAPES}
    random = np.random.default_rng(1)

    def draw(shape):
        values = random.standard_normal(shape, np.float32)
        while (far := np.abs(values) > 2).any():
            values[far] = random.standard_normal(far.sum(), np.float32)
        return values / np.float32(shape[0] ** 0.5)

    return {name: draw(shape) for name, shape in SHAPES.items()}


def serve(make, arguments):
    """Makes the peer and answers commands until the input ends. The peer has

    prepare(images, labels)      what `step` and `evaluate` take; not timed
    step(batch)                  one update; gives objective and cost before it, as numbers
    evaluate(split)              the accuracy with nothing dropped, a number
    summarize(split)             the merged summary, where there is one
    """
    try:
        peer = make(arguments)
    except ImportError as error:
        print(f"refused: {error}", flush=True)
        return
    batches = mnist.TrainingBatches(arguments.data, arguments.batch)
    test = peer.prepare(*mnist.read_split(arguments.data, "t10k"))
    step = 0
    print("ready", flush=True)
    for line in sys.stdin:
        command, count = line.split()
        count = int(count)
        if command in ("step", "losses"):
            prepared = [peer.prepare(*batches[k]) for k in range(step, step + count)]
            began = time.perf_counter()
            losses = [peer.step(batch) for batch in prepared]
            seconds = time.perf_counter() - began
            if command == "losses":
                for k, (objective, cost) in enumerate(losses, step):
                    print(k, objective, cost)
                print("done", flush=True)
            else:
                print(count, seconds, flush=True)
            step += count
        elif command == "epoch":
            began = time.perf_counter()
            for _ in range(count):
                for k in range(EPOCH):
                    peer.step(peer.prepare(*batches[k]))
            print(count, time.perf_counter() - began, flush=True)
        elif command == "accuracy":
            print(peer.evaluate(test), flush=True)
        elif hasattr(peer, command):
            run = getattr(peer, command)
            began = time.perf_counter()
            for _ in range(count):
                run(test)
            print(count, time.perf_counter() - began, flush=True)
        else:
            print(f"refused: there is no `{command}` in this engine", flush=True)
