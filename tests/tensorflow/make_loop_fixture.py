"""Writes fixtures/while_loop.txt: what TensorFlow 1.15 builds of while loops and their gradients, and what comes out of them.

    python make_loop_fixture.py ../fixtures

It wants Python 3.7 with `tensorflow==1.15.0 protobuf<3.21`.

After `case NAME` comes the graph in the form that `dump_graph.py` tells, and after `values NAME` a line for each tensor that
was fetched, `tensor numbers`. What is fed is in `FEEDS` here, and in `tests/while_loop.rs`, which builds the same loops.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import numpy as np
import tensorflow as tf

import dump_graph

tf1 = tf.compat.v1
FEEDS = {
    "a": 2.0,
    "b": -0.5,
    "x": 1.5,
    "n": 4,
    "flag": True,
    "matrix": [[2.0, 1.0], [0.5, 1.0]],
    "vector": [[1.0], [-0.5]],
    "rows": [0.5, -1.0, 2.0],
}


def scalar(name, dtype=tf.float32):
    return tf1.placeholder(dtype, [], name=name)


def matrix(name, *shape):
    return tf1.placeholder(tf.float32, shape, name=name)


def counting():
    return [tf.while_loop(lambda i: tf.less(i, 10), lambda i: i + 3, [tf.constant(0)])]


def options():
    x, n = scalar("x"), scalar("n", tf.int32)

    def body(i, y):
        return [tf.add(i, 1), tf.multiply(y, y)]

    return tf.while_loop(
        lambda i, y: tf.less(i, n), body, [0, x], parallel_iterations=1, swap_memory=True, maximum_iterations=3, name="power"
    )


def what_comes_in():
    """Constants, values from outside, what is made of these alone, and control dependencies on both sides."""
    a, x = scalar("a"), scalar("x")
    with tf1.control_dependencies([tf1.no_op(name="before"), tf.multiply(a, x, name="product")]):

        def body(y):
            twice = tf.multiply(a, a)
            with tf1.control_dependencies([twice]):
                one = tf.constant(1.0, name="one")
            return tf.add(tf.multiply(y, twice), one)

        return [tf.while_loop(lambda y: tf.less(y, 100.0), body, [x])]


def growing():
    x = matrix("rows", 3)
    count, rows = tf.while_loop(
        lambda i, rows: tf.less(i, 2),
        lambda i, rows: [tf.add(i, 1), tf.concat([rows, rows], 0)],
        [tf.constant(0), x],
        shape_invariants=[tf.TensorShape([]), tf.TensorShape([None])],
    )
    return [count, rows]


def newton():
    a, x = scalar("a"), scalar("x")

    def body(i, y):
        return tf.add(i, 1), tf.multiply(tf.add(y, tf.divide(a, y)), 0.5)

    _, root = tf.while_loop(lambda i, y: tf.less(i, 3), body, [0, x])
    return [root] + tf.gradients(root, [a, x])


def power_iteration():
    a, v, n = matrix("matrix", 2, 2), matrix("vector", 2, 1), scalar("n", tf.int32)
    _, v_n = tf.while_loop(
        lambda i, v: tf.less(i, n), lambda i, v: (tf.add(i, 1), tf.tanh(tf.matmul(a, v))), [0, v], swap_memory=True
    )
    return [v_n] + tf.gradients(v_n, [a, v])


def unused():
    """An end that nothing uses, and a variable that does not depend on what it was."""
    a, x = scalar("a"), scalar("x")

    def body(i, y, z, w):
        return tf.add(i, 1), tf.multiply(z, a), tf.square(z), tf.multiply(y, z)

    _, y, z, w = tf.while_loop(lambda i, *_: tf.less(i, 3), body, [0, x, x, a])
    return [y] + tf.gradients(y, [a, x])


def unknown_shapes():
    a, x = matrix("rows", None), matrix("vector", None, 1)
    _, y = tf.while_loop(lambda i, y: tf.less(i, 3), lambda i, y: (tf.add(i, 1), tf.multiply(tf.sin(y), a)), [0, x],
                         shape_invariants=[tf.TensorShape([]), tf.TensorShape([None, None])])
    return [y] + tf.gradients(y, [a, x])


def nested():
    a, x = scalar("a"), scalar("x")

    def body(i, y):
        _, z = tf.while_loop(lambda j, z: tf.less(j, i), lambda j, z: (tf.add(j, 1), tf.multiply(tf.sin(z), a)), [0, y])
        return tf.add(i, 1), tf.multiply(z, y)

    _, y = tf.while_loop(lambda i, y: tf.less(i, 3), body, [0, x])
    return [y] + tf.gradients(y, [a, x])


def branch_inside():
    a, x = scalar("a"), scalar("x")

    def body(i, y):
        y = tf1.cond(tf.less(y, 2.0), lambda: tf.multiply(y, a), lambda: tf.sin(y))
        return tf.add(i, 1), y

    _, y = tf.while_loop(lambda i, y: tf.less(i, 4), body, [0, x])
    return [y] + tf.gradients(y, [a, x])


def inside_a_branch():
    a, x, flag = scalar("a"), scalar("x"), scalar("flag", tf.bool)

    def loop():
        return tf.while_loop(lambda i, y: tf.less(i, 3), lambda i, y: (tf.add(i, 1), tf.multiply(tf.sin(y), a)), [0, x])[1]

    y = tf1.cond(flag, loop, lambda: tf.multiply(x, a))
    return [y] + tf.gradients(y, [a, x])


def array():
    """Rows read from one TensorArray and written to another, as a recurrent network does."""
    x, a = matrix("rows", 3), scalar("a")
    taken = tf.TensorArray(tf.float32, 3, name="taken").unstack(x)
    given = tf.TensorArray(tf.float32, 3, name="given")

    def body(i, y, given):
        y = tf.multiply(tf.add(y, taken.read(i)), a)
        return tf.add(i, 1), y, given.write(i, y)

    _, _, given = tf.while_loop(lambda i, *_: tf.less(i, 3), body, [0, a, given])
    y = given.stack()
    return [y] + tf.gradients(y, [a, x])


CASES = [counting, options, what_comes_in, growing, newton, power_iteration, unused, unknown_shapes, nested, branch_inside, inside_a_branch, array]


def lines(case):
    with tf1.Graph().as_default() as graph, tf1.Session(graph=graph) as session:
        fetches = case()
        yield f"case {case.__name__}"
        yield from dump_graph.graph_lines(graph.as_graph_def(add_shapes=True))
        placeholders = [op.name for op in graph.get_operations() if op.type == "Placeholder"]
        values = session.run(fetches, {f"{name}:0": FEEDS[name] for name in placeholders})
        yield f"values {case.__name__}"
        for tensor, value in zip(fetches, values):
            yield " ".join([tensor.name] + [f"{number:.9g}" for number in np.ravel(value)])


def main(folder):
    if not tf.__version__.startswith("1.15."):
        sys.exit(f"this wants TensorFlow 1.15, not {tf.__version__}")
    tf1.disable_eager_execution()
    tf1.disable_control_flow_v2()
    text = [line for case in CASES for line in lines(case)]
    (folder / "while_loop.txt").write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
