#!/usr/bin/env python3
"""Let real TensorFlow and the engine read each other's checkpoints, and compare what they predict.

    check_checkpoint.py theirs PREFIX --output EVAL [--trajectory FILE]
        EVAL is what `lenet eval --checkpoint PREFIX --logits 8` printed for a checkpoint of TensorFlow's. It must agree with
        test accuracy and logits of the reference run (--trajectory, default ../fixtures/trajectory_adam.txt).

    check_checkpoint.py ours PREFIX --output EVAL --graph GRAPH.pb
        PREFIX is a checkpoint that `lenet train --checkpoint-dir` saved, EVAL what `lenet eval` printed for it, GRAPH.pb what
        `lenet export` writes for the same network. TensorFlow must find every checksum right, call it the latest of its
        folder, restore it by name into the graph, predict the same, and train on; and so with the graph beside the
        checkpoint, PREFIX.meta, and the saver in it. The saver's nodes must be those that TensorFlow's own Saver makes.

    check_checkpoint.py save GRAPH.pb PREFIX
        TensorFlow trains a step, saves all variables, and prints what it predicts as lines for --trajectory.

Figures must agree to --tolerance (1e-4). Exit status 0 when everything agrees, 1 when something does not.
"""
import argparse
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
FIXTURES = os.path.join(HERE, os.pardir, "fixtures")
IMAGES = 8
# Made by TensorFlow 2's Saver only.
NEW_ATTRIBUTE = "_has_manual_control_dependencies"


class Verdict:
    def __init__(self):
        self.failures = 0

    def __call__(self, good, what):
        self.failures += not good
        print(f"{'ok  ' if good else 'FAIL'} {what}", flush=True)

    def agree(self, ours, theirs, tolerance, what):
        accuracies = abs(ours[0] - theirs[0])
        logits = max(abs(a - b) for row, other in zip(ours[1], theirs[1]) for a, b in zip(row, other))
        good = accuracies <= tolerance and logits <= tolerance and len(ours[1]) == len(theirs[1]) == IMAGES
        self(good, f"{what}: test accuracy {ours[0]} and {theirs[0]}, logits {logits:.2g} apart, asked for {tolerance:g}")


def read_eval(path):
    """(accuracy, logits) from `Test Accuracy: A` and lines `Logits K: L0 .. L9`."""
    accuracy, logits = None, []
    with open(path) as file:
        for line in file:
            name, _, values = line.partition(":")
            if name == "Test Accuracy":
                accuracy = float(values)
            elif name == f"Logits {len(logits)}":
                logits.append([float(value) for value in values.split()])
    if accuracy is None:
        sys.exit(f"FAIL {path}: no line `Test Accuracy: A`")
    return accuracy, logits


def read_trajectory(path):
    accuracy, logits = None, []
    with open(path) as file:
        for line in file:
            fields = line.split()
            if not fields:
                continue
            if fields[0] == "test_accuracy":
                accuracy = float(fields[1])
            elif fields[0] == "logits":
                logits.append([float(value) for value in fields[2:]])
    return accuracy, logits


def saver_nodes(definition, scope):
    """The nodes of a saver as text, without its scope's name."""
    import dump_graph

    nodes = []
    for node in definition.node:
        if node.name.startswith(scope + "/"):
            copy = type(node)()
            copy.CopyFrom(node)
            copy.attr.pop("_output_shapes", None)
            copy.attr.pop(NEW_ATTRIBUTE, None)
            nodes.append("\n".join(dump_graph.node_lines(copy)).replace(scope + "/", "save/"))
    return nodes


def theirs(arguments, verdict):
    verdict.agree(
        read_eval(arguments.output), read_trajectory(arguments.trajectory), arguments.tolerance, "TensorFlow's checkpoint here"
    )


def ours(arguments, verdict):
    import math

    import mnist
    from lenet_graph import LenetGraph, tf

    prefix = arguments.prefix
    images, labels = mnist.read_split(arguments.data, "t10k")
    batch = mnist.TrainingBatches(arguments.data, 500)[0]
    expected = read_eval(arguments.output)

    def predicted(lenet):
        return lenet.test_accuracy(images, labels), lenet.logits(images[:IMAGES]).tolist()

    def trains_on(lenet, what):
        losses = [lenet.step(batch) for _ in range(3)]
        verdict(all(math.isfinite(loss) for pair in losses for loss in pair), f"{what} trains on: {losses[-1]}")

    latest = tf.train.latest_checkpoint(os.path.dirname(prefix))
    verdict(os.path.abspath(latest or "") == os.path.abspath(prefix), f"the folder's latest checkpoint: {latest}")
    reader = tf.train.load_checkpoint(prefix)
    names = sorted(reader.get_variable_to_shape_map())
    elements = sum(reader.get_tensor(name).size for name in names)
    extra = [name for name in names if name.startswith("_")]
    verdict(bool(names), f"{len(names)} tensors with {elements} elements read, {len(extra)} of them the engine's own")

    lenet = LenetGraph(arguments.graph)
    variables = lenet.variables()
    saver = lenet.make_saver(variables)
    missing = sorted(set(variables) - set(names)) + sorted(set(names) - set(variables) - set(extra))
    verdict(not missing, f"the variables of graph and checkpoint are the same {len(variables)} {missing}")
    lenet.restore(saver, prefix)
    verdict.agree(expected, predicted(lenet), arguments.tolerance, "our checkpoint in TensorFlow, by name")
    trains_on(lenet, "the exported graph")
    theirs_nodes = saver_nodes(lenet.graph.as_graph_def(), "save")

    meta = LenetGraph(prefix + ".meta", meta=True)
    meta.restore(meta.saver, prefix)
    verdict.agree(expected, predicted(meta), arguments.tolerance, "our checkpoint in TensorFlow, by its .meta")
    trains_on(meta, "the .meta")
    ours_nodes = saver_nodes(meta.definition, "save")
    differing = [(a, b) for a, b in zip(ours_nodes, theirs_nodes) if a != b]
    good = not differing and len(ours_nodes) == len(theirs_nodes)
    verdict(good, f"{len(ours_nodes)} nodes of our saver and {len(theirs_nodes)} of TensorFlow's, {len(differing)} differ")
    for a, b in differing[:2]:
        print(f"ours:\n{a}\nTensorFlow's:\n{b}")


def save(arguments, _verdict):
    import mnist
    from lenet_graph import LenetGraph

    lenet = LenetGraph(arguments.graph)
    lenet.step(mnist.TrainingBatches(arguments.data, 500)[0])
    lenet.save(lenet.make_saver(lenet.variables()), arguments.prefix)
    images, labels = mnist.read_split(arguments.data, "t10k")
    print(f"test_accuracy {lenet.test_accuracy(images, labels)!r}")
    for index, row in enumerate(lenet.logits(images[:IMAGES])):
        print(f"logits {index}", *map(repr, row.tolist()))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tolerance", type=float, default=1e-4)
    parser.add_argument("--data", default="data", help="folder of MNIST's .gz files (default: data)")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("theirs", "ours"):
        command = commands.add_parser(name)
        command.add_argument("prefix")
        command.add_argument("--output", required=True, help="what `lenet eval --logits 8` printed")
        if name == "theirs":
            command.add_argument("--trajectory", default=os.path.join(FIXTURES, "trajectory_adam.txt"))
        else:
            command.add_argument("--graph", required=True, help="what `lenet export` wrote")
    command = commands.add_parser("save")
    command.add_argument("graph")
    command.add_argument("prefix")
    arguments = parser.parse_args()
    verdict = Verdict()
    {"theirs": theirs, "ours": ours, "save": save}[arguments.command](arguments, verdict)
    sys.exit(1 if verdict.failures else 0)


if __name__ == "__main__":
    main()
