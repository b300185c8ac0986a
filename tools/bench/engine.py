#!/usr/bin/env python3
"""Time what the engine itself costs against TensorFlow's, PyTorch's and JAX's: runs that compute next to nothing, and building.

    engine.py                                      ours and TensorFlow's
    engine.py --peers tensorflow pytorch jax       PyTorch's and JAX's too

    call         an addition of scalars: a callable of ours and TensorFlow's, PyTorch's `+`, a jitted function of JAX
    chain        10,000 additions of scalars one after the other, nothing rewritten; of JAX not to be had, which fuses them
    build        a graph of 1,000 additions, from Python in TensorFlow
    gradients    the gradient of such a graph

Figures are of one call, and of one addition of the others. Sides take turns as in training_step.py.
"""
import argparse
import os
import sys
import time

from training_step import TITLES, Refused, Side, alternate

HERE = os.path.dirname(os.path.abspath(__file__))
OURS = os.path.join(HERE, os.pardir, os.pardir, "target", "release", "examples", "engine")
RUN, BUILT = 10_000, 1_000
COMMANDS = {"call": 1, "chain": RUN, "build": BUILT, "gradients": BUILT}  # nodes


class TensorFlow:
    def __init__(self):
        import tensorflow as tf

        self.v1 = tf.compat.v1
        self.v1.disable_eager_execution()
        self.call = self.callable(1, rewrites=True)
        self.chain = self.callable(RUN, rewrites=False)

    def additions(self, count):
        x = y = self.v1.placeholder("float32", ())
        for _ in range(count):
            y = self.v1.add(y, x)
        return x, y

    def callable(self, count, rewrites):
        config = self.v1.ConfigProto()
        config.graph_options.rewrite_options.disable_meta_optimizer = not rewrites
        with self.v1.Graph().as_default() as graph:
            x, y = self.additions(count)
        run = self.v1.Session(graph=graph, config=config).make_callable(y, feed_list=[x])
        run(1.0)
        return lambda: run(1.0)

    def build(self):
        with self.v1.Graph().as_default():
            return lambda: self.additions(BUILT)

    def gradients(self):
        x, y = self.additions(BUILT)
        return lambda: self.v1.gradients(y, x)


class PyTorch:
    def __init__(self):
        import torch

        one = torch.ones(())

        def chain():
            y = one
            for _ in range(RUN):
                y = y + one

        self.call, self.chain = (lambda: one + one), chain


class Jax:
    def __init__(self):
        import jax

        one, double = jax.numpy.float32(1), jax.jit(lambda x: x + x)
        self.call = lambda: double(one).block_until_ready()


def serve(make):
    """One side: the protocol of training_step.py."""
    try:
        side = make()
    except ImportError as error:
        print(f"refused: {error}", flush=True)
        return
    print("ready", flush=True)
    for line in sys.stdin:
        command, count = line.split()
        if not hasattr(side, command):
            print(f"refused: there is no `{command}` in this engine", flush=True)
            continue
        seconds = 0.0
        for _ in range(int(count)):
            if command in ("build", "gradients"):
                with side.v1.Graph().as_default():
                    work = getattr(side, command)()
                    began = time.perf_counter()
                    work()
            else:
                work = getattr(side, command)
                began = time.perf_counter()
                work()
            seconds += time.perf_counter() - began
        print(count, seconds, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", default=OURS, help="our program (default: target/release/examples/engine)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.3, help="about how long a round lasts (default: 0.3)")
    parser.add_argument("--peers", nargs="+", default=["tensorflow"], choices=list(TITLES), help="default: tensorflow")
    parser.add_argument("--serve", choices=list(TITLES), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        return serve({"tensorflow": TensorFlow, "pytorch": PyTorch, "jax": Jax}[arguments.serve])
    if not os.path.exists(arguments.ours):
        parser.error(f"{arguments.ours}: not built (cargo build --release -p graph-ops --example engine)")
    sides = []
    for name in arguments.peers:
        try:
            sides.append(Side(TITLES[name], [sys.executable, os.path.abspath(__file__), "--serve", name]))
        except Refused as reason:
            print(f"  {TITLES[name]:10}  skipped: {reason}")
    sides.append(Side("ours", [arguments.ours]))
    for command, nodes in COMMANDS.items():
        print(f"{command}:" if nodes == 1 else f"{command}, {nodes} additions:")
        alternate(sides, command, arguments, nodes)
    for side in sides:
        side.close()


if __name__ == "__main__":
    main()
