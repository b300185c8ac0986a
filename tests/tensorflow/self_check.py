#!/usr/bin/env python3
"""Prove that the checks of this folder can fail: spoil good material, one thing at a time, and ask each check to notice.

    self_check.py --tool TOOL --graph GRAPH.pb --losses LOSSES --logdir LOGDIR --listing tests/fixtures/graph_adam.txt

TOOL is the `graph` program; GRAPH, LOSSES and LOGDIR are a good run (adam): each check must pass on them as they are and
fail on every spoiled copy.
"""
import argparse
import glob
import os
import shutil
import struct
import subprocess
import sys
import tempfile

import check_histogram
import dump_graph
import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))


def passes(script, *arguments):
    command = [sys.executable, os.path.join(HERE, script), *map(str, arguments)]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    # A crash is neither a pass nor a failure that was noticed.
    if result.returncode not in (0, 1) or "Traceback" in result.stdout:
        print(result.stdout[-2000:])
        raise RuntimeError(f"{script} crashed")
    return result.returncode == 0


def spoiled_graph(source, target, spoil):
    graph = dump_graph.read_graph(source)
    if not any([spoil(node) for node in graph.node]):
        raise RuntimeError("nothing to spoil in the graph")
    with open(target, "wb") as file:
        file.write(graph.SerializeToString())
    return target


def another_mask(node):
    if node.op != "RandomUniform":
        return False
    node.attr["seed2"].i += 1
    return True


def another_rate(node):
    if not node.name.endswith("/learning_rate"):
        return False
    tensor = node.attr["value"].tensor
    rate = tensor.float_val[0] if tensor.float_val else struct.unpack("<f", tensor.tensor_content)[0]
    tensor.ClearField("tensor_content")
    tensor.float_val[:] = [rate * 1.02]
    return True


def another_shape(node):
    if node.name != "images":
        return False
    node.attr["max_images"].i += 1
    return True


def spoiled_losses(source, target, spoil):
    with open(source) as file:
        lines = [line.split() for line in file if line[:1].isdigit()]
    with open(target, "w") as file:
        file.writelines(" ".join(fields) + "\n" for fields in map(spoil, lines) if fields)
    return target


def drop_step(fields):
    return None if fields[0] == "2" else fields


def another_loss(fields):
    return [fields[0], fields[1], repr(float(fields[2]) * (1.0001 if fields[0] == "2" else 1))]


def nan_loss(fields):
    return [fields[0], "nan" if fields[0] == "2" else fields[1], fields[2]]


def spoiled_events(source, target, spoil):
    """Copies an event file, each event as `spoil` left it."""
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto import event_pb2
    from tensorboard.summary.writer.record_writer import RecordWriter

    os.makedirs(target, exist_ok=True)
    done = False
    with open(os.path.join(target, "events.out.tfevents.1.spoiled"), "wb") as file:
        writer = RecordWriter(file)
        for path in sorted(glob.glob(os.path.join(source, "*tfevents*"))):
            for record in RawEventFileLoader(path).Load():
                event = event_pb2.Event.FromString(record)
                done |= bool(spoil(event))
                writer.write(event.SerializeToString())
    if not done:
        raise RuntimeError("nothing to spoil in the events")
    return target


def each_value(change):
    def spoil(event):
        return any([change(value) for value in event.summary.value])

    return spoil


def rename_tag(value):
    if value.tag != "objective/obj":
        return False
    value.tag = "objective/objective"
    return True


def drop_graph(event):
    found = bool(event.graph_def)
    event.ClearField("graph_def")
    return found


def cut_graph(event):
    from tensorboard.compat.proto import graph_pb2

    if not event.graph_def:
        return False
    graph = graph_pb2.GraphDef.FromString(event.graph_def)
    del graph.node[5:10]
    event.graph_def = graph.SerializeToString()
    return True


def break_png(value):
    data = bytearray(value.image.encoded_image_string)
    if not data:
        return False
    data[len(data) // 2] ^= 0xFF
    value.image.encoded_image_string = bytes(data)
    return True


def lose_count(value):
    if value.WhichOneof("value") != "histo":
        return False
    value.histo.bucket[0] += 1
    return True


def scalar_nan(value):
    if value.WhichOneof("value") != "simple_value":
        return False
    value.simple_value = float("nan")
    return True


def histogram_files(folder, spoil=lambda histogram: None):
    from tensorboard.compat.proto import summary_pb2

    values = np.linspace(-2, 3, 50).astype("<f4")
    values.tofile(os.path.join(folder, "data"))
    summary = summary_pb2.Summary.FromString(check_histogram.tensorflow_summary(values, "any/tag"))
    spoil(summary.value[0].histo)
    with open(os.path.join(folder, "summary"), "wb") as file:
        file.write(summary.SerializeToString())
    return os.path.join(folder, "data"), os.path.join(folder, "summary")


def shift_limit(histogram):
    histogram.bucket_limit[3] = np.nextafter(histogram.bucket_limit[3], 1e9)


def move_count(histogram):
    full = max(range(len(histogram.bucket)), key=lambda i: histogram.bucket[i])
    histogram.bucket[full] -= 1
    histogram.bucket[full - 1] += 1


def spoiled_tool(tool, target, edit):
    """A program like `tool` whose text files are edited by sed."""
    with open(target, "w") as file:
        file.write(f"#!/bin/sh\n'{os.path.abspath(tool)}' \"$@\" || exit\n")
        file.write(f"case $3 in *txt) sed -i '{edit}' \"$3\";; esac\n")
    os.chmod(target, 0o755)
    return target


def cases(arguments, folder):
    """(what, must it pass, script, arguments)"""
    new = iter(os.path.join(folder, str(k)) for k in range(1000))
    graph, losses, logdir = arguments.graph, arguments.losses, arguments.logdir
    imported = ("--data", arguments.data)
    yield "graph as it is", True, "check_graph.py", (graph, arguments.listing)
    yield "an attribute changed", False, "check_graph.py", (spoiled_graph(graph, next(new), another_shape), arguments.listing)
    yield "training as it is", True, "check_import.py", (graph, "--losses", losses, *imported)
    for what, spoil in (("other dropout masks", another_mask), ("learning rate up by 2 %", another_rate)):
        yield what, False, "check_import.py", (spoiled_graph(graph, next(new), spoil), "--losses", losses, *imported)
    for what, spoil in (("one cost off by 1e-4", another_loss), ("one objective NaN", nan_loss), ("one step left out", drop_step)):
        yield what, False, "check_import.py", (graph, "--losses", spoiled_losses(losses, next(new), spoil), *imported)
    yield "text as it is", True, "check_text.py", ("--tool", arguments.tool, graph)
    for what, edit in (
        ("an attribute lost in text", r"s/transpose_a/transpose_c/"),
        ("a digit lost in text", r"s/\(float_val: .*[0-9]\)[0-9]$/\1/"),
        ("text that does not parse", r"s/^node {/nod {/"),
    ):
        yield what, False, "check_text.py", ("--tool", spoiled_tool(arguments.tool, next(new), edit), graph)
    yield "events as they are", True, "check_events.py", (logdir,)
    for what, spoil in (
        ("a tag renamed", each_value(rename_tag)),
        ("no graph", drop_graph),
        ("a graph with holes", cut_graph),
        ("broken pictures", each_value(break_png)),
        ("a histogram that does not add up", each_value(lose_count)),
        ("a scalar NaN", each_value(scalar_nan)),
    ):
        yield what, False, "check_events.py", (spoiled_events(logdir, next(new), spoil),)
    os.mkdir(empty := next(new))
    yield "an empty log folder", False, "check_events.py", (empty,)
    yield "a histogram as it is", True, "check_histogram.py", ("--exact", *histogram_files(folder))
    yield "a limit one bit off", False, "check_histogram.py", histogram_files(folder, shift_limit)
    yield "a value in the next bucket", False, "check_histogram.py", histogram_files(folder, move_count)
    if shutil.which("chromedriver"):
        bare = spoiled_events(logdir, next(new), drop_graph)
        yield "no graph to draw", False, "screenshot.py", (bare, os.path.join(folder, "shot"), "--seconds", 8)
    else:
        print("skipped: no graph to draw (no chromedriver)")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--tool", "--graph", "--losses", "--logdir", "--listing"):
        parser.add_argument(name, required=True)
    parser.add_argument("--data", default="data")
    arguments = parser.parse_args()
    failures = 0
    with tempfile.TemporaryDirectory(prefix="self-check-") as folder:
        for what, wanted, script, given in cases(arguments, folder):
            good = passes(script, *given) == wanted
            failures += not good
            print(f"{'ok  ' if good else 'FAIL'} {script} {'passes' if wanted else 'notices'}: {what}", flush=True)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
