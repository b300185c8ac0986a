#!/usr/bin/env python3
"""TensorFlow's side of training_step.py: trains an exported graph on request (the protocol is described there)."""
import argparse
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), *[os.pardir] * 2, "tests", "tensorflow"))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("graph")
    parser.add_argument("--data", default="data")
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--keep", type=float, default=0.5)
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    arguments = parser.parse_args()

    import mnist
    from lenet_graph import LenetGraph

    graph = LenetGraph(arguments.graph, arguments.threads)
    batches = mnist.TrainingBatches(arguments.data, arguments.batch)
    # TensorFlow's fastest way to repeat a run.
    train = graph.session.make_callable(
        [graph.objective, graph.cost, graph.train], feed_list=[graph.images, graph.labels, graph.keep]
    )
    test = mnist.read_split(arguments.data, "t10k")
    over_test = {graph.images: test[0], graph.labels: test[1], graph.keep: 1.0}
    once = {"evaluate": graph.accuracy, "summarize": graph.tensor("Merge/MergeSummary")}
    step = 0
    print("ready", flush=True)
    for line in sys.stdin:
        command, count = line.split()
        if command in once:
            began = time.perf_counter()
            for _ in range(int(count)):
                graph.session.run(once[command], over_test)
            print(count, time.perf_counter() - began, flush=True)
            continue
        losses = []
        began = time.perf_counter()
        for _ in range(int(count)):
            objective, cost, _ = train(*batches[step], arguments.keep)
            losses.append((step, float(objective), float(cost)))
            step += 1
        seconds = time.perf_counter() - began
        if command == "losses":
            for loss in losses:
                print(*loss)
            print("done", flush=True)
        else:
            print(count, seconds, flush=True)


if __name__ == "__main__":
    main()
