"""Writes fixtures/saved_model, a SavedModel as TensorFlow 1's builder makes it, and fixtures/saved_model.txt, its answers.

    python make_saved_model.py ../fixtures

Two graphs under different tags, an asset, an operation to run after loading, a local variable.
"""

import os
import shutil
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import numpy as np
import tensorflow as tf

tf1 = tf.compat.v1


def main(folder):
    tf1.disable_eager_execution()
    tf1.disable_resource_variables()
    target = folder / "saved_model"
    shutil.rmtree(target, ignore_errors=True)
    asset = folder / "words.txt"
    asset.write_text("one two three\n")
    with tf1.Graph().as_default(), tf1.Session() as session:
        x = tf1.placeholder(tf.float32, [None, 2], name="x")
        weights = tf1.Variable([[0.5, -1.0, 2.0], [1.5, 0.25, -0.5]], name="weights")
        bias = tf1.get_variable("bias", initializer=[0.1, 0.2, 0.3])
        ready = tf1.Variable(0.0, name="ready", trainable=False, collections=["local_variables"])
        y = tf1.nn.softmax(tf1.matmul(x, weights) + bias + ready, name="y")
        name = tf1.constant(str(asset), name="name")
        tf1.add_to_collection("asset_filepaths", name)
        session.run([tf1.global_variables_initializer(), tf1.local_variables_initializer()])
        signature = tf1.saved_model.signature_def_utils.predict_signature_def({"x": x}, {"y": y})
        builder = tf1.saved_model.Builder(str(target))
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            {"serving_default": signature},
            assets_collection=tf1.get_collection("asset_filepaths"),
            main_op=tf1.group(tf1.assign(ready, 1.0), name="init_all"),
        )
        builder.add_meta_graph(["train", "gpu"])
        builder.save()
        inputs = np.array([[1.0, 2.0], [-0.5, 0.25]], np.float32)
        session.run("init_all")
        outputs = session.run(y, {x: inputs})
    asset.unlink()
    (folder / "saved_model.txt").write_text(" ".join(f"{value:.9g}" for value in outputs.reshape(-1)) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
