#!/usr/bin/env python3
"""Make the checkpoints of ../fixtures with real TensorFlow.

    lenet export --graph-def small.pb --seed 1 --c1 3 --c2 4 --d1 10 --d2 10 --l1-coeff 0 --weight-decay-coeff 0
    make_checkpoint_fixture.py small.pb

small.ckpt.{index,data-00000-of-00001}   the ten parameters of a small network after some steps of training in TensorFlow
trajectory_small.txt                     test accuracy, and logits of the first 8 test images, as TensorFlow predicts them
../../graph-core/tests/fixtures/partitioned.{index,data-00000-of-00001}
                                         variables in slices, as tf.compat.v1's partitioners make them
"""
import argparse
import os

import dump_graph
import mnist
import numpy as np
from lenet_graph import LenetGraph, tf, v1

HERE = os.path.dirname(os.path.abspath(__file__))
FIXTURES = os.path.join(HERE, os.pardir, "fixtures")
CORE_FIXTURES = os.path.join(HERE, os.pardir, os.pardir, "graph-core", "tests", "fixtures")
STEPS = 200


def small(path, data):
    lenet = LenetGraph(path, threads=1)
    batches = mnist.TrainingBatches(data, 100)
    for step in range(STEPS):
        lenet.step(batches[step], keep=1.0)
    lenet.save(lenet.make_saver(lenet.parameters()), os.path.join(FIXTURES, "small.ckpt"), write_state=False)
    images, labels = mnist.read_split(data, "t10k")
    lines = [
        f"# A small network after {STEPS} steps in TensorFlow. Made by tests/tensorflow/make_checkpoint_fixture.py.",
        f"test_accuracy {lenet.test_accuracy(images, labels)!r}",
    ]
    lines += [f"logits {k} " + " ".join(map(repr, row.tolist())) for k, row in enumerate(lenet.logits(images[:8]))]
    dump_graph.write_text(os.path.join(FIXTURES, "trajectory_small.txt"), "\n".join(lines) + "\n")


def partitioned():
    """rows [5, 3] and columns [5, 3] hold 0.0, 1.0, ..; long [200] holds 0, 1, ..; whole [2] holds 0.0, 1.0."""
    with tf.Graph().as_default(), v1.Session() as session:
        for name, shape, dtype, parts, axis in [
            ("rows", [5, 3], tf.float32, 2, 0),
            ("columns", [5, 3], tf.float32, 3, 1),
            ("long", [200], tf.int32, 2, 0),
            ("whole", [2], tf.float32, 1, 0),
        ]:
            partitioner = v1.fixed_size_partitioner(parts, axis) if parts > 1 else None
            zeros = v1.zeros_initializer()
            variable = v1.get_variable(name, shape, dtype, zeros, partitioner=partitioner, use_resource=False)
            values = np.arange(np.prod(shape), dtype=dtype.as_numpy_dtype).reshape(shape)
            for part in variable if partitioner else [variable]:
                info = part._get_save_slice_info()
                box = tuple(slice(o, o + n) for o, n in zip(info.var_offset, info.var_shape)) if info else ...
                session.run(part.assign(values[box]))
        prefix = os.path.join(CORE_FIXTURES, "partitioned")
        v1.train.Saver().save(session, prefix, write_meta_graph=False, write_state=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("graph", help="the small network's GraphDef")
    parser.add_argument("--data", default="data", help="folder of MNIST's .gz files (default: data)")
    arguments = parser.parse_args()
    small(arguments.graph, arguments.data)
    partitioned()


if __name__ == "__main__":
    main()
