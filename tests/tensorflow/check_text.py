#!/usr/bin/env python3
"""Ask TensorFlow whether `graph convert` loses anything: binary to binary, to our text, and from TensorFlow's text.

    check_text.py --tool target/release/graph FILE|FOLDER...

Of a folder every *.pb and *.meta in it and below is taken; saved_model.pb is a SavedModel, *.meta a MetaGraphDef, any other
a GraphDef. For each file:

- what the tool writes as binary is the equal message, and converted once more the same bytes;
- what it writes as text, TensorFlow parses to the equal message;
- what TensorFlow writes as text, the tool converts to the equal message.

Messages are compared by their serialized form, which holds a NaN's bits; in text a NaN is only a NaN.
Exit status 0 when all hold for every file, 1 when one does not, with the first difference of each.
"""
import argparse
import os
import subprocess
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from google.protobuf import text_format
from tensorflow.core.framework import graph_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2


def files(paths):
    for path in paths:
        if not os.path.isdir(path):
            yield path
            continue
        for folder, folders, names in os.walk(path):
            folders.sort()
            yield from (os.path.join(folder, name) for name in sorted(names) if name.endswith((".pb", ".meta")))


def message_type(path):
    if os.path.basename(path) == "saved_model.pb":
        return saved_model_pb2.SavedModel
    return meta_graph_pb2.MetaGraphDef if path.endswith(".meta") else graph_pb2.GraphDef


def read(path):
    with open(path, "rb") as file:
        return file.read()


def first_difference(wanted, got):
    """The first line that differs between two texts."""
    wanted, got = wanted.splitlines(), got.splitlines()
    for number, (a, b) in enumerate(zip(wanted, got), 1):
        if a != b:
            return f"line {number}: wanted `{a.strip()[:100]}`, got `{b.strip()[:100]}`"
    return f"{len(wanted)} lines wanted, got {len(got)}"


def compare(wanted, got, exact):
    """None where the messages are equal; NaNs are only NaNs unless `exact`."""
    if wanted.SerializeToString(deterministic=True) == got.SerializeToString(deterministic=True):
        return None
    texts = [text_format.MessageToString(message) for message in (wanted, got)]
    if not exact and texts[0] == texts[1] and "nan" in texts[0]:
        return None
    return first_difference(*texts)


class Tool:
    def __init__(self, program, folder):
        self.program, self.folder, self.count = program, folder, 0

    def convert(self, source, suffix):
        """Converts a file, its kind told by `suffix`, and returns the new file."""
        self.count += 1
        target = os.path.join(self.folder, f"{self.count}{suffix}")
        command = [self.program, "convert", source, target]
        result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if result.returncode != 0:
            raise ValueError(f"the tool failed: {result.stdout.strip()}")
        return target


def check(path, tool):
    """What is wrong with the tool's treatment of a file, or None."""
    kind = message_type(path)
    wanted = kind.FromString(read(path))
    binary = tool.convert(path, ".pb")
    problem = compare(wanted, kind.FromString(read(binary)), exact=True)
    if problem:
        return f"binary: {problem}"
    if read(tool.convert(binary, ".pb")) != read(binary):
        return "binary: other bytes when converted again"
    text = tool.convert(path, ".pbtxt")
    try:
        parsed = text_format.Parse(read(text), kind())
    except text_format.ParseError as error:
        return f"our text: TensorFlow cannot parse it: {error}"
    problem = compare(wanted, parsed, exact=False)
    if problem:
        return f"our text: {problem}"
    theirs = os.path.join(tool.folder, "theirs.pbtxt")
    with open(theirs, "w", encoding="utf-8") as file:
        file.write(text_format.MessageToString(wanted))
    problem = compare(wanted, kind.FromString(read(tool.convert(theirs, ".pb"))), exact=False)
    return problem and f"TensorFlow's text: {problem}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", metavar="FILE|FOLDER")
    parser.add_argument("--tool", required=True, help="the `graph` program")
    arguments = parser.parse_args()
    count, failures = 0, 0
    for path in files(arguments.paths):
        count += 1
        with tempfile.TemporaryDirectory(prefix="check-text-") as folder:
            try:
                problem = check(path, Tool(arguments.tool, folder))
            except ValueError as error:
                problem = str(error)
        if problem:
            failures += 1
            print(f"{path}: {problem}", flush=True)
    print(f"{count - failures} of {count} files keep their messages in binary and text")
    sys.exit(1 if failures or not count else 0)


if __name__ == "__main__":
    main()
