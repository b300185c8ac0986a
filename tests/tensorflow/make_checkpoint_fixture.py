#!/usr/bin/env python3
"""Make the checkpoints of ../fixtures with real TensorFlow.

    lenet export --graph-def small.pb --optimizer sgd --seed 1 --c1 2 --c2 2 --d1 4 --d2 4
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
from lenet_graph import LenetGraph, tf, v1

HERE = os.path.dirname(os.path.abspath(__file__))
FIXTURES = os.path.join(HERE, os.pardir, "fixtures")
CORE_FIXTURES = os.path.join(HERE, os.pardir, os.pardir, "graph-core", "tests", "fixtures")
STEPS = 40


def save(session, saver, folder, name):
    saver.save(session, os.path.join(folder, name), write_meta_graph=False, write_state=False)


def small(path, data):
    lenet = LenetGraph(path, threads=1)
    batches = mnist.TrainingBatches(data, 100)
    for step in range(STEPS):
        lenet.step(batches[step], keep=1.0)
    with lenet.graph.as_default():
        saver = v1.train.Saver({name: lenet.variable(name) for name in lenet.parameters()})
    save(lenet.session, saver, FIXTURES, "small.ckpt")
    images, labels = mnist.read_split(data, "t10k")
    lines = [
        f"# A small network after {STEPS} steps in TensorFlow. Made by tests/tensorflow/make_checkpoint_fixture.py.",
        f"test_accuracy {lenet.test_accuracy(images, labels)!r}",
    ]
    lines += [f"logits {k} " + " ".join(map(repr, row)) for k, row in enumerate(lenet.logits(images[:8]))]
    dump_graph.write_text(os.path.join(FIXTURES, "trajectory_small.txt"), "\n".join(lines) + "\n")


def partitioned():
    with tf.Graph().as_default(), v1.Session() as session:
        matrix = [[10.0 * row + column for column in range(3)] for row in range(5)]
        v1.get_variable("rows", initializer=matrix, partitioner=v1.fixed_size_partitioner(2, 0), use_resource=False)
        v1.get_variable("columns", initializer=matrix, partitioner=v1.fixed_size_partitioner(3, 1), use_resource=False)
        long = tf.range(200, dtype=tf.int32)
        v1.get_variable("long", initializer=long, partitioner=v1.fixed_size_partitioner(2, 0), use_resource=False)
        v1.get_variable("whole", initializer=[1.0, 2.0], use_resource=False)
        session.run(v1.global_variables_initializer())
        save(session, v1.train.Saver(), CORE_FIXTURES, "partitioned")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("graph", help="the small network's GraphDef")
    parser.add_argument("--data", default="data", help="folder of MNIST's .gz files (default: data)")
    arguments = parser.parse_args()
    small(arguments.graph, arguments.data)
    partitioned()


if __name__ == "__main__":
    main()
