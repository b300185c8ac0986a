#!/usr/bin/env python3
"""Record a small TensorFlow session: variables, an optimizer with slots, several dtypes, a run that fails.

The folder is for `graph replay`, which must give the same numbers. It must not exist.
"""
import argparse
import os
import sys


def record(folder):
    import numpy as np
    import tensorflow as tf

    from recorded import Recorder

    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 3], name="x")
        labels = v1.placeholder(tf.int64, [None], name="labels")
        weights = v1.Variable(np.linspace(-1, 1, 12, dtype="f4").reshape(3, 4), name="weights", use_resource=False)
        bias = v1.Variable(np.zeros(4, "f4"), name="bias", use_resource=False)
        logits = tf.nn.bias_add(tf.matmul(x, weights), bias, name="logits")
        loss = tf.reduce_mean(v1.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits), name="loss")
        train = v1.train.AdamOptimizer(0.1, name="adam").minimize(loss)
        right = tf.equal(tf.argmax(logits, 1), labels, name="right")
        half = tf.cast(logits, tf.half, name="half")
        short = tf.cast(logits, tf.bfloat16, name="short")
        spectrum = tf.multiply(tf.complex(logits, -logits), tf.constant(1j, tf.complex64), name="spectrum")
        text = tf.strings.join([tf.constant(["a", "bc"]), tf.constant("-")], name="text")
        first = tf.gather(x, tf.constant([7]), name="row_7")
        init = v1.global_variables_initializer()

    random = np.random.default_rng(7)
    batch = {x: random.standard_normal((5, 3)).astype("f4"), labels: random.integers(0, 4, 5)}
    with v1.Session(graph=graph) as session:
        recorder = Recorder(session, folder)
        expect_error(recorder, [weights._variable], {})
        recorder.run(targets=[init])
        for _ in range(3):
            recorder.run([loss], batch, [train])
        recorder.run([logits, right, half, short, spectrum, text], batch)
        expect_error(recorder, [first], batch)
        recorder.run([weights._variable, bias._variable], {logits: np.ones((5, 4), "f4")})


def expect_error(recorder, fetches, feeds):
    import tensorflow as tf

    try:
        recorder.run(fetches, feeds)
    except tf.errors.OpError:
        return
    raise AssertionError("the run must fail")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="DIR")
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    record(arguments.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
