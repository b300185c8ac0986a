"""Recorded sessions, as folders: graph.pb, trace.json, and NumPy's archives of what was fed and fetched.

`Recorder` records a TensorFlow session, `replay` does the runs of a folder again in TensorFlow.
"""
import json
import os

import numpy as np
import tensorflow as tf

v1 = tf.compat.v1
BFLOAT16 = tf.bfloat16.as_numpy_dtype
SHORT = (np.float16, BFLOAT16)


def packed(array):
    """An array as it is stored: bits of a bfloat16, byte strings of one width."""
    array = np.asarray(array)
    if array.dtype == BFLOAT16:
        return array.view(np.uint16)
    return array.astype("S") if array.dtype == object else array


def unpacked(array, dtype):
    """A stored array as one of the dtype that the trace names."""
    if dtype is None:
        return array
    dtype = tf.as_dtype(dtype)
    if dtype == tf.bfloat16:
        return array.view(BFLOAT16)
    if dtype == tf.string:
        return array.astype(object)
    if array.dtype != dtype.as_numpy_dtype:
        raise ValueError(f"an array of {array.dtype} is stored for one of {dtype.name}")
    return array


def read_arrays(folder, file, dtypes, count):
    if file is None:
        arrays = []
    else:
        with np.load(os.path.join(folder, file)) as stored:
            arrays = [stored[f"arr_{index}"] for index in range(len(stored.files))]
    if len(arrays) != count:
        raise ValueError(f"{file} holds {len(arrays)} arrays for {count} tensors")
    return [unpacked(array, dtype) for array, dtype in zip(arrays, dtypes or [None] * count)]


class Recorder:
    """Runs a session and records what it does into a folder, which must not exist."""

    def __init__(self, session, folder):
        self.session, self.folder, self.runs = session, folder, []
        os.makedirs(folder)

    def run(self, fetches=(), feeds=None, targets=()):
        """Values of the tensors `fetches`; `feeds` are values by tensors, `targets` operations."""
        feeds = feeds or {}
        number = len(self.runs)
        run = {
            "feeds": [tensor.name for tensor in feeds],
            "fetches": [tensor.name for tensor in fetches],
            "targets": [operation.name for operation in targets],
            "feed_dtypes": [tensor.dtype.base_dtype.name for tensor in feeds],
            "fetch_dtypes": [tensor.dtype.base_dtype.name for tensor in fetches],
            "feeds_file": self.write(f"{number}.feeds.npz", feeds.values()),
            "fetches_file": None,
            "error": None,
        }
        self.runs.append(run)
        try:
            values, _ = self.session.run([list(fetches), list(targets)], feeds)
            run["fetches_file"] = self.write(f"{number}.fetches.npz", values)
            return values
        except tf.errors.OpError as error:
            run["error"] = type(error).__name__
            raise
        finally:
            self.write_trace()

    def write(self, name, values):
        values = [packed(value) for value in values]
        if not values:
            return None
        np.savez(os.path.join(self.folder, name), *values)
        return name

    def write_trace(self):
        graph = self.session.graph.as_graph_def()
        with open(os.path.join(self.folder, "graph.pb"), "wb") as file:
            file.write(graph.SerializeToString(deterministic=True))
        trace = {"source": "TensorFlow " + tf.__version__, "ops": sorted({node.op for node in graph.node}), "runs": self.runs}
        with open(os.path.join(self.folder, "trace.json"), "w") as file:
            json.dump(trace, file, indent=1)


def difference(got, expected, rtol, atol):
    """What differs, in words, or None."""
    got = np.asarray(got)
    if got.dtype != expected.dtype or got.shape != expected.shape:
        return f"got {got.dtype} {got.shape}, expected {expected.dtype} {expected.shape}"
    if got.dtype.kind in "fc" or got.dtype in SHORT:
        if got.dtype in SHORT:
            got, expected, rtol, atol = got.astype("f4"), expected.astype("f4"), max(rtol, 1e-2), max(atol, 1e-2)
        equal = np.isclose(got, expected, rtol=rtol, atol=atol, equal_nan=True)
    else:
        equal = got == expected
    if np.all(equal):
        return None
    index = tuple(int(i) for i in np.argwhere(~np.asarray(equal))[0])
    return f"index {list(index)}, got {got[index]}, expected {expected[index]}"


def replay(folder, rtol, atol):
    """The first difference of TensorFlow's answers from the recorded ones, in words, or None."""
    with open(os.path.join(folder, "trace.json")) as file:
        runs = json.load(file)["runs"]
    graph_def = v1.GraphDef()
    with open(os.path.join(folder, "graph.pb"), "rb") as file:
        graph_def.ParseFromString(file.read())
    with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        v1.import_graph_def(graph_def, name="")
        for number, run in enumerate(runs):
            fed = read_arrays(folder, run["feeds_file"], run.get("feed_dtypes"), len(run["feeds"]))
            feeds = dict(zip(run["feeds"], fed))
            try:
                got, _ = session.run([run["fetches"], run["targets"]], feeds)
            except tf.errors.OpError as error:
                if type(error).__name__ != run["error"]:
                    return f"run {number}, expected {run['error']}, error {type(error).__name__}: {error.message}"
                continue
            if run["error"] is not None:
                return f"run {number}, got no error, expected {run['error']}"
            recorded = read_arrays(folder, run["fetches_file"], run.get("fetch_dtypes"), len(run["fetches"]))
            for name, value, expected in zip(run["fetches"], got, recorded):
                found = difference(value, expected, rtol, atol)
                if found:
                    return f"run {number}, fetch {name}, {found}"
    return None
