#!/usr/bin/env python3
"""Compare an exported GraphDef with a listing of tests/fixtures, node by node in order.

Prints how many nodes are equal whole (name, op, inputs, device and every attribute) and shows the first that are not.
Exit status 0 when the two are equal, header included.
"""
import argparse
import difflib
import sys

import dump_graph


def blocks(text):
    return text.rstrip("\n").split("\n\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("graph", help="a binary GraphDef")
    parser.add_argument("listing", help="a text in dump_graph.py's form")
    parser.add_argument("--show", type=int, default=5, help="how many differing nodes to show (default: 5)")
    arguments = parser.parse_args()
    ours = blocks("\n".join(dump_graph.graph_lines(dump_graph.read_graph(arguments.graph))))
    with open(arguments.listing, encoding="utf-8") as file:
        wanted = blocks(file.read())
    if ours[0] != wanted[0]:
        print(f"header: ours `{ours[0]}`, wanted `{wanted[0]}`")
    count = max(len(ours), len(wanted)) - 1
    ours, wanted = ours + [""] * (count + 1 - len(ours)), wanted + [""] * (count + 1 - len(wanted))
    differing = [k for k in range(1, count + 1) if ours[k] != wanted[k]]
    for k in differing[: arguments.show]:
        print(f"node {k}:")
        for line in difflib.unified_diff(wanted[k].splitlines(), ours[k].splitlines(), "wanted", "ours", lineterm="", n=9):
            print(f"  {line}")
    print(f"{count - len(differing)} of {count} nodes equal")
    sys.exit(1 if differing or ours[0] != wanted[0] else 0)


if __name__ == "__main__":
    main()
