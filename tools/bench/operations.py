#!/usr/bin/env python3
"""Time single operations against TensorFlow's: dtypes, shapes and ops that the training step does not have.

    operations.py                    all cases
    operations.py --only matmul      those whose name holds this
    operations.py --worst 20         the table's end only

One graph has an operation for each case; its operands are variables, which a step reads where they lie. Both engines load the
same GraphDef and run each operation as the target of a callable, turn by turn, in two processes that wait for each other. The
figure of a case is the median of the rounds; printed are both and their ratio (below 1: we are faster), the slowest of ours
against TensorFlow's last. TensorFlow's have some 0.05 ms of Python in them, so cases are made to take a millisecond or more.
"""
import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
OURS = os.path.join(HERE, os.pardir, os.pardir, "target", "release", "examples", "operations")


def build(tf):
    """The graph, and for each case the name of its operation."""
    v1 = tf.compat.v1
    raw = tf.raw_ops
    graph = tf.Graph()
    cases = {}
    with graph.as_default():
        made = {}

        def given(*shape, dtype="float32", low=-1.0, high=1.0):
            """A variable of uniform numbers, drawn once for all cases that ask for the same."""
            key = (shape, dtype, low, high)
            if key not in made:
                kind = tf.as_dtype(dtype)
                drawn = v1.random_uniform(shape, low, high, tf.float64 if kind == tf.float64 else tf.float32, seed=len(made) + 1)
                made[key] = v1.Variable(tf.cast(drawn, kind), use_resource=False, name=f"given_{len(made)}")
            return made[key]

        def case(name, output):
            assert name not in cases, name
            cases[name] = output.op.name

        for dtype in ("float32", "float64"):
            short = {"float32": "f32", "float64": "f64"}[dtype]

            def x(*shape, low=-1.0, high=1.0):
                return given(*shape, dtype=dtype, low=low, high=high)

            # Products of matrices.
            for m, k, n in [(500, 1250, 800), (333, 777, 555), (1, 1250, 800), (7, 1000, 1000), (1000, 7, 1000), (1000, 1000, 7),
                            (1000, 1000, 1)]:
                case(f"matmul/{short}/{m}x{k}x{n}", tf.matmul(x(m, k), x(k, n)))
            case(f"matmul/{short}/transposed a 501x777x333", tf.matmul(x(777, 501), x(777, 333), transpose_a=True))
            case(f"matmul/{short}/transposed b 501x777x333", tf.matmul(x(501, 777), x(333, 777), transpose_b=True))
            case(f"batch matmul/{short}/64 of 65x33x17", raw.BatchMatMulV2(x=x(64, 65, 33), y=x(64, 33, 17)))
            case(f"batch matmul/{short}/8 of 128x64x128", raw.BatchMatMulV2(x=x(8, 128, 64), y=x(8, 64, 128)))

            # Convolutions: images, filter, stride, dilation, padding.
            for name, images, filters, stride, dilation in [
                ("5x5 of 1", (64, 28, 28, 1), (5, 5, 1, 20), 1, 1),
                ("3x3 of 20", (64, 12, 12, 20), (3, 3, 20, 50), 1, 1),
                ("odd", (17, 31, 29, 3), (3, 5, 3, 7), 1, 1),
                ("1x1", (8, 28, 28, 64), (1, 1, 64, 128), 1, 1),
                ("7x7 stride 2", (8, 64, 64, 3), (7, 7, 3, 64), 2, 1),
                ("dilation 2", (8, 28, 28, 16), (3, 3, 16, 32), 1, 2),
                ("one image", (1, 56, 56, 64), (3, 3, 64, 64), 1, 1),
            ]:
                strides, dilations = [1, stride, stride, 1], [1, dilation, dilation, 1]
                for padding in ("SAME",):
                    y = v1.nn.conv2d(x(*images), x(*filters), strides=strides, padding=padding, dilations=dilations)
                    case(f"conv2d/{short}/{name}", y)
                    dy = x(*y.shape)
                    # TensorFlow has no double-precision gradients of dilated convolutions on the CPU.
                    if dilation == 1:
                        case(f"conv2d input gradient/{short}/{name}", raw.Conv2DBackpropInput(
                            input_sizes=images, filter=x(*filters), out_backprop=dy, strides=strides, padding=padding))
                        case(f"conv2d filter gradient/{short}/{name}", raw.Conv2DBackpropFilter(
                            input=x(*images), filter_sizes=filters, out_backprop=dy, strides=strides, padding=padding))
            images, filters = (8, 28, 28, 32), (3, 3, 32, 1)
            y = raw.DepthwiseConv2dNative(input=x(*images), filter=x(*filters), strides=[1] * 4, padding="SAME")
            case(f"depthwise/{short}/3x3 of 32", y)
            case(f"depthwise input gradient/{short}/3x3 of 32", raw.DepthwiseConv2dNativeBackpropInput(
                input_sizes=images, filter=x(*filters), out_backprop=x(*y.shape), strides=[1] * 4, padding="SAME"))
            case(f"depthwise filter gradient/{short}/3x3 of 32", raw.DepthwiseConv2dNativeBackpropFilter(
                input=x(*images), filter_sizes=filters, out_backprop=x(*y.shape), strides=[1] * 4, padding="SAME"))
            case(f"conv3d/{short}/3x3x3", raw.Conv3D(input=x(2, 12, 14, 13, 8), filter=x(3, 3, 3, 8, 16), strides=[1] * 5,
                                                     padding="SAME"))

            # Pools.
            for name, images, size, stride in [("2x2", (64, 24, 24, 20), 2, 2), ("3x3 stride 2, odd", (16, 55, 57, 13), 3, 2)]:
                window = dict(ksize=[1, size, size, 1], strides=[1, stride, stride, 1], padding="SAME")
                y = raw.MaxPool(input=x(*images), **window)
                case(f"max pool/{short}/{name}", y)
                dy = x(*y.shape)
                case(f"max pool gradient/{short}/{name}", raw.MaxPoolGrad(orig_input=x(*images), orig_output=x(*y.shape),
                                                                          grad=dy, **window))
                case(f"mean pool/{short}/{name}", raw.AvgPool(value=x(*images), **window))
                case(f"mean pool gradient/{short}/{name}", raw.AvgPoolGrad(orig_input_shape=images, grad=dy, **window))

            # Layers' other parts.
            case(f"bias/{short}/100000x13", raw.BiasAdd(value=x(100000, 13), bias=x(13)))
            case(f"bias gradient/{short}/100000x13", raw.BiasAddGrad(out_backprop=x(100000, 13)))
            for rows, columns in [(20000, 10), (200, 10007)]:
                case(f"softmax/{short}/{rows}x{columns}", tf.nn.softmax(x(rows, columns)))
                case(f"log softmax/{short}/{rows}x{columns}", tf.nn.log_softmax(x(rows, columns)))
                case(f"cross entropy/{short}/{rows}x{columns}", raw.SoftmaxCrossEntropyWithLogits(
                    features=x(rows, columns), labels=x(rows, columns, low=0.0)).loss)
                case(f"sparse cross entropy/{short}/{rows}x{columns}", raw.SparseSoftmaxCrossEntropyWithLogits(
                    features=x(rows, columns), labels=given(rows, dtype="int32", low=0, high=9.5)).loss)
            case(f"l2 loss/{short}/1000003", raw.L2Loss(t=x(1000003)))

            # Element by element.
            for name, low in [("Exp", -1), ("Log", 0.1), ("Tanh", -1), ("Sigmoid", -1), ("Erf", -1), ("Rsqrt", 0.1), ("Sqrt", 0.1),
                              ("Sin", -1), ("Cos", -1), ("Expm1", -1), ("Log1p", -0.5), ("Lgamma", 0.1), ("Floor", -1), ("Round", -1),
                              ("Abs", -1), ("Sign", -1), ("Square", -1), ("Reciprocal", 0.1), ("Asin", -1), ("Atan", -1),
                              ("Sinh", -1), ("Tan", -1), ("IsFinite", -1)]:
                case(f"map/{short}/{name}", getattr(raw, name)(**{"y" if name == "unused" else "x": x(1000003, low=low)}))
            for name in ("Relu", "Relu6", "Elu", "Selu", "Softplus", "Softsign"):
                case(f"map/{short}/{name}", getattr(raw, name)(features=x(1000003)))
            for name, low in [("AddV2", -1), ("Mul", -1), ("RealDiv", 0.1), ("Maximum", -1), ("Pow", 0.1), ("SquaredDifference", -1),
                              ("FloorMod", 0.1), ("Atan2", -1), ("Less", -1), ("Equal", -1), ("DivNoNan", -1)]:
                function = getattr(raw, name)
                names = ("y", "x") if name == "Atan2" else ("x", "y")
                case(f"map/{short}/{name}", function(**dict(zip(names, (x(1000003, low=low), x(1000003, low=low, high=1.5))))))
                if name in ("AddV2", "Mul", "Less"):
                    case(f"map/{short}/{name} row", function(x=x(1001, 999), y=x(999)))
                    case(f"map/{short}/{name} column", function(x=x(1001, 999), y=x(1001, 1)))
                    case(f"map/{short}/{name} outer", function(x=x(1001, 1), y=x(999)))
                    case(f"map/{short}/{name} middle", function(x=x(101, 99, 101), y=x(101, 1, 101)))
                    case(f"map/{short}/{name} short rows", function(x=x(333333, 3), y=x(3)))
            case(f"map/{short}/Select", raw.SelectV2(condition=given(1000003, dtype="bool"), t=x(1000003), e=x(1000003, high=1.5)))
            case(f"map/{short}/AddN", raw.AddN(inputs=[x(1000003), x(1000003, high=1.5), x(1000003, low=0.1)]))
            case(f"map/{short}/clip", raw.ClipByValue(t=x(1000003), clip_value_min=x(low=-0.5, high=-0.4), clip_value_max=x(low=0.4)))

            # Reductions.
            for name in ("Sum", "Max", "Prod", "Mean"):
                function = getattr(raw, name)
                for shape, axes in [((1001, 999), [0]), ((1001, 999), [1]), ((1001, 999), [0, 1]), ((101, 99, 101), [1]),
                                    ((101, 99, 101), [0, 2]), ((333333, 3), [1]), ((3, 333333), [0])]:
                    case(f"reduce/{short}/{name} {'x'.join(map(str, shape))} {axes}".replace("[", "over ").replace("]", ""),
                         function(input=x(*shape), axis=axes))
            for axis in (0, 1):
                case(f"reduce/{short}/ArgMax 1001x999 over {axis}", raw.ArgMax(input=x(1001, 999), dimension=axis))
                case(f"reduce/{short}/Cumsum 1001x999 over {axis}", raw.Cumsum(x=x(1001, 999), axis=axis))

            # Moving.
            for shape, order in [((1001, 999), [1, 0]), ((32, 28, 28, 20), [0, 3, 1, 2]), ((32, 20, 28, 28), [0, 2, 3, 1]),
                                 ((101, 99, 101), [1, 0, 2]), ((101, 99, 101), [2, 1, 0])]:
                case(f"move/{short}/Transpose {'x'.join(map(str, shape))} to {order}", raw.Transpose(x=x(*shape), perm=order))
            case(f"move/{short}/Concat columns", raw.ConcatV2(values=[x(1001, 333), x(1001, 7), x(1001, 500)], axis=1))
            case(f"move/{short}/Concat rows", raw.ConcatV2(values=[x(333, 1001), x(7, 1001), x(500, 1001)], axis=0))
            case(f"move/{short}/Split", raw.Split(axis=1, value=x(1001, 999), num_split=3)[0])
            case(f"move/{short}/Slice", raw.Slice(input=x(1001, 999), begin=[3, 5], size=[990, 980]))
            case(f"move/{short}/StridedSlice by 2", x(1001, 999).value()[::2, ::2])
            case(f"move/{short}/StridedSlice backwards", x(1001, 999).value()[::-1, ::-1])
            case(f"move/{short}/Pad", raw.Pad(input=x(32, 28, 28, 20), paddings=[[0, 0], [2, 2], [2, 2], [0, 0]]))
            case(f"move/{short}/MirrorPad", raw.MirrorPad(input=x(32, 28, 28, 20), paddings=[[0, 0], [2, 2], [2, 2], [0, 0]], mode="REFLECT"))
            case(f"move/{short}/Tile", raw.Tile(input=x(101, 99), multiples=[10, 10]))
            case(f"move/{short}/BroadcastTo", raw.BroadcastTo(input=x(1001, 1), shape=[1001, 999]))
            case(f"move/{short}/Reverse", raw.ReverseV2(tensor=x(1001, 999), axis=[1]))
            case(f"move/{short}/Pack", raw.Pack(values=[x(1001, 333), x(1001, 333, high=1.5)], axis=1))
            case(f"move/{short}/Unpack", raw.Unpack(value=x(1001, 999), num=999, axis=1)[0])
            case(f"move/{short}/SpaceToDepth", raw.SpaceToDepth(input=x(32, 28, 28, 20), block_size=2))
            case(f"move/{short}/Gather rows", raw.GatherV2(params=x(10007, 64), indices=given(20000, dtype="int32", low=0, high=10006), axis=0))
            case(f"move/{short}/Gather numbers", raw.GatherV2(params=x(1000003), indices=given(500000, dtype="int32", low=0, high=10006), axis=0))
            case(f"move/{short}/Gather columns", raw.GatherV2(params=x(1001, 999), indices=given(500, dtype="int32", low=0, high=998), axis=1))
            case(f"move/{short}/GatherNd", raw.GatherNd(params=x(1001, 999), indices=given(100000, 2, dtype="int32", low=0, high=998)))
            case(f"move/{short}/ScatterNd", raw.ScatterNd(indices=given(20000, 1, dtype="int32", low=0, high=10006), updates=x(20000, 64), shape=[10007, 64]))
            case(f"move/{short}/UnsortedSegmentSum", raw.UnsortedSegmentSum(
                data=x(20000, 64), segment_ids=given(20000, dtype="int32", low=0, high=99.5), num_segments=100))
            case(f"move/{short}/OneHot", raw.OneHot(indices=given(20000, dtype="int32", low=0, high=99.5), depth=100, on_value=x(high=1.1), off_value=x(low=-0.1)))
            case(f"move/{short}/Boolean mask", tf.where(given(1000003, dtype="bool")))
            case(f"order/{short}/TopK", raw.TopKV2(input=x(1001, 999), k=10).values)
            case(f"order/{short}/sort", raw.TopKV2(input=x(100, 9999), k=9999).values)
            case(f"order/{short}/InTopK", raw.InTopKV2(predictions=given(20000, 100), targets=given(20000, dtype="int32", low=0, high=99.5), k=5))
            case(f"image/{short}/ResizeBilinear", raw.ResizeBilinear(images=x(8, 64, 64, 3), size=[129, 127]))
            case(f"image/{short}/ResizeNearestNeighbor", raw.ResizeNearestNeighbor(images=x(8, 64, 64, 3), size=[129, 127]))
            drawn = v1.random_uniform((300, 300), dtype=dtype, seed=1)
            definite = v1.Variable(tf.matmul(drawn, drawn, transpose_b=True) + raw.MatrixDiag(diagonal=tf.fill([300], tf.constant(100, dtype))),
                                   use_resource=False)
            case(f"linear algebra/{short}/Cholesky", raw.Cholesky(input=definite))
            case(f"linear algebra/{short}/MatrixInverse", raw.MatrixInverse(input=definite))
            case(f"linear algebra/{short}/MatrixTriangularSolve", raw.MatrixTriangularSolve(matrix=definite, rhs=x(300, 300, high=1.5)))
            case(f"linear algebra/{short}/Einsum", tf.einsum("bij,bjk->bik", x(8, 128, 64), x(8, 64, 128)))

            # Random numbers.
            for name in ("RandomUniform", "RandomStandardNormal", "TruncatedNormal"):
                case(f"random/{short}/{name}", getattr(raw, name)(shape=[1000003], dtype=dtype, seed=3, seed2=4))
            case(f"random/{short}/Gamma", raw.RandomGamma(shape=[100000], alpha=x(low=0.9, high=0.95), seed=3, seed2=4))
            case(f"random/{short}/Multinomial", raw.Multinomial(logits=x(100, 1000), num_samples=100, seed=3, seed2=4))
            case(f"random/{short}/Shuffle", raw.RandomShuffle(value=x(10007, 64), seed=3, seed2=4))

            # Updates.
            def variable(name):
                return v1.Variable(tf.zeros((1000003,), dtype), use_resource=False, name=f"{name}_{short}")

            rate, gradient = tf.constant(0.01, dtype), x(1000003)
            case(f"update/{short}/GradientDescent", raw.ApplyGradientDescent(var=variable("sgd")._ref(), alpha=rate, delta=gradient))
            case(f"update/{short}/Momentum", raw.ApplyMomentum(var=variable("m")._ref(), accum=variable("ma")._ref(), lr=rate, grad=gradient, momentum=rate))
            case(f"update/{short}/Adam", raw.ApplyAdam(
                var=variable("adam")._ref(), m=variable("adam_m")._ref(), v=variable("adam_v")._ref(), beta1_power=rate, beta2_power=rate, lr=rate,
                beta1=tf.constant(0.9, dtype), beta2=tf.constant(0.999, dtype), epsilon=tf.constant(1e-8, dtype), grad=gradient))
            case(f"update/{short}/RMSProp", raw.ApplyRMSProp(
                var=variable("rms")._ref(), ms=variable("rms_s")._ref(), mom=variable("rms_m")._ref(), lr=rate, rho=rate, momentum=rate,
                epsilon=rate, grad=gradient))
            case(f"update/{short}/Ftrl", raw.ApplyFtrl(
                var=variable("ftrl")._ref(), accum=variable("ftrl_a")._ref(), linear=variable("ftrl_l")._ref(), grad=gradient, lr=rate, l1=rate,
                l2=rate, lr_power=tf.constant(-0.5, dtype)))
            case(f"update/{short}/ScatterAdd", raw.ScatterAdd(
                ref=v1.Variable(tf.zeros((10007, 64), dtype), use_resource=False)._ref(), indices=given(20000, dtype="int32", low=0, high=10006),
                updates=x(20000, 64)))

        # What is of one dtype.
        x = given
        case("lrn/f32/32x12x12x20", raw.LRN(input=x(32, 12, 12, 20), depth_radius=5))
        case("lrn/f32/odd 7x13x11x33, beta 0.75", raw.LRN(input=x(7, 13, 11, 33), depth_radius=2, beta=0.75))
        case("lrn gradient/f32/32x12x12x20", raw.LRNGrad(input_grads=x(32, 12, 12, 20), input_image=x(32, 12, 12, 20, high=1.5),
                                                         output_image=x(32, 12, 12, 20, low=0.1), depth_radius=5))
        case("batch norm/f32/64x24x24x20", raw.FusedBatchNorm(x=x(64, 24, 24, 20), scale=x(20), offset=x(20), mean=[], variance=[]).y)
        pairs = [("float32", "float64"), ("float64", "float32"), ("float32", "float16"), ("float16", "float32"), ("float32", "bfloat16"),
                 ("float32", "int32"), ("int32", "float32"), ("uint8", "float32"), ("bool", "float32"), ("int32", "int64"), ("float32", "bool")]
        for source, target in pairs:
            case(f"cast/{source} to {target}", raw.Cast(x=x(1000003, dtype=source, high=100.0), DstT=tf.as_dtype(target)))
        for dtype in ("float16", "bfloat16", "int32", "int64", "uint8"):
            a, b = x(1000003, dtype=dtype, low=1, high=100), x(1000003, dtype=dtype, low=1, high=50)
            names = ["AddV2", "Mul", "Maximum", "Less"] + (["FloorDiv", "FloorMod"] if dtype != "bfloat16" else [])
            for name in names:
                case(f"map/{dtype}/{name}", getattr(raw, name)(x=a, y=b))
            case(f"reduce/{dtype}/Sum", raw.Sum(input=x(1001, 999, dtype=dtype, low=1, high=100), axis=[0]))
            case(f"reduce/{dtype}/Sum of all", raw.Sum(input=x(1001, 999, dtype=dtype, low=1, high=100), axis=[0, 1]))
            case(f"reduce/{dtype}/ArgMax", raw.ArgMax(input=x(1001, 999, dtype=dtype, low=1, high=100), dimension=1))
            case(f"move/{dtype}/Transpose", raw.Transpose(x=x(1001, 999, dtype=dtype, low=1, high=100), perm=[1, 0]))
        for dtype in ("float16", "bfloat16"):
            case(f"matmul/{dtype}/500x1250x800", tf.matmul(x(500, 1250, dtype=dtype), x(1250, 800, dtype=dtype)))
            case(f"map/{dtype}/Exp", raw.Exp(x=x(1000003, dtype=dtype)))
            case(f"map/{dtype}/Tanh", raw.Tanh(x=x(1000003, dtype=dtype)))
            case(f"map/{dtype}/Relu", raw.Relu(features=x(1000003, dtype=dtype)))
        case("matmul/int32/333x333x333", tf.matmul(x(333, 333, dtype="int32", high=9), x(333, 333, dtype="int32", high=9)))
        case("matmul/complex64/333x333x333", tf.matmul(tf.complex(x(333, 333), x(333, 333)), tf.complex(x(333, 333), x(333, 333))))
        case("random/int32/RandomUniformInt", raw.RandomUniformInt(shape=[1000003], minval=0, maxval=1000, seed=3, seed2=4))
        case("map/bool/LogicalAnd", raw.LogicalAnd(x=x(1000003, dtype="bool"), y=x(1000003, dtype="bool", high=2)))
        case("reduce/bool/Any", raw.Any(input=x(1001, 999, dtype="bool"), axis=[1]))
        case("map/int32/LeftShift", raw.LeftShift(x=x(1000003, dtype="int32", low=1, high=100), y=x(1000003, dtype="int32", low=1, high=5)))
        case("map/complex64/Mul", raw.Mul(x=tf.complex(x(500003), x(500003)), y=tf.complex(x(500003), x(500003))))
        case("order/int32/Unique", raw.Unique(x=x(200003, dtype="int32", high=1000)).y)
        case("order/int32/Bincount", raw.Bincount(arr=x(1000003, dtype="int32", high=99.5, low=0), size=100, weights=tf.constant([], tf.float32)))
        case("summary/f32/HistogramSummary", raw.HistogramSummary(tag="h", values=x(1000003)))
        v1.group(*(variable.initializer for variable in v1.global_variables()), name="init")
    return graph, cases


class TensorFlow:
    title = "TensorFlow"

    def __init__(self, tf, graph):
        self.graph = graph
        # Its optimizer would leave out operations whose outputs nobody reads.
        config = tf.compat.v1.ConfigProto()
        config.graph_options.rewrite_options.disable_meta_optimizer = True
        self.session = tf.compat.v1.Session(graph=graph, config=config)
        self.session.run("init")
        self.calls = {}

    def time(self, name, count):
        if name not in self.calls:
            self.calls[name] = self.session.make_callable(self.graph.get_operation_by_name(name))
            self.calls[name]()
        call = self.calls[name]
        began = time.perf_counter()
        for _ in range(count):
            call()
        return (time.perf_counter() - began) / count * 1e3


def rounds_of(side, name, arguments):
    """How often to run in a round."""
    once = min(side.time(name, 1), side.time(name, 1))
    return max(1, round(arguments.seconds * 1e3 / max(once, 1e-4)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", default=OURS, help="our program (default: target/release/examples/operations)")
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--worst", type=int, help="print so many, the slowest of ours beside TensorFlow's")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.03, help="about how long a round lasts (default: 0.03)")
    arguments = parser.parse_args()
    if not os.path.exists(arguments.ours):
        parser.error(f"{arguments.ours}: not built (cargo build --release -p graph-ops --example operations)")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf
    from training_step import Refused, Side

    graph, cases = build(tf)
    names = [name for name in cases if arguments.only in name]
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "operations.pb")
        with open(path, "wb") as file:
            file.write(graph.as_graph_def().SerializeToString())
        ours = Side("ours", [arguments.ours, path])
    theirs = TensorFlow(tf, graph)
    found, refused = [], []
    for name in names:
        try:
            operation = cases[name]
            counts = [(side, rounds_of(side, operation, arguments)) for side in (ours, theirs)]
            times = {side.title: [] for side, _ in counts}
            for k in range(arguments.rounds):
                for side, count in counts if k % 2 else counts[::-1]:
                    times[side.title].append(side.time(operation, count))
        except (Refused, tf.errors.OpError) as error:
            refused.append((name, "TensorFlow: " + error.message.split("\n")[0] if isinstance(error, tf.errors.OpError) else f"ours: {error}"))
            continue
        mine, other = (statistics.median(times[title]) for title in ("ours", "TensorFlow"))
        found.append((mine / other, mine, other, name))
    ours.close()
    found.sort()
    for ratio, mine, other, name in found[-arguments.worst if arguments.worst else 0:]:
        print(f"{ratio:8.2f}  ours {mine:9.3f} ms   TensorFlow {other:9.3f} ms   {name}")
    for name, why in refused:
        print(f" skipped  {name}: {why}")
    ratios = [ratio for ratio, *_ in found]
    if ratios:
        print(f"{len(ratios)} cases; median of ratios {statistics.median(ratios):.2f}; {sum(ratio > 1 for ratio in ratios)} slower than TensorFlow's, "
              f"{sum(ratio > 2 for ratio in ratios)} by more than twice")


if __name__ == "__main__":
    main()
