"""Writes fixtures/mixed_precision.txt: what TensorFlow 1.15's auto_mixed_precision makes of graphs, and its lists of ops.

    python make_mixed_precision_fixture.py ../fixtures

It wants Python 3.7 with `tensorflow==1.15.0 protobuf<3.21`: that build has the GPU's kernels, by which the rewrite decides, and
the GPU itself is described to it. First come the lists, `list KIND op op ...`. Then, after `graph NUMBER`, a line for each node
of a random graph, `name op inputs`, and behind `->` the numbers of the outputs that become `half`, of which those of a Switch are
one; then the line `casts name name ...`. All tensors but predicates are of 2 by 2 elements; `end` is fetched.
"""

import os
import random
import sys
import tempfile
from pathlib import Path

LOGS = tempfile.mkdtemp()
os.environ["TF_AUTO_MIXED_PRECISION_GRAPH_REWRITE_LOG_PATH"] = LOGS
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2, device_properties_pb2, rewriter_config_pb2
from tensorflow.python.framework import meta_graph
from tensorflow.python.grappler import cluster, tf_optimizer

GRAPHS, NODES = 60, 24
KINDS = {"WhiteList": "allow", "BlackList": "deny", "GrayList": "infer", "ClearList": "clear"}
# Of each kind some, and some of no list.
UNARY = ["Relu", "Neg", "Abs", "Identity", "StopGradient", "Relu6", "Tanh", "Sigmoid", "Sqrt", "Softplus", "Elu"]
UNARY += ["Exp", "Softmax", "Log", "Sum", "Mean", "Square", "Rsqrt", "Sin"]
BINARY = ["MatMul"] * 6 + ["Mul", "Sub", "Add", "RealDiv", "Maximum", "Minimum", "Pow", "SquaredDifference"]
FLOAT, BOOL, INT32, HALF = 1, 10, 3, 19


def random_graph(draw):
    """Nodes as (name, op, inputs), each made of those before it, `end` of all that nobody else takes."""
    nodes = [("x", "Placeholder", []), ("y", "Placeholder", []), ("predicate", "Placeholder", []), ("axes", "Const", [])]
    tensors = ["x", "y"]

    def add(op, inputs):
        name = f"n{len(nodes)}"
        nodes.append((name, op, inputs))
        return name

    def some():
        # The later ones rather, so that there are long ways.
        return tensors[-1 - min(int(draw.expovariate(0.35)), len(tensors) - 1)]

    def unary(of):
        op = draw.choice(UNARY)
        return add(op, [of, "axes"] if op in ("Sum", "Mean") else [of])

    while len(nodes) < NODES:
        kind = draw.random()
        if kind < 0.4:
            tensors.append(unary(some()))
        elif kind < 0.85:
            tensors.append(add(draw.choice(BINARY), [some(), some()]))
        elif kind < 0.9:
            tensors.append(add("Select", [add("Greater", [some(), some()]), some(), some()]))
        elif kind < 0.93:
            tensors.append(add("Cast", [add("Less", [some(), some()])]))
        elif kind < 0.96:
            both = add("IdentityN", [some(), some()])
            tensors += [f"{both}:0", f"{both}:1"]
        else:
            switch = add("Switch", [some(), "predicate"])
            tensors.append(add("Merge", [unary(f"{switch}:0"), unary(f"{switch}:1")]))
    taken = {tensor for _, _, inputs in nodes for tensor in inputs}
    ends = [tensor for tensor in tensors if tensor not in taken]
    nodes.append(("end", "AddN", ends))
    return nodes


def graph_def(nodes):
    graph = tf.compat.v1.GraphDef()
    for name, op, inputs in nodes:
        node = graph.node.add(name=name, op=op, input=inputs)
        if op == "Placeholder":
            node.attr["dtype"].type = BOOL if name == "predicate" else FLOAT
            for size in [] if name == "predicate" else [2, 2]:
                node.attr["shape"].shape.dim.add(size=size)
        elif op == "Const":
            node.attr["dtype"].type = INT32
            node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto([], tf.int32, [0]))
        elif op == "Cast":
            node.attr["SrcT"].type, node.attr["DstT"].type = BOOL, FLOAT
        elif op == "IdentityN":
            node.attr["T"].list.type.extend([FLOAT] * len(inputs))
        else:
            node.attr["T"].type = FLOAT
        if op in ("AddN", "Merge"):
            node.attr["N"].i = len(inputs)
        if op in ("Sum", "Mean"):
            node.attr["Tidx"].type = INT32
    return graph


def rewritten(nodes):
    """The graph after auto_mixed_precision for a GPU that has tensor cores."""
    environment = {"architecture": "7.0", "cuda": "10000", "cudnn": "7605"}
    gpu = device_properties_pb2.DeviceProperties(type="GPU", environment=environment, num_cores=80, frequency=1000)
    gpu.memory_size = 1 << 34
    place = "/job:localhost/replica:0/task:0/device:GPU:0"
    devices = [device_properties_pb2.NamedDevice(name=place, properties=gpu)]
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graph_def(nodes), name="")
        tf.compat.v1.add_to_collection("train_op", graph.get_tensor_by_name("end:0"))
        meta = meta_graph.create_meta_graph_def(graph=graph)
    config = config_pb2.ConfigProto()
    options = config.graph_options.rewrite_options
    options.meta_optimizer_iterations = rewriter_config_pb2.RewriterConfig.ONE
    options.min_graph_nodes = -1
    options.optimizers.append("auto_mixed_precision")
    return tf_optimizer.OptimizeGraph(config, meta, cluster=cluster.Cluster(devices=devices))


def lines():
    results = []
    for number in range(GRAPHS):
        nodes = random_graph(random.Random(number))
        after = {node.name: node for node in rewritten(nodes).node}
        results.append(f"graph {number}")
        for name, op, inputs in nodes:
            attr = after[name].attr["DstT" if op == "Cast" else "T"]
            # What a comparison gives is no number.
            types = [] if op in ("Greater", "Less") else list(attr.list.type) or [attr.type]
            half = [str(slot) for slot, dtype in enumerate(types) if dtype == HALF]
            results.append(" ".join([name, op, *inputs, *(["->", *half] if half else [])]))
        names = {name for name, _, _ in nodes}
        results.append(" ".join(["casts", *sorted(set(after) - names)]))
    for line in sorted(Path(LOGS).glob("paintbuckets*"))[-1].read_text().split("\n\n"):
        heading, *ops = line.split()
        yield " ".join(["list", KINDS[heading[:-1]], *sorted(ops)])
    yield from results


def main(folder):
    if not tf.__version__.startswith("1.15."):
        sys.exit(f"this wants TensorFlow 1.15, not {tf.__version__}")
    (folder / "mixed_precision.txt").write_text("\n".join(lines()) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
