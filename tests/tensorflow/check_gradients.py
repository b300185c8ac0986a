#!/usr/bin/env python3
"""Has every op a gradient here that has one in TensorFlow?

    check_gradients.py --tool target/release/graph

Asks TensorFlow's registry of gradients about each op that `graph ops --json` lists. Whether the gradients are right is for
the tests of the ops.
"""
import argparse
import json
import os
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import tensorflow  # noqa: F401  (fills the registry)
from tensorflow.python.framework.ops import gradient_registry

# Ops whose gradients differ for a reason.
FOR_A_REASON = {
    "DebugGradientIdentity": "serves the debugger, which rewrites gradients while they are built",
    "SegmentProd": "had none in TensorFlow 1",
    "Igamma": "the derivative by its first argument has no op here yet",
    "Igammac": "as Igamma",
    "LoopCond": "a condition has none, which TensorFlow says by a function that gives none",
}


def theirs(name):
    if name not in gradient_registry.list():
        return False
    return gradient_registry.lookup(name) is not None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tool", required=True, help="the program `graph`")
    arguments = parser.parse_args()
    listing = subprocess.run([arguments.tool, "ops", "--json"], check=True, capture_output=True, text=True).stdout
    ops = {op["name"]: op["gradient"] == "function" for op in json.loads(listing)}
    odd = {name: ours for name, ours in ops.items() if ours != theirs(name)}
    for name, ours in sorted(odd.items()):
        who = "here, not in TensorFlow" if ours else "in TensorFlow, not here"
        print(f"{'     ' if name in FOR_A_REASON else 'FAIL '}{name}: a gradient {who}" + (f" ({FOR_A_REASON[name]})" if name in FOR_A_REASON else ""))
    unexplained = odd.keys() - FOR_A_REASON.keys()
    print(f"{'FAIL' if unexplained else 'ok  '} {len(ops)} ops, {sum(ops.values())} with a gradient, {len(unexplained)} differ from TensorFlow without a reason")
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
