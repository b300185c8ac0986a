#!/usr/bin/env python3
"""Which near ties of a Relu part a recorded session from other float32 engines?

    near_ties.py SESSION [--ours target/release/graph]

SESSION is the recorded session `tutorial_seed1_sgd`: steps of sgd with the tutorial's LeNet-5, then logits. The same training
is done in float64, from the initial values and with the dropout masks that the recorded graph gives in TensorFlow. A table tells
how far the last logits are apart. Then come the inputs of dot_2's Relu, among those that dropout keeps, that float64 and
TensorFlow with oneDNN see on different sides of zero. Float64 that decides just these the other way must come to TensorFlow's
logits: exit status 0 when they are within 1e-6, 1 when not.
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import numpy as np
import recorded
import tensorflow as tf

v1 = tf.compat.v1
VARIABLES = [f"{layer}/{what}:0" for layer in "conv_1 conv_2 dot_1 dot_2 logits_layer".split() for what in ("weights", "bias")]
MASKS = [f"dropout_{number}/dropout/Cast:0" for number in (1, 2, 3)]
RELU, LOGITS = "dot_2/pre-activation:0", "logits_layer/pre-activation:0"
RATE, PENALTY = float(np.float32(0.01)), float(np.float32(1e-4))  # constants of the graph, which has them in float32


def read(folder):
    """The graph, the runs, and of each run what was fed and what was fetched, by names."""
    graph = v1.GraphDef.FromString((folder / "graph.pb").read_bytes())
    runs = json.loads((folder / "trace.json").read_text())["runs"]
    feeds, fetches = (
        [dict(zip(run[kind], recorded.read_arrays(folder, run[f"{kind}_file"], None, len(run[kind])))) for run in runs]
        for kind in ("feeds", "fetches")
    )
    return graph, runs, feeds, fetches


def tensorflow(folder):
    """The session in TensorFlow: initial values, and of each run with feeds the masks, the inputs of the Relu and the logits."""
    graph_def, runs, feeds, _ = read(folder)
    with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        v1.import_graph_def(graph_def, name="")
        session.run(runs[0]["targets"])
        start = session.run({name: name.replace(":", "/read:") for name in VARIABLES})
        wanted = {name: name for name in [*MASKS, RELU, LOGITS]}
        return start, [session.run([wanted, run["targets"]], fed)[0] for run, fed in zip(runs, feeds) if fed]


def ours(tool, folder):
    """The last logits of the engine: in a copy of the session the last run saves them too."""
    graph_def, runs, *_ = read(folder)
    with tempfile.TemporaryDirectory() as temporary, tf.Graph().as_default() as graph:
        copy, prefix = Path(shutil.copytree(folder, f"{temporary}/session")), f"{temporary}/logits"
        [logits] = v1.import_graph_def(graph_def, return_elements=[LOGITS], name="")
        save = tf.raw_ops.SaveV2(prefix=prefix, tensor_names=["logits"], shape_and_slices=[""], tensors=[logits])
        runs[-1]["targets"].append(save.name)
        (copy / "graph.pb").write_bytes(graph.as_graph_def().SerializeToString())
        (copy / "trace.json").write_text(json.dumps({"runs": runs}))
        # However near the engine is, its logits are wanted.
        subprocess.run([tool, "replay", copy, "--rtol", "1", "--atol", "1"], check=True, stdout=subprocess.DEVNULL)
        return tf.train.load_checkpoint(prefix).get_tensor("logits")


def pooled(x):
    """Relu, pooling, and normalization over the nearest channels."""
    x = tf.nn.max_pool2d(tf.nn.relu(x), 2, 2, "VALID")
    squares, channels = tf.pad(x * x, [[0, 0]] * 3 + [[5, 5]]), x.shape[-1]
    return x / tf.sqrt(1 + tf.add_n([squares[..., first : first + channels] for first in range(11)]))


def float64(feeds, start, theirs, follow):
    """The training in float64. Returns the last logits and, if it follows TensorFlow's decisions, which it took from there."""
    variables = [tf.Variable(start[name], dtype=tf.float64) for name in VARIABLES]
    (w1, b1, w2, b2, w3, b3, w4, b4, w5, b5), flips = variables, []
    for number, (fed, their) in enumerate(zip(feeds, theirs), 1):
        x, labels = (tf.constant(fed[f"dataset_inputs/{name}:0"], tf.float64) for name in ("images", "labels"))
        first, second, third = (tf.constant(their[name] / np.float64(fed["dropout_probability:0"])) for name in MASKS)
        with tf.GradientTape() as tape:
            x = pooled(tf.nn.conv2d(tf.reshape(x, [-1, 28, 28, 1]), w1, 1, "VALID") + b1)
            x = pooled(tf.nn.conv2d(x, w2, 1, "VALID") + b2)
            x = tf.nn.relu(tf.matmul(tf.reshape(x, [-1, 1250]) * first, w3) + b3) * second
            x = tf.matmul(x, w4) + b4
            value = x.numpy()
            other = ((value > 0) != (their[RELU] > 0)) & (their[MASKS[2]] != 0) & follow
            flips += [(number, index, value[index], their[RELU][index]) for index in map(tuple, np.argwhere(other).tolist())]
            # A constant mirrors the value at zero: the gradient goes, or does not go, as on the other side.
            x = tf.nn.relu(x + tf.constant(np.where(other, -2 * value, 0))) * third
            logits = tf.matmul(x, w5) + b5
            cost = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(labels, logits))
            cost += PENALTY * tf.add_n([tf.nn.l2_loss(w) + tf.reduce_sum(tf.abs(w)) for w in variables[::2]])
        if number < len(feeds):  # the last run only asks for logits
            for variable, gradient in zip(variables, tape.gradient(cost, variables)):
                variable.assign_sub(RATE * gradient)
    return logits.numpy(), flips


def compared(got, reference):
    distance = np.abs(got.astype(np.float64) - reference)
    return f"{distance.max():10.2e} {np.sum(distance > 1e-5 + 1e-4 * np.abs(reference)):6}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("session", metavar="SESSION", type=Path, help="the folder of the recorded session")
    parser.add_argument("--ours", metavar="GRAPH_TOOL", help="the program `graph`: the engine's logits are compared too")
    arguments = parser.parse_args()
    _, runs, feeds, fetches = read(arguments.session)
    feeds = [fed for fed in feeds if fed]
    done = []
    for switch in ("1", "0"):
        # TensorFlow reads the switch once, when it is imported: each has a process of its own.
        os.environ["TF_ENABLE_ONEDNN_OPTS"] = switch
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            done.append(pool.submit(tensorflow, arguments.session).result())
    (start, on), (_, off) = done
    for name, value in fetches[1].items():
        assert np.array_equal(value, start[name.replace("/read", "")]), f"{name} does not start as recorded"
    exact, _ = float64(feeds, start, on, False)
    forced, flips = float64(feeds, start, on, True)
    logits = {"recorded": fetches[-1][LOGITS], "TensorFlow, oneDNN on": on[-1][LOGITS], "TensorFlow, oneDNN off": off[-1][LOGITS]}
    if arguments.ours:
        logits["ours"] = ours(arguments.ours, arguments.session)
    print(f"logits after {len(feeds) - 1} steps: largest distance, and how many of {exact.size} are beyond 1e-5 + 1e-4 * |x|")
    print(f"{'':22} {'from float64':>17} {'from recorded':>17}")
    for name, value in logits.items():
        print(f"{name:22} {compared(value, exact)} {'' if name == 'recorded' else compared(value, logits['recorded'])}".rstrip())
    # A leap moves all that comes after it, so float64 has followed the earlier ones where it meets the next.
    print(f"inputs of the Relu of {RELU.split('/')[0]}, kept by dropout, on different sides of zero: {len(flips)}")
    for step, index, value, their in flips:
        print(f"  step {step} (run {len(runs) - len(feeds) + step - 1}) {list(index)}: float64 {value:.2e}, TensorFlow {their:.2e}")
    distance = np.abs(on[-1][LOGITS] - forced).max()
    print(f"{'ok  ' if distance <= 1e-6 else 'FAIL'} float64 that decides these as TensorFlow with oneDNN is {distance:.2e} from its logits")
    return 0 if distance <= 1e-6 else 1


if __name__ == "__main__":
    sys.exit(main())
