"""MNIST as the reference run feeds it: the IDX files read here, apart from the engine's own reader."""
import gzip
import os
import struct

import numpy as np

VALIDATION = 5000  # the first training images are the validation split
CLASSES = 10


def read_idx(path):
    """The uint8 array of a gzipped IDX file."""
    with gzip.open(path, "rb") as file:
        data = file.read()
    zero, kind, rank = struct.unpack(">HBB", data[:4])
    if zero != 0 or kind != 8:
        raise ValueError(f"{path}: not an IDX file of bytes")
    shape = struct.unpack(f">{rank}I", data[4 : 4 + 4 * rank])
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def read_split(directory, name):
    """Images [n, 784] in 0..1 (float32 pixel/255) and one-hot labels [n, 10] of `train` or `t10k`."""
    images = read_idx(os.path.join(directory, f"{name}-images-idx3-ubyte.gz"))
    labels = read_idx(os.path.join(directory, f"{name}-labels-idx1-ubyte.gz"))
    images = images.reshape(len(images), -1).astype(np.float32) / np.float32(255)
    return images, np.eye(CLASSES, dtype=np.float32)[labels]


class TrainingBatches:
    """Batch k holds rows k*size .. k*size+size of the 55,000 training images in file order; after the last whole batch
    the first comes again."""

    def __init__(self, directory, size):
        images, labels = read_split(directory, "train")
        self.images, self.labels, self.size = images[VALIDATION:], labels[VALIDATION:], size
        if not 0 < size <= len(self.images):
            raise ValueError(f"batch size {size} outside 1..{len(self.images)}")

    def __getitem__(self, step):
        start = step % (len(self.images) // self.size) * self.size
        return self.images[start : start + self.size], self.labels[start : start + self.size]
