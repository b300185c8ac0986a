#!/usr/bin/env python3
"""Time single operations against TensorFlow's: dtypes, shapes and ops that the training step does not have.

    operations.py                    all cases
    operations.py --only matmul      those whose name holds this
    operations.py --worst 20         the table's end only

One graph has an operation for each case; its operands are variables, which a step reads where they lie. Both engines load the
same GraphDef and run each operation as the target of a callable, turn by turn, in two processes that wait for each other. The
figure of a case is the median of the rounds; printed are both and their ratio (below 1: we are faster), the slowest of ours
against TensorFlow's last. TensorFlow's have some 0.05 ms of Python in them, so cases are made to take a millisecond or so.
The cases are in operation_cases.py.
"""
import argparse
import os
import statistics
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
OURS = os.path.join(HERE, os.pardir, os.pardir, "target", "release", "examples", "operations")


class TensorFlow:
    title = "TensorFlow"

    def __init__(self, tf, graph):
        self.graph = graph
        # Its optimizer would leave out operations whose outputs nobody reads.
        config = tf.compat.v1.ConfigProto()
        config.graph_options.rewrite_options.disable_meta_optimizer = True
        self.session = tf.compat.v1.Session(graph=graph, config=config)
        self.session.run("init")
        self.calls = {}

    def time(self, name, count):
        if name not in self.calls:
            self.calls[name] = self.session.make_callable(self.graph.get_operation_by_name(name))
            self.calls[name]()
        call = self.calls[name]
        began = time.perf_counter()
        for _ in range(count):
            call()
        return (time.perf_counter() - began) / count * 1e3


def measure(sides, operation, arguments):
    """The median milliseconds of each side."""
    once = [min(side.time(operation, 1), side.time(operation, 1)) for side in sides]
    turns = [(side, max(1, round(arguments.seconds * 1e3 / max(first, 1e-4))), []) for side, first in zip(sides, once)]
    for k in range(arguments.rounds):
        for side, count, into in turns if k % 2 else turns[::-1]:
            into.append(side.time(operation, count))
    return [statistics.median(into) for _, _, into in turns]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", default=OURS, help="our program (default: target/release/examples/operations)")
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--worst", type=int, default=0, help="print so many, the slowest of ours beside TensorFlow's")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.03, help="about how long a round lasts (default: 0.03)")
    arguments = parser.parse_args()
    if not os.path.exists(arguments.ours):
        parser.error(f"{arguments.ours}: not built (cargo build --release -p graph-ops --example operations)")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        import tensorflow as tf
    except ImportError as error:
        sys.exit(f"skipped: {error}")
    from operation_cases import build
    from training_step import Refused, Side

    graph, cases = build(tf)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "operations.pb")
        with open(path, "wb") as file:
            file.write(graph.as_graph_def().SerializeToString())
        ours = Side("ours", [arguments.ours, path])
    sides = [ours, TensorFlow(tf, graph)]
    found, skipped = [], []
    for name, operation in cases.items():
        if arguments.only not in name:
            continue
        try:
            mine, theirs = measure(sides, operation, arguments)
            found.append((mine / theirs, mine, theirs, name))
        except Refused as why:
            skipped.append((name, f"ours: {why}"))
        except tf.errors.OpError as error:
            skipped.append((name, f"TensorFlow: {error.message.splitlines()[0]}"))
    ours.close()
    found.sort()
    for ratio, mine, theirs, name in found[-arguments.worst :]:
        print(f"{ratio:8.2f}  ours {mine:9.3f} ms   TensorFlow {theirs:9.3f} ms   {name}")
    for name, why in skipped:
        print(f" skipped  {name}: {why}")
    ratios = [ratio for ratio, *_ in found]
    if ratios:
        print(
            f"{len(ratios)} cases; median of ratios {statistics.median(ratios):.2f}; "
            f"{sum(ratio > 1 for ratio in ratios)} slower than TensorFlow's, "
            f"{sum(ratio > 2 for ratio in ratios)} by more than twice"
        )


if __name__ == "__main__":
    main()
