#!/usr/bin/env python3
"""Write a GraphDef as canonical text: one block a node, in file order, to be compared line by line.

The form, exactly (a Rust test writes the same from our own GraphDef):

    graph producer=134 min_consumer=0 nodes=880       the header: one line; an unset field counts as 0
                                                      (`bad_consumers=1,2` is appended when there are any)
    <an empty line before every node>
    node <name> : <op>
      @ <device>                                      only when the device is not empty
      < <input>                                       one line each, in NodeDef order: `n`, `n:k` (k > 0), `^control`;
                                                      `n:0` is written `n`
      <attribute> = <value>                           one line each, keys in byte order

Lines end in "\\n", the indent is two spaces, nothing trails. Names, ops, devices, inputs and keys stand as they are.
A graph with functions is refused: the engine exports none.

    value   string   "text"     bytes 0x20..0x7e stand for themselves except \\" and \\\\; every other byte is \\xNN
            int      -3         float      f32:0x3f800000 (the eight hex digits of the IEEE bits)
            bool     true false
            type     DT_FLOAT, DT_FLOAT_REF, ... (the proto's enum name)
            shape    ()  (?,784)  (unknown)           () is the scalar, ? an unknown size, (unknown) an unknown rank
            tensor   tensor DT_FLOAT (2,2) [f32:0x3f800000, f32:0x00000000, ...]
            list     {v, v}     {} when empty, whatever its kind
            func     func <name>                      attributes of functions are not compared
            unset    none

    tensor elements, in row-major order and joined by ", ":
            half f16:0x3c00, bfloat16 bf16:0x3f80, float f32:0x.., double f64:0x<16 digits>, hex in lower case;
            integers in decimal, bools as true/false, strings quoted as above, complex as (re im).
      - no elements: []
      - all elements the same in every bit (one element included): that one element alone, [x]
      - at most 64 elements: all of them
      - more: [fnv1a64:0x<16 digits>], the FNV-1a 64 hash (offset basis 0xcbf29ce484222325, prime 0x100000001b3) of the
        raw little-endian bytes (bool: one byte; string: its length as u64 LE, then its bytes).
How the proto stores a tensor (tensor_content or typed values, a last value left out because it repeats) does not matter.
A tensor that stores no value at all is zeros (empty strings).
"""
import argparse
import gzip
import struct
import sys

import numpy as np
from tensorboard.compat.proto import graph_pb2, types_pb2

INLINE_ELEMENTS = 64

# dtype name -> (bytes an element, typed field, kind)
DTYPES = {
    "DT_HALF": (2, "half_val", "f16"),
    "DT_BFLOAT16": (2, "half_val", "bf16"),
    "DT_FLOAT": (4, "float_val", "f32"),
    "DT_DOUBLE": (8, "double_val", "f64"),
    "DT_INT8": (1, "int_val", "int"),
    "DT_INT16": (2, "int_val", "int"),
    "DT_INT32": (4, "int_val", "int"),
    "DT_INT64": (8, "int64_val", "int"),
    "DT_UINT8": (1, "int_val", "uint"),
    "DT_UINT16": (2, "int_val", "uint"),
    "DT_UINT32": (4, "uint32_val", "uint"),
    "DT_UINT64": (8, "uint64_val", "uint"),
    "DT_BOOL": (1, "bool_val", "bool"),
    "DT_COMPLEX64": (8, "scomplex_val", "c64"),
    "DT_COMPLEX128": (16, "dcomplex_val", "c128"),
}


def quote(data):
    """A byte string in double quotes."""
    text = "".join(
        chr(b) if 0x20 <= b <= 0x7E and b not in (0x22, 0x5C) else "\\" + chr(b) if b in (0x22, 0x5C) else f"\\x{b:02x}"
        for b in data
    )
    return f'"{text}"'


def type_name(number):
    return types_pb2.DataType.Name(number) if number in types_pb2.DataType.values() else f"DT_{number}"


def shape_text(shape):
    if shape.unknown_rank:
        return "(unknown)"
    return "(" + ",".join("?" if d.size < 0 else str(d.size) for d in shape.dim) + ")"


def fnv1a64(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value


def pack_scalar(kind, size, values):
    """Typed proto values as little-endian elements, each a `bytes`."""
    if kind in ("f16", "bf16"):
        return [struct.pack("<H", v) for v in values]
    if kind == "f32":
        return [np.float32(v).tobytes() for v in values]
    if kind == "f64":
        return [struct.pack("<d", v) for v in values]
    if kind == "bool":
        return [b"\x01" if v else b"\x00" for v in values]
    if kind in ("c64", "c128"):
        code = "<ff" if kind == "c64" else "<dd"
        return [struct.pack(code, values[i], values[i + 1]) for i in range(0, len(values), 2)]
    mask = (1 << (8 * size)) - 1
    return [(v & mask).to_bytes(size, "little") for v in values]


def element_text(kind, raw):
    if kind in ("f16", "bf16", "f32", "f64"):
        return f"{kind}:0x{int.from_bytes(raw, 'little'):0{2 * len(raw)}x}"
    if kind == "bool":
        return "true" if raw != b"\x00" else "false"
    if kind in ("c64", "c128"):
        half = len(raw) // 2
        part = "f32" if kind == "c64" else "f64"
        return f"({element_text(part, raw[:half])} {element_text(part, raw[half:])})"
    return str(int.from_bytes(raw, "little", signed=kind == "int"))


def elements_text(tensor, dtype):
    count = 1
    for d in tensor.tensor_shape.dim:
        count *= d.size
    if tensor.tensor_shape.unknown_rank or count < 0:
        raise ValueError("a tensor of unknown shape")
    if count == 0:
        return "[]"
    if dtype == "DT_STRING":
        elements = [bytes(s) for s in tensor.string_val] or [b""]
        kind = None
    elif dtype in DTYPES:
        size, field, kind = DTYPES[dtype]
        if tensor.tensor_content:
            raw = tensor.tensor_content
            elements = [raw[i : i + size] for i in range(0, len(raw), size)]
            if len(elements) not in (1, count):
                raise ValueError(f"{len(elements)} elements of content for {count}")
        else:
            elements = pack_scalar(kind, size, getattr(tensor, field)) or [bytes(size)]
    else:
        raise ValueError(f"no text for tensors of {dtype}")
    elements += [elements[-1]] * (count - len(elements))
    if all(e == elements[0] for e in elements):
        elements = elements[:1]
    if len(elements) > INLINE_ELEMENTS:
        if kind is None:
            elements = [struct.pack("<Q", len(e)) + e for e in elements]
        return f"[fnv1a64:0x{fnv1a64(b''.join(elements)):016x}]"
    return "[" + ", ".join(quote(e) if kind is None else element_text(kind, e) for e in elements) + "]"


def tensor_text(tensor):
    dtype = type_name(tensor.dtype)
    return f"tensor {dtype} {shape_text(tensor.tensor_shape)} {elements_text(tensor, dtype)}"


WRITERS = {
    "s": quote,
    "i": str,
    "f": lambda v: "f32:0x" + np.float32(v).tobytes()[::-1].hex(),
    "b": lambda v: "true" if v else "false",
    "type": type_name,
    "shape": shape_text,
    "tensor": tensor_text,
    "func": lambda v: f"func {v.name}",
}


def value_text(value):
    """An AttrValue."""
    kind = value.WhichOneof("value")
    if kind is None:
        return "none"
    if kind == "placeholder":
        return f"placeholder {value.placeholder}"
    if kind == "list":
        items = [WRITERS[f](v) for f in WRITERS for v in getattr(value.list, f)]
        return "{" + ", ".join(items) + "}"
    return WRITERS[kind](getattr(value, kind))


def input_text(name):
    return name[:-2] if name.endswith(":0") else name


def node_lines(node):
    yield f"node {node.name} : {node.op}"
    if node.device:
        yield f"  @ {node.device}"
    for name in node.input:
        yield f"  < {input_text(name)}"
    for key in sorted(node.attr, key=lambda k: k.encode()):
        yield f"  {key} = {value_text(node.attr[key])}"


def graph_lines(graph):
    """The canonical lines of a GraphDef, without line ends."""
    if graph.library.function:
        raise ValueError("a graph with functions has no canonical text")
    header = f"graph producer={graph.versions.producer} min_consumer={graph.versions.min_consumer} nodes={len(graph.node)}"
    if graph.versions.bad_consumers:
        header += " bad_consumers=" + ",".join(map(str, graph.versions.bad_consumers))
    yield header
    for node in graph.node:
        yield ""
        yield from node_lines(node)


def read_graph(path):
    graph = graph_pb2.GraphDef()
    with open(path, "rb") as file:
        graph.ParseFromString(file.read())
    return graph


def write_text(path, text):
    """Plain text, or gzip with fixed header fields where the name ends in .gz, so equal text makes equal bytes."""
    if path.endswith(".gz"):
        with open(path, "wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as file:
            file.write(text.encode())
    else:
        with open(path, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("graph", help="a binary GraphDef")
    parser.add_argument("-o", "--output", help="file to write (gzip when it ends in .gz); default: standard output")
    arguments = parser.parse_args()
    text = "\n".join(graph_lines(read_graph(arguments.graph))) + "\n"
    if arguments.output:
        write_text(arguments.output, text)
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
