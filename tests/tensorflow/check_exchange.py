#!/usr/bin/env python3
"""Go on in real TensorFlow from what the program `exchange` wrote: does TensorFlow come to the same numbers?

    check_exchange.py FOLDER

- the MetaGraph and the checkpoint of the middle of training: imported and restored, training goes on to the same losses;
- the SavedModel: loaded by TensorFlow 1's loader and by TensorFlow 2's, it answers with the same logits;
- the frozen graph: imported, it answers with the same logits, and its nodes are those that TensorFlow's own freezing leaves;
- the graphs with while loops: imported, they and their gradients come to the same numbers.

Exit status 0 when everything agrees, 1 when something does not.
"""
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import numpy as np
import tensorflow as tf

from make_loop_fixture import FEEDS

tf1 = tf.compat.v1
TOLERANCE = 1e-5
BATCH, INPUTS, CLASSES = 6, 4, 3


def batch(step):
    """As the program makes it."""
    index = np.arange(BATCH * INPUTS)
    inputs = ((index * 7 + step * 3) % 11).astype(np.float32) / np.float32(11) - np.float32(0.4)
    return inputs.reshape(BATCH, INPUTS), (np.arange(BATCH) + step) % CLASSES


def read_report(path):
    lines = (line.split() for line in path.read_text().splitlines())
    return {what: np.array(numbers, np.float32) for what, *numbers in lines}


def goes_on(folder, steps):
    """The losses of training on from the checkpoint."""
    with tf1.Graph().as_default() as graph, tf1.Session() as session:
        prefix = tf1.train.latest_checkpoint(str(folder / "checkpoints"))
        saver = tf1.train.import_meta_graph(prefix + ".meta")
        saver.restore(session, prefix)
        [*_] = tf1.trainable_variables()
        losses = []
        for step in range(steps, 2 * steps):
            inputs, labels = batch(step)
            loss, _ = session.run(["loss:0", "train"], {"x:0": inputs, "labels:0": labels})
            losses.append(loss)
        names = [variable.op.name for variable in tf1.global_variables()]
        wanted = {"weights", "bias", "weights/train", "weights/train_1", "beta1_power", "beta2_power"}
        assert wanted <= set(names), f"variables {names}"
        assert graph.get_operation_by_name("train") is not None
    return losses


def saved_by_1(folder, inputs):
    with tf1.Graph().as_default(), tf1.Session() as session:
        model = tf1.saved_model.loader.load(session, ["serve"], str(folder / "saved_model"))
        signature = model.signature_def["serving_default"]
        return session.run(signature.outputs["logits"].name, {signature.inputs["x"].name: inputs})


def saved_by_2(folder, inputs):
    code = (
        "import sys, numpy as np, tensorflow as tf\n"
        "model = tf.saved_model.load(sys.argv[1])\n"
        "x = np.load(sys.argv[2])\n"
        "np.save(sys.argv[3], model.signatures['serving_default'](x=tf.constant(x))['logits'].numpy())\n"
    )
    # Eager execution cannot be had again in a process that has switched it off.
    import subprocess

    x, y = folder / "x.npy", folder / "y.npy"
    np.save(x, inputs)
    subprocess.run([sys.executable, "-c", code, str(folder / "saved_model"), str(x), str(y)], check=True)
    return np.load(y)


def frozen(folder, inputs):
    message = tf1.GraphDef()
    message.ParseFromString((folder / "frozen.pb").read_bytes())
    assert not [node.name for node in message.node if "Variable" in node.op], "a variable is left"
    with tf1.Graph().as_default(), tf1.Session() as session:
        [logits] = tf1.import_graph_def(message, return_elements=["logits:0"], name="")
        return session.run(logits, {"x:0": inputs})


def nodes(message):
    """Of each node, by its name, what freezing decides: op, inputs, and of a constant the value."""

    def value(node):
        return tf.make_ndarray(node.attr["value"].tensor).tolist() if node.op == "Const" else None

    return {node.name: (node.op, list(node.input), value(node)) for node in message.node}


def frozen_here(folder):
    """The nodes of TensorFlow's frozen graph that are not in ours or are others there, and the other way round."""
    ours = tf1.GraphDef()
    ours.ParseFromString((folder / "frozen.pb").read_bytes())
    with tf1.Graph().as_default() as graph, tf1.Session() as session:
        tf1.saved_model.loader.load(session, ["serve"], str(folder / "saved_model"))
        theirs = tf1.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), ["logits"])
    ours, theirs = nodes(ours), nodes(theirs)
    return {name: (ours.get(name), theirs.get(name)) for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)}, len(theirs)


def loops(folder):
    """Of each graph with loops: its name, what comes out of it in TensorFlow, what came out of it here."""
    cases = {}
    for line in (folder / "loops.txt").read_text().splitlines():
        name, tensor, *numbers = line.split()
        cases.setdefault(name, {})[tensor] = np.array(numbers, np.float32)
    for name, expected in cases.items():
        message = tf1.GraphDef()
        message.ParseFromString((folder / f"loop_{name}.pb").read_bytes())
        feeds = {f"{node.name}:0": FEEDS[node.name] for node in message.node if node.op == "Placeholder"}
        with tf1.Graph().as_default(), tf1.Session() as session:
            tf1.import_graph_def(message, name="")
            values = session.run(list(expected), feeds)
        flat = [np.asarray(value, np.float32).reshape(-1) for value in values]
        yield f"loop {name}", np.concatenate(flat), np.concatenate(list(expected.values()))


def main(folder):
    tf1.disable_eager_execution()
    report = read_report(folder / "report.txt")
    inputs, _ = batch(0)
    steps = len(report["after"])
    checks = [
        ("inputs", lambda: inputs, report["inputs"]),
        ("MetaGraph and checkpoint, trained on", lambda: goes_on(folder, steps), report["after"]),
        ("SavedModel, TensorFlow 1's loader", lambda: saved_by_1(folder, inputs), report["logits"]),
        ("SavedModel, TensorFlow 2's loader", lambda: saved_by_2(folder, inputs), report["logits"]),
        ("frozen graph", lambda: frozen(folder, inputs), report["logits"]),
    ]
    failures = 0
    checks += [(what, lambda theirs=theirs: theirs, ours) for what, theirs, ours in loops(folder)]
    for what, theirs, ours in checks:
        theirs = np.asarray(theirs(), np.float32).reshape(-1)
        difference = np.max(np.abs(theirs - ours)) if theirs.shape == ours.shape else np.inf
        verdict = "ok  " if difference <= TOLERANCE else "FAIL"
        failures += verdict == "FAIL"
        print(f"{verdict} {what}: {len(ours)} numbers, at most {difference:.2g} apart")
    differences, count = frozen_here(folder)
    failures += bool(differences) or count == 0
    print(f"{'FAIL' if differences else 'ok  '} frozen graph, beside TensorFlow's own: {count} nodes, {len(differences)} differ")
    for name, (ours, theirs) in sorted(differences.items()):
        print(f"     {name}: {ours} here, {theirs} there")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
