#!/usr/bin/env python3
"""Make tests/fixtures from the reference runs of TensorFlow 1.15 (folders seed1_adam, seed1_sgd, seed1_rmsprop).

graph_<optimizer>.txt       the reference GraphDef in the canonical form of dump_graph.py
trajectory_<optimizer>.txt  the reference training run, one fact a line, fields parted by blanks, `#` begins a comment:
    graph_seed N            graph-level seed
    keep_prob P
    batch_size N            batch of step k: rows k*N .. k*N+N of the 55,000 training images in file order
    init NAME SUM ABSSUM V0 V1 V2 V3        an initial parameter: sum, sum of magnitudes (both in f64), first values
    sample NAME COUNT WEIGHTED INDEX VALUE [INDEX VALUE ...]
                            more of it, as TensorFlow 2 makes it from the same graph: number of elements, the f64 sum of
                            value * (1 + flat index mod 97), and evenly spaced elements by flat index
    step K OBJECTIVE COST   before the update of step K
    test_accuracy A         over the 10,000 test images after the last step
    logits K L0 .. L9       of test image K
saver_adam.txt              the nodes of the reference's two savers, of all variables and of the ten parameters, in the form of
                            dump_graph.py; from the .meta file beside seed1_adam's checkpoint
histograms.txt, images.txt  what TensorFlow's summary ops make of small inputs; see make_summary_fixtures.py
event_tags.txt              `KIND TAG` a line, as TensorBoard's EventAccumulator lists the reference's event file

Numbers are written so that they read back exactly.
"""
import argparse
import glob
import json
import os
import sys

import dump_graph
import make_summary_fixtures

OPTIMIZERS = ("adam", "sgd", "rmsprop")
SAMPLES = 32


def graph_text(folder):
    return "\n".join(dump_graph.graph_lines(dump_graph.read_graph(os.path.join(folder, "graph.pb")))) + "\n"


def sample_line(name, values):
    import numpy as np

    flat = values.reshape(-1)
    weighted = float((flat.astype(np.float64) * (1 + np.arange(flat.size) % 97)).sum())
    indices = np.unique(np.linspace(0, flat.size - 1, SAMPLES).astype(int))
    return f"sample {name} {flat.size} {weighted!r} " + " ".join(f"{i} {float(flat[i])!r}" for i in indices)


def trajectory_text(folder):
    import numpy as np
    from lenet_graph import LenetGraph

    with open(os.path.join(folder, "trajectory.json")) as file:
        run = json.load(file)
    lines = [
        f"# The first {len(run['obj_cost'])} training steps of TensorFlow {run['tensorflow']}, optimizer {run['optimizer']}.",
        "# Made by tests/tensorflow/make_fixtures.py, which explains the lines.",
        f"graph_seed {run['graph_seed']}",
        f"keep_prob {run['keep_prob']!r}",
        "batch_size 500",
    ]
    lines += [f"init {name} {total!r} {size!r} " + " ".join(map(repr, first)) for name, (total, size, first) in run["init"].items()]
    parameters = LenetGraph(os.path.join(folder, "graph.pb")).parameters()
    if list(parameters) != list(run["init"]):
        raise ValueError(f"{folder}: the graph's parameters are not those of the run")
    for name, values in parameters.items():
        total, size, first = run["init"][name]
        if not np.allclose(values.reshape(-1)[: len(first)], first, rtol=0, atol=1e-6):
            raise ValueError(f"{folder}: TensorFlow 2 makes other initial values of {name}")
        wide = values.astype(np.float64)
        if abs(wide.sum() - total) > 1e-3 or abs(np.abs(wide).sum() - size) > 1e-3:
            raise ValueError(f"{folder}: TensorFlow 2 makes other sums of {name}: {wide.sum()} {np.abs(wide).sum()}, not {total} {size}")
        lines.append(sample_line(name, values))
    lines += [f"step {k} {objective!r} {cost!r}" for k, (objective, cost) in enumerate(run["obj_cost"])]
    lines.append(f"test_accuracy {run['test_accuracy']!r}")
    lines += [f"logits {k} " + " ".join(map(repr, row)) for k, row in enumerate(run["test_logits_first8"])]
    return "\n".join(lines) + "\n"


def saver_text(folder):
    from tensorboard.compat.proto import graph_pb2, meta_graph_pb2

    with open(glob.glob(os.path.join(folder, "weights", "*.meta"))[0], "rb") as file:
        meta = meta_graph_pb2.MetaGraphDef.FromString(file.read())
    graph = graph_pb2.GraphDef(versions=meta.graph_def.versions)
    graph.node.extend(node for node in meta.graph_def.node if node.name.startswith(("save/", "save_weights/")))
    return "\n".join(dump_graph.graph_lines(graph)) + "\n"


def event_tags_text(folder):
    from check_events import read_tags

    return "".join(f"{kind} {tag}\n" for kind, tag in read_tags(folder))


def fixtures(reference):
    """(file name, function that makes its text)"""
    for optimizer in OPTIMIZERS:
        folder = os.path.join(reference, f"seed1_{optimizer}")
        yield f"graph_{optimizer}.txt", lambda folder=folder: graph_text(folder)
        yield f"trajectory_{optimizer}.txt", lambda folder=folder: trajectory_text(folder)
    yield "saver_adam.txt", lambda: saver_text(os.path.join(reference, "seed1_adam"))
    yield "histograms.txt", make_summary_fixtures.histograms_text
    yield "images.txt", make_summary_fixtures.images_text
    yield "event_tags.txt", lambda: event_tags_text(os.path.join(reference, "seed1_adam", "tensorboard"))


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", required=True, help="folder that holds seed1_adam, seed1_sgd, seed1_rmsprop")
    parser.add_argument("--out", default=os.path.join(here, os.pardir, "fixtures"))
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a fixture differs")
    arguments = parser.parse_args()
    if not glob.glob(os.path.join(arguments.reference, "seed1_*")):
        parser.error(f"{arguments.reference}: holds no seed1_* folder")
    differing = 0
    for name, make in fixtures(arguments.reference):
        path, text = os.path.join(arguments.out, name), make()
        if arguments.check:
            with open(path, encoding="utf-8") as file:
                same = file.read() == text
            differing += not same
            print(f"{'ok  ' if same else 'FAIL'} {name}")
        else:
            dump_graph.write_text(path, text)
            print(f"wrote {name}: {text.count(chr(10))} lines")
    sys.exit(1 if differing else 0)


if __name__ == "__main__":
    main()
