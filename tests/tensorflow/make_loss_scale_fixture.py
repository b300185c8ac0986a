"""Writes fixtures/loss_scale.txt: what TensorFlow 1.15's optimizer that scales the loss builds, and how its variables go.

    python make_loss_scale_fixture.py ../fixtures

It wants Python 3.7 with `tensorflow==1.15.0 protobuf<3.21`; TensorFlow 2.21 makes the same but for a constant in the branch.

After `graph KIND` comes a line for each node in order of creation, `op name <- inputs [colocation groups]`, without those of
the variable, the counter and the gradients. After `steps KIND` come the lines of a run: the two numbers that are the gradient,
and after the step the loss scale, the good steps, the variable, its slot and the counter.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import tensorflow as tf

tf1 = tf.compat.v1
experimental = tf1.train.experimental
INF, NAN = float("inf"), float("nan")

# Grows after every third good step, is halved by each bad one, starts to count anew after both, and stops at 1.
GROWS = [(1, -2), (0.5, 0.25), (0, 1), (INF, 0), (NAN, NAN), (1, 1), (2, -INF), (3, 3), (NAN, 1), (1, NAN)]
GROWS += [(0.5, 0.5), (-1, 1), (2, 0), (1, 1), (0.25, 0.5), (0, 0), (-0.125, 1)]
# Twice the largest scale is not finite: it stays, and the count starts anew.
LARGE = [(0, 0), (0, 0), (0, 0), (0, 0), (NAN, 0), (0, 0)]
KINDS = {
    "dynamic": (GROWS, lambda: experimental.DynamicLossScale(initial_loss_scale=8, increment_period=3, multiplier=2)),
    "large": (LARGE, lambda: experimental.DynamicLossScale(initial_loss_scale=2.0**126, increment_period=2, multiplier=2)),
    "thrice": (GROWS, lambda: experimental.DynamicLossScale(initial_loss_scale=10, increment_period=1, multiplier=3)),
    "fixed": (GROWS[:3], lambda: 16),
    # Variables of its own that are no slots, in a scope.
    "adam": ([], lambda: "dynamic"),
}


def build(kind, loss_scale):
    variable = tf1.Variable([1.0, 2.0], name="v")
    step = tf1.Variable(tf.constant(0, tf.int64), name="step", trainable=False)
    gradient = tf1.placeholder(tf.float32, [2], name="gradient")
    loss = tf1.reduce_sum(variable * gradient)
    if kind == "adam":
        with tf1.variable_scope("train"):
            inner = tf1.train.AdamOptimizer(0.5, name="adam")
            optimizer = experimental.MixedPrecisionLossScaleOptimizer(inner, loss_scale())
            return gradient, optimizer.minimize(loss, var_list=[variable]), [], []
    inner = tf1.train.MomentumOptimizer(0.5, 0.75, name="momentum")
    optimizer = experimental.MixedPrecisionLossScaleOptimizer(inner, loss_scale())
    train = optimizer.minimize(loss, var_list=[variable], global_step=step)
    watched = [variable, inner.get_slot(variable, "momentum"), step]
    return gradient, train, [*optimizer._loss_scale._weights.values()], watched


def lines(kind):
    gradients, loss_scale = KINDS[kind]
    with tf1.Graph().as_default() as graph, tf1.Session(graph=graph) as session:
        gradient, train, scale, watched = build(kind, loss_scale)
        if kind in ("dynamic", "fixed", "adam"):
            yield f"graph {kind}"
            for node in graph.as_graph_def().node:
                if not node.name.startswith(("v", "step", "gradient", "train/gradient")):
                    groups = [group.decode() for group in node.attr["_class"].list.s]
                    yield f"{node.op} {node.name} <- {', '.join(node.input)} {' '.join(groups)}".rstrip()
        if not gradients:
            return
        session.run(tf1.global_variables_initializer())
        yield f"steps {kind}"
        for fed in gradients:
            session.run(train, {gradient: fed})
            values = session.run(scale + watched)
            if not scale:
                values = [16.0, 0, *values]
            current, good, variable, slot, step = values
            numbers = [*fed, current, good, *variable, *slot, step]
            yield " ".join(f"{float(number):.9g}" for number in numbers)


def main(folder):
    if not tf.__version__.startswith("1.15."):
        sys.exit(f"this wants TensorFlow 1.15, not {tf.__version__}")
    tf1.disable_eager_execution()
    tf1.disable_resource_variables()
    tf1.disable_control_flow_v2()
    text = [line for kind in KINDS for line in lines(kind)]
    (folder / "loss_scale.txt").write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
