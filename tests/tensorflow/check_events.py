#!/usr/bin/env python3
"""Read a log folder of ours with TensorBoard's own reader and hold it against the reference's list of tags.

Checks: the same tags of the same kinds, no more and no fewer; the graph is there, parses and has the nodes it should;
every image decodes as a PNG of the size and depth it claims; every histogram has rising limits, as many buckets as
limits, and counts that add up to its number of values; every record's wall time and step is sane and finite.
Exit status 0 when all is well, 1 when something is not.
"""
import argparse
import io
import math
import os
import sys

KINDS = ("scalars", "histograms", "images", "graph")


def accumulate(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    if not any("tfevents" in name for name in os.listdir(folder)):
        raise FileNotFoundError(f"{folder}: no event file in it")
    accumulator = EventAccumulator(folder, size_guidance={"scalars": 0, "histograms": 0, "images": 0})
    accumulator.Reload()
    return accumulator


def list_tags(accumulator):
    """(kind, tag) in the order of the file; the graph has the tag `-`."""
    tags = accumulator.Tags()
    unexpected = [k for k in ("audio", "tensors", "meta_graph", "run_metadata") if tags[k]]
    if unexpected:
        raise ValueError(f"the event file holds {', '.join(unexpected)}, which the reference has not")
    if tags["distributions"] != tags["histograms"]:
        raise ValueError("distributions and histograms differ")
    listed = [(kind, tag) for kind in ("scalars", "histograms", "images") for tag in tags[kind]]
    return listed + ([("graph", "-")] if tags["graph"] else [])


def read_tags(folder):
    return list_tags(accumulate(folder))


def check_tags(accumulator, path):
    with open(path, encoding="utf-8") as file:
        wanted = [tuple(line.split(None, 1)) for line in file.read().splitlines() if line and not line.startswith("#")]
    listed = list_tags(accumulator)
    problems = [f"missing: {kind} {tag}" for kind, tag in wanted if (kind, tag) not in listed]
    problems += [f"not in the reference: {kind} {tag}" for kind, tag in listed if (kind, tag) not in wanted]
    return f"{len(listed)} tags", problems


def check_graph(accumulator, minimum):
    from tensorboard.compat.proto import graph_pb2

    graph = graph_pb2.GraphDef.FromString(accumulator.Graph().SerializeToString())
    names = {node.name for node in graph.node}
    problems = []
    if len(names) != len(graph.node):
        problems.append("two nodes share a name")
    if len(graph.node) < minimum:
        problems.append(f"{len(graph.node)} nodes, expected at least {minimum}")
    for node in graph.node:
        for name in node.input:
            if name.lstrip("^").split(":")[0] not in names:
                problems.append(f"{node.name} reads {name}, which is not in the graph")
        if "_output_shapes" not in node.attr and node.op not in ("NoOp", "Assert"):
            problems.append(f"{node.name} has no _output_shapes")
    return f"{len(graph.node)} nodes", problems


def check_images(accumulator):
    from PIL import Image

    count, problems = 0, []
    for tag in accumulator.Tags()["images"]:
        for event in accumulator.Images(tag):
            count += 1
            try:
                picture = Image.open(io.BytesIO(event.encoded_image_string))
                picture.load()
            except Exception as error:  # whatever the decoder finds wrong
                problems.append(f"{tag} at step {event.step}: {error}")
                continue
            if picture.format != "PNG" or picture.size != (event.width, event.height):
                problems.append(f"{tag} at step {event.step}: {picture.format} {picture.size}, claims {event.width}x{event.height}")
    return f"{count} pictures", problems


def check_histograms(accumulator):
    count, problems = 0, []
    for tag in accumulator.Tags()["histograms"]:
        for event in accumulator.Histograms(tag):
            count += 1
            h = event.histogram_value
            where = f"{tag} at step {event.step}"
            if len(h.bucket) != len(h.bucket_limit):
                problems.append(f"{where}: {len(h.bucket)} buckets for {len(h.bucket_limit)} limits")
            if any(a >= b for a, b in zip(h.bucket_limit, h.bucket_limit[1:])):
                problems.append(f"{where}: limits do not rise")
            if sum(h.bucket) != h.num:
                problems.append(f"{where}: counts add up to {sum(h.bucket)}, num is {h.num}")
            if h.num and not h.min <= h.max:
                problems.append(f"{where}: min {h.min} above max {h.max}")
    return f"{count} histograms", problems


def check_scalars(accumulator):
    count, problems = 0, []
    for tag in accumulator.Tags()["scalars"]:
        last = None
        for event in accumulator.Scalars(tag):
            count += 1
            if not math.isfinite(event.value):
                problems.append(f"{tag} at step {event.step}: {event.value}")
            if last is not None and event.step <= last:
                problems.append(f"{tag}: step {event.step} after {last}")
            if event.wall_time <= 0:
                problems.append(f"{tag} at step {event.step}: wall time {event.wall_time}")
            last = event.step
    return f"{count} values", problems


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logdir", help="folder with the event file of one run")
    parser.add_argument("--tags", default=os.path.join(here, os.pardir, "fixtures", "event_tags.txt"))
    parser.add_argument("--nodes", type=int, default=700, help="least number of graph nodes (default: 700)")
    arguments = parser.parse_args()
    try:
        accumulator = accumulate(arguments.logdir)
    except OSError as error:
        sys.exit(f"FAIL {error}")
    failures = 0
    for title, check in (
        ("tags", lambda: check_tags(accumulator, arguments.tags)),
        ("graph", lambda: check_graph(accumulator, arguments.nodes)),
        ("scalars", lambda: check_scalars(accumulator)),
        ("images", lambda: check_images(accumulator)),
        ("histograms", lambda: check_histograms(accumulator)),
    ):
        try:
            found, problems = check()
        except ValueError as error:
            found, problems = "unreadable", [str(error)]
        failures += bool(problems)
        print(f"{'FAIL' if problems else 'ok  '} {title}: {found}")
        for problem in problems[:20]:
            print(f"  {problem}")
        if len(problems) > 20:
            print(f"  ... and {len(problems) - 20} more")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
