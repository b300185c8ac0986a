#!/usr/bin/env python3
"""Replay recorded sessions in real TensorFlow: a line a folder, ok or the first difference.

The folders are those that `graph replay` reads. Half and bfloat16 are compared at 1e-2 at least, integers, booleans and
strings must be equal, NaN equals NaN. Exit status 0 when all are ok, 1 when something differs.
"""
import argparse
import os
import sys


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", metavar="DIR", help="a recorded session, or a folder of such")
    parser.add_argument("--rtol", type=float, default=1e-4)
    parser.add_argument("--atol", type=float, default=1e-5)
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import recorded

    folders = []
    for folder in arguments.folders:
        inside = sorted(path for path, _, files in os.walk(folder) if "trace.json" in files)
        if not inside:
            parser.error(f"{folder} holds no recorded session")
        folders += inside
    failures = 0
    for folder in folders:
        try:
            found = recorded.replay(folder, arguments.rtol, arguments.atol)
        except Exception as error:  # whatever is wrong with one folder, the others are told of too
            found = f"{type(error).__name__}: {error}"
        failures += found is not None
        print(f"{folder}: {found or 'ok'}")
    print(f"replayed {len(folders)}: {len(folders) - failures} ok, {failures} differ")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
