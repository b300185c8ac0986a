"""The text of tests/fixtures/histograms.txt and images.txt: what TensorFlow's summary ops make of small inputs.

histograms.txt, blocks of
    case NAME
    data B0 B1 ...                     f32 values as hex bits (may be none)
    proto MIN MAX NUM SUM SUM_SQUARES  f64 as hex bits
    limit L0 L1 ...                    f64 as hex bits
    bucket C0 C1 ...                   f64 as hex bits
images.txt, blocks of
    case NAME
    op MAX_IMAGES R,G,B,A              the attribute bad_color
    shape N H W C
    data float B0 B1 ...               f32 as hex bits, or `data uint8 V0 V1 ...`
    image TAG WIDTH HEIGHT COLORSPACE P0 P1 ...    one line an image made: the decoded pixels, 0..255, channels inmost
The tag given to the op is `t`. `#` begins a comment line.
"""
import io

import numpy as np

import check_histogram
from tensorboard.compat.proto import summary_pb2

NOTE = "# TensorFlow's own answers; made by tests/tensorflow/make_fixtures.py, the form is told in make_summary_fixtures.py\n"


def bits(values, dtype):
    digits = np.dtype(dtype).itemsize * 2
    raw = np.asarray(values, dtype).reshape(-1).view(f"<u{digits // 2}")
    return " ".join(f"{int(v):0{digits}x}" for v in raw)


def histograms_text():
    text = NOTE
    for name, values in check_histogram.edge_cases():
        values = np.asarray(values, np.float32)
        histogram = summary_pb2.Summary.FromString(check_histogram.tensorflow_summary(values)).value[0].histo
        proto = [histogram.min, histogram.max, histogram.num, histogram.sum, histogram.sum_squares]
        for line in (f"case {name}", f"data {bits(values, '<f4')}", f"proto {bits(proto, '<f8')}",
                     f"limit {bits(histogram.bucket_limit, '<f8')}", f"bucket {bits(histogram.bucket, '<f8')}"):
            text += line.rstrip() + "\n"
    return text


def image_cases():
    """(name, pixels [n, h, w, c], max_images)"""
    random = np.random.RandomState(2)
    nan, inf = np.nan, np.inf
    yield "grey_positive", random.rand(1, 3, 4, 1) * 3, 3
    yield "grey_negative_too", random.randn(1, 3, 4, 1), 3
    yield "two_of_three_images", random.rand(3, 2, 2, 1), 2
    yield "max_images_1", random.rand(3, 2, 2, 1), 1
    yield "max_images_above_batch", random.rand(2, 2, 2, 1), 6
    yield "each_image_scaled_alone", np.array([1.0, 2, 3, 4, 10, 20, 30, 40]).reshape(2, 2, 2, 1), 3
    yield "colour", random.rand(1, 2, 3, 3), 3
    yield "colour_negative_too", random.randn(1, 2, 3, 3), 3
    yield "alpha", random.rand(1, 2, 2, 4), 3
    yield "all_zero", np.zeros((1, 2, 2, 1)), 3
    yield "tiny", np.full((1, 2, 2, 1), 1e-7), 3
    yield "tiny_negative", np.full((1, 2, 2, 1), -1e-7), 3
    yield "not_finite_grey", np.array([1.0, nan, inf, -inf, 0.5, 0.25]).reshape(1, 2, 3, 1), 3
    yield "not_finite_colour", np.array([1.0, 0.5, nan, 0.25, 0.5, 1.0]).reshape(1, 1, 2, 3), 3
    yield "not_finite_alpha", np.array([1.0, 0.5, nan, 0.25, 0.5, 1.0, 1.0, 0.0]).reshape(1, 1, 2, 4), 3
    yield "all_nan", np.full((1, 2, 2, 1), nan), 3
    yield "bytes", random.randint(0, 256, (1, 2, 3, 3)).astype(np.uint8), 3


def images_text():
    from PIL import Image
    from lenet_graph import tf

    text = NOTE
    for name, pixels, count in image_cases():
        if pixels.dtype != np.uint8:
            pixels = pixels.astype(np.float32)
        with tf.Graph().as_default():
            op = tf.raw_ops.ImageSummary(tag="t", tensor=tf.constant(pixels), max_images=count)
            with tf.compat.v1.Session() as session:
                summary = summary_pb2.Summary.FromString(session.run(op))
        data = f"uint8 {' '.join(map(str, pixels.reshape(-1)))}" if pixels.dtype == np.uint8 else f"float {bits(pixels, '<f4')}"
        text += f"case {name}\nop {count} 255,0,0,255\nshape {' '.join(map(str, pixels.shape))}\ndata {data}\n"
        for value in summary.value:
            image = value.image
            decoded = np.asarray(Image.open(io.BytesIO(image.encoded_image_string)))
            text += (f"image {value.tag} {image.width} {image.height} {image.colorspace} "
                     f"{' '.join(map(str, decoded.reshape(-1)))}\n")
    return text
