"""Writes fixtures/tensorflow.meta, a small training graph as TensorFlow's own MetaGraph, and what training it gives.

    python make_meta_graph.py ../fixtures

A linear model with momentum and a global step, every kind of collection, and a `cond` that guards an assertion.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import tensorflow as tf

tf1 = tf.compat.v1

STEPS = 5
IMAGES = [[1.0, 2.0], [3.0, -1.0], [0.5, 0.25]]
TARGETS = [[1.0], [2.0], [3.0]]


def build():
    x = tf1.placeholder(tf.float32, [None, 2], name="x")
    y = tf1.placeholder(tf.float32, [None, 1], name="y")
    weights = tf1.Variable([[0.5], [-0.5]], name="weights")
    step = tf1.train.get_or_create_global_step()
    with tf1.control_dependencies([tf1.assert_greater(tf1.reduce_max(x), 0.0)]):
        error = tf.identity(tf1.matmul(x, weights) - y, name="error")
    loss = tf.reduce_mean(tf.square(error), name="loss")
    tf1.train.MomentumOptimizer(0.05, 0.9).minimize(loss, global_step=step, name="train")
    tf1.summary.scalar("watched", loss)
    tf1.global_variables_initializer()
    tf1.add_to_collection("trainable_params", weights)
    tf1.add_to_collection("numbers", 3)
    tf1.add_to_collection("names", "hello")
    tf1.add_to_collection("rates", 0.5)
    return loss


def main(folder):
    tf1.disable_eager_execution()
    tf1.disable_resource_variables()
    tf1.disable_control_flow_v2()
    graph = tf1.Graph()
    with graph.as_default(), tf1.Session(graph=graph) as session:
        loss = build()
        message = tf1.train.export_meta_graph()
        session.run("init")
        feeds = {"x:0": IMAGES, "y:0": TARGETS}
        losses = [session.run([loss, "train"], feeds)[0] for _ in range(STEPS)]
    (folder / "tensorflow.meta").write_bytes(message.SerializeToString(deterministic=True))
    (folder / "tensorflow_meta_losses.txt").write_text("".join(f"{loss:.9g}\n" for loss in losses))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
