#!/usr/bin/env python3
"""Compare histogram summaries of ours with TensorFlow's HistogramSummary op on the same data.

    check_histogram.py DATA SUMMARY [DATA SUMMARY ...]

DATA holds raw little-endian values (32-bit floats, or 64-bit with --dtype f64), SUMMARY a serialized tensorflow.Summary
with one histogram value that we made of them. Bucket limits, counts, num, min and max must be equal bit for bit, sum and
sum of squares to 1e-12 (relative): they depend on the order of addition. Whether the whole bytes are equal is reported,
and asked for with --exact. Exit status 0 when all agree, 1 when one does not.
"""
import argparse
import sys

import numpy as np

DTYPES = {"f32": "<f4", "f64": "<f8"}


def edge_cases():
    """(name, f32 values) that try the bucketing: used for tests/fixtures/histograms.txt."""
    random = np.random.RandomState(1)
    limits = [np.float64(1e-12)]
    while len(limits) < 774:
        limits.append(limits[-1] * np.float64(1.1))
    limits = np.array(limits, np.float64)
    yield "empty", []
    yield "zero", [0.0]
    yield "negative_zero", [-0.0, 0.0]
    yield "one", [1.0]
    yield "minus_one", [-1.0]
    yield "zeros", np.zeros(20)
    yield "normal", random.randn(60)
    yield "normal_small", random.randn(40) * 1e-3
    yield "positive", random.rand(40)
    yield "one_in_two_far_buckets", [-1e6, 1e6]
    yield "near_limits", np.concatenate([limits[::60], -limits[::60], np.nextafter(limits[::60].astype(np.float32), 0)])
    yield "below_the_least_limit", [1e-13, -1e-13, 1e-12, -1e-12, 1e-38, 1e-45]
    yield "beyond_the_last_limit", [1e20, -1e20, 3e38, -3e38, 9.9e19]
    yield "integers", np.arange(-10, 11)


def tensorflow_summary(values, tag="h"):
    """The serialized Summary that TensorFlow makes."""
    from lenet_graph import tf

    # In a graph of its own: whoever imports this may have switched eager execution off.
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        return session.run(tf.raw_ops.HistogramSummary(tag=tag, values=values))


def compare(ours, theirs):
    """A list of the differences between two HistogramProtos."""
    problems = []
    for field in ("min", "max", "num"):
        a, b = getattr(ours, field), getattr(theirs, field)
        if a != b:
            problems.append(f"{field}: ours {a!r}, TensorFlow's {b!r}")
    for field in ("sum", "sum_squares"):
        a, b = getattr(ours, field), getattr(theirs, field)
        if not abs(a - b) <= 1e-12 * max(abs(b), theirs.sum_squares**0.5, 1e-300):
            problems.append(f"{field}: ours {a!r}, TensorFlow's {b!r}")
    for field in ("bucket_limit", "bucket"):
        a, b = list(getattr(ours, field)), list(getattr(theirs, field))
        if len(a) != len(b):
            problems.append(f"{field}: ours has {len(a)} entries, TensorFlow's {len(b)}")
        else:
            problems += [f"{field}[{i}]: ours {x!r}, TensorFlow's {y!r}" for i, (x, y) in enumerate(zip(a, b)) if x != y][:5]
    return problems


def check_pair(data, path, dtype, exact):
    from tensorboard.compat.proto import summary_pb2

    with open(path, "rb") as file:
        raw = file.read()
    ours = summary_pb2.Summary.FromString(raw)
    if len(ours.value) != 1 or ours.value[0].WhichOneof("value") != "histo":
        return ["not a Summary with one histogram"], False
    theirs_raw = tensorflow_summary(np.fromfile(data, DTYPES[dtype]), ours.value[0].tag)
    theirs = summary_pb2.Summary.FromString(theirs_raw)
    problems = compare(ours.value[0].histo, theirs.value[0].histo)
    if exact and raw != theirs_raw:
        problems.append("the bytes differ")
    return problems, raw == theirs_raw


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="DATA SUMMARY")
    parser.add_argument("--dtype", choices=DTYPES, default="f32")
    parser.add_argument("--exact", action="store_true", help="ask for equal bytes")
    arguments = parser.parse_args()
    if len(arguments.files) % 2:
        parser.error("files come in pairs: DATA SUMMARY")
    failures = 0
    for data, path in zip(arguments.files[::2], arguments.files[1::2]):
        problems, same = check_pair(data, path, arguments.dtype, arguments.exact)
        failures += bool(problems)
        print(f"{'FAIL' if problems else 'ok  '} {path}{' (equal bytes)' if same else ''}")
        for problem in problems:
            print(f"  {problem}")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
