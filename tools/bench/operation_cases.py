"""The cases of operations.py: one graph with an operation for each."""

MILLION = 1_000_003
SHORT = {"float32": "f32", "float64": "f64"}


class Cases:
    """Collects operations, and makes the variables that they read."""

    def __init__(self, tf):
        self.tf, self.raw, self.v1 = tf, tf.raw_ops, tf.compat.v1
        self.operations = {}
        self.made = {}

    def add(self, name, output):
        """A case: the operation that makes this tensor."""
        assert name not in self.operations, name
        self.operations[name] = output.op.name

    def given(self, *shape, dtype="float32", low=-1.0, high=1.0):
        """A variable of uniform numbers, made once for all cases that ask for the same."""
        key = (shape, dtype, low, high)
        if key not in self.made:
            kind = self.tf.as_dtype(dtype)
            drawn_in = kind if kind == self.tf.float64 else self.tf.float32
            drawn = self.v1.random_uniform(shape, low, high, drawn_in, seed=len(self.made) + 1)
            self.made[key] = self.variable(self.tf.cast(drawn, kind))
        return self.made[key]

    def integers(self, *shape, below):
        return self.given(*shape, dtype="int32", low=0, high=below - 0.5)

    def variable(self, value):
        return self.v1.Variable(value, use_resource=False)


class Typed:
    """The cases of one floating-point dtype."""

    def __init__(self, cases, dtype):
        self.cases, self.dtype = cases, dtype
        self.tf, self.raw = cases.tf, cases.raw

    def x(self, *shape, low=-1.0, high=1.0):
        return self.cases.given(*shape, dtype=self.dtype, low=low, high=high)

    def add(self, family, name, output):
        self.cases.add(f"{family}/{SHORT[self.dtype]}/{name}", output)

    def number(self, value):
        return self.tf.constant(value, self.dtype)

    def products(self):
        for m, k, n in [(500, 1250, 800), (333, 777, 555), (1, 1250, 800), (7, 1000, 1000), (1000, 7, 1000),
                        (1000, 1000, 7), (1000, 1000, 1)]:
            self.add("matmul", f"{m}x{k}x{n}", self.tf.matmul(self.x(m, k), self.x(k, n)))
        product = self.tf.matmul(self.x(777, 501), self.x(777, 333), transpose_a=True)
        self.add("matmul", "transposed a 501x777x333", product)
        product = self.tf.matmul(self.x(501, 777), self.x(333, 777), transpose_b=True)
        self.add("matmul", "transposed b 501x777x333", product)
        product = self.tf.matmul(self.x(8, 1250), self.x(8, 800), transpose_a=True)
        self.add("matmul", "transposed a 1250x8x800", product)
        for count, m, k, n in [(64, 65, 33, 17), (8, 128, 64, 128)]:
            product = self.raw.BatchMatMulV2(x=self.x(count, m, k), y=self.x(count, k, n))
            self.add("batch matmul", f"{count} of {m}x{k}x{n}", product)

    def convolutions(self):
        raw, x = self.raw, self.x
        for name, images, filters, stride, dilation in [
            ("5x5 of 1", (64, 28, 28, 1), (5, 5, 1, 20), 1, 1),
            ("3x3 of 20", (64, 12, 12, 20), (3, 3, 20, 50), 1, 1),
            ("odd", (17, 31, 29, 3), (3, 5, 3, 7), 1, 1),
            ("1x1", (8, 28, 28, 64), (1, 1, 64, 128), 1, 1),
            ("7x7 stride 2", (8, 64, 64, 3), (7, 7, 3, 64), 2, 1),
            ("dilation 2", (8, 28, 28, 16), (3, 3, 16, 32), 1, 2),
            ("one image", (1, 56, 56, 64), (3, 3, 64, 64), 1, 1),
        ]:
            how = {"strides": [1, stride, stride, 1], "padding": "SAME", "dilations": [1, dilation, dilation, 1]}
            y = raw.Conv2D(input=x(*images), filter=x(*filters), **how)
            self.add("conv2d", name, y)
            if dilation == 1:  # TensorFlow's CPU has no others
                self.add("conv2d input gradient", name, raw.Conv2DBackpropInput(
                    input_sizes=images, filter=x(*filters), out_backprop=x(*y.shape), **how))
                self.add("conv2d filter gradient", name, raw.Conv2DBackpropFilter(
                    input=x(*images), filter_sizes=filters, out_backprop=x(*y.shape), **how))
        images, filters, how = (8, 28, 28, 32), (3, 3, 32, 1), {"strides": [1] * 4, "padding": "SAME"}
        y = raw.DepthwiseConv2dNative(input=x(*images), filter=x(*filters), **how)
        self.add("depthwise", "3x3 of 32", y)
        self.add("depthwise input gradient", "3x3 of 32", raw.DepthwiseConv2dNativeBackpropInput(
            input_sizes=images, filter=x(*filters), out_backprop=x(*y.shape), **how))
        self.add("depthwise filter gradient", "3x3 of 32", raw.DepthwiseConv2dNativeBackpropFilter(
            input=x(*images), filter_sizes=filters, out_backprop=x(*y.shape), **how))
        volumes, filters, how = (2, 12, 14, 13, 8), (3, 3, 3, 8, 16), {"strides": [1] * 5, "padding": "SAME"}
        y = raw.Conv3D(input=x(*volumes), filter=x(*filters), **how)
        self.add("conv3d", "3x3x3", y)
        self.add("conv3d input gradient", "3x3x3", raw.Conv3DBackpropInputV2(
            input_sizes=volumes, filter=x(*filters), out_backprop=x(*y.shape), **how))
        self.add("conv3d filter gradient", "3x3x3", raw.Conv3DBackpropFilterV2(
            input=x(*volumes), filter_sizes=filters, out_backprop=x(*y.shape), **how))

    def pools(self):
        raw, x = self.raw, self.x
        for name, images, size, stride in [("2x2", (64, 24, 24, 20), 2, 2), ("3x3 stride 2, odd", (16, 55, 57, 13), 3, 2)]:
            how = {"ksize": [1, size, size, 1], "strides": [1, stride, stride, 1], "padding": "SAME"}
            y = raw.MaxPool(input=x(*images), **how)
            self.add("max pool", name, y)
            self.add("max pool gradient", name, raw.MaxPoolGrad(
                orig_input=x(*images), orig_output=x(*y.shape), grad=x(*y.shape), **how))
            self.add("mean pool", name, raw.AvgPool(value=x(*images), **how))
            self.add("mean pool gradient", name, raw.AvgPoolGrad(orig_input_shape=images, grad=x(*y.shape), **how))
        if self.dtype == "float64":  # TensorFlow has no maxima of volumes in it
            return
        volumes, how = (4, 16, 17, 15, 13), {"ksize": [1, 3, 3, 3, 1], "strides": [1, 2, 2, 2, 1], "padding": "SAME"}
        y = raw.MaxPool3D(input=x(*volumes), **how)
        self.add("max pool", "3x3x3 stride 2, odd", y)
        self.add("mean pool", "3x3x3 stride 2, odd", raw.AvgPool3D(input=x(*volumes), **how))
        self.add("mean pool gradient", "3x3x3 stride 2, odd", raw.AvgPool3DGrad(
            orig_input_shape=volumes, grad=x(*y.shape), **how))

    def layers(self):
        raw, x = self.raw, self.x
        self.add("bias", "100000x13", raw.BiasAdd(value=x(100000, 13), bias=x(13)))
        self.add("bias gradient", "100000x13", raw.BiasAddGrad(out_backprop=x(100000, 13)))
        self.add("l2 loss", f"{MILLION}", raw.L2Loss(t=x(MILLION)))
        for rows, columns in [(20000, 10), (200, 10007)]:
            size, logits = f"{rows}x{columns}", x(rows, columns)
            self.add("softmax", size, raw.Softmax(logits=logits))
            self.add("log softmax", size, raw.LogSoftmax(logits=logits))
            self.add("cross entropy", size, raw.SoftmaxCrossEntropyWithLogits(
                features=logits, labels=x(rows, columns, low=0.0)).loss)
            self.add("sparse cross entropy", size, raw.SparseSoftmaxCrossEntropyWithLogits(
                features=logits, labels=self.cases.integers(rows, below=10)).loss)

    def maps(self):
        raw, x = self.raw, self.x
        names = ("Exp Tanh Sigmoid Erf Sin Cos Expm1 Floor Round Abs Sign Square Asin Atan Sinh Tan IsFinite "
                 "Log:0.1 Rsqrt:0.1 Sqrt:0.1 Log1p:-0.5 Lgamma:0.1 Reciprocal:0.1")
        for name in names.split():
            name, _, low = name.partition(":")
            self.add("map", name, getattr(raw, name)(x=x(MILLION, low=float(low or -1))))
        for name in "Relu Relu6 Elu Selu Softplus Softsign".split():
            self.add("map", name, getattr(raw, name)(features=x(MILLION)))
        names = "AddV2 Mul Maximum SquaredDifference Less Equal DivNoNan Atan2 RealDiv:0.1 Pow:0.1 FloorMod:0.1"
        for name in names.split():
            name, _, low = name.partition(":")
            function, low = getattr(raw, name), float(low or -1)
            operands = {"x": x(MILLION, low=low), "y": x(MILLION, low=low, high=1.5)}
            self.add("map", name, function(**operands))
            if name in ("AddV2", "Mul", "Less"):
                for how, left, right in [("row", (1001, 999), (999,)), ("column", (1001, 999), (1001, 1)),
                                         ("outer", (1001, 1), (999,)), ("middle", (101, 99, 101), (101, 1, 101)),
                                         ("short rows", (333333, 3), (3,))]:
                    self.add("map", f"{name} {how}", function(x=x(*left), y=x(*right)))
        chosen = self.cases.given(MILLION, dtype="bool")
        self.add("map", "Select", raw.SelectV2(condition=chosen, t=x(MILLION), e=x(MILLION, high=1.5)))
        self.add("map", "AddN", raw.AddN(inputs=[x(MILLION), x(MILLION, high=1.5), x(MILLION, low=0.1)]))
        self.add("map", "ClipByValue", raw.ClipByValue(
            t=x(MILLION), clip_value_min=x(low=-0.5, high=-0.4), clip_value_max=x(low=0.4)))

    def reductions(self):
        for shape, axes in [((1001, 999), [0]), ((1001, 999), [1]), ((1001, 999), [0, 1]), ((101, 99, 101), [1]),
                            ((101, 99, 101), [0, 2]), ((333333, 3), [1]), ((3, 333333), [0])]:
            how = f"{'x'.join(map(str, shape))} over {', '.join(map(str, axes))}"
            for name in ("Sum", "Max", "Prod", "Mean"):
                self.add("reduce", f"{name} {how}", getattr(self.raw, name)(input=self.x(*shape), axis=axes))
        for axis in (0, 1):
            x = self.x(1001, 999)
            self.add("reduce", f"ArgMax 1001x999 over {axis}", self.raw.ArgMax(input=x, dimension=axis))
            self.add("reduce", f"Cumsum 1001x999 over {axis}", self.raw.Cumsum(x=x, axis=axis))

    def moves(self):
        raw, x, integers = self.raw, self.x, self.cases.integers
        for shape, order in [((1001, 999), [1, 0]), ((32, 28, 28, 20), [0, 3, 1, 2]), ((32, 20, 28, 28), [0, 2, 3, 1]),
                             ((101, 99, 101), [1, 0, 2]), ((101, 99, 101), [2, 1, 0])]:
            how = f"{'x'.join(map(str, shape))} to {order}"
            self.add("move", f"Transpose {how}", raw.Transpose(x=x(*shape), perm=order))
        matrix, images, around = x(1001, 999), x(32, 28, 28, 20), [[0, 0], [2, 2], [2, 2], [0, 0]]
        widths = (333, 7, 500)
        self.add("move", "Concat columns", raw.ConcatV2(values=[x(1001, width) for width in widths], axis=1))
        self.add("move", "Concat rows", raw.ConcatV2(values=[x(width, 1001) for width in widths], axis=0))
        self.add("move", "Split", raw.Split(axis=1, value=matrix, num_split=3)[0])
        self.add("move", "Slice", raw.Slice(input=matrix, begin=[3, 5], size=[990, 980]))
        self.add("move", "StridedSlice by 2", matrix.value()[::2, ::2])
        self.add("move", "StridedSlice backwards", matrix.value()[::-1, ::-1])
        self.add("move", "Pad", raw.Pad(input=images, paddings=around))
        self.add("move", "MirrorPad", raw.MirrorPad(input=images, paddings=around, mode="REFLECT"))
        self.add("move", "Tile", raw.Tile(input=x(101, 99), multiples=[10, 10]))
        self.add("move", "BroadcastTo", raw.BroadcastTo(input=x(1001, 1), shape=[1001, 999]))
        self.add("move", "Reverse", raw.ReverseV2(tensor=matrix, axis=[1]))
        self.add("move", "Pack", raw.Pack(values=[x(1001, 333), x(1001, 333, high=1.5)], axis=1))
        self.add("move", "Unpack", raw.Unpack(value=matrix, num=999, axis=1)[0])
        self.add("move", "SpaceToDepth", raw.SpaceToDepth(input=images, block_size=2))
        rows, table = integers(20000, below=10007), x(10007, 64)
        self.add("move", "Gather rows", raw.GatherV2(params=table, indices=rows, axis=0))
        self.add("move", "Gather numbers", raw.GatherV2(params=x(MILLION), indices=integers(500000, below=10007), axis=0))
        self.add("move", "Gather columns", raw.GatherV2(params=matrix, indices=integers(500, below=999), axis=1))
        self.add("move", "GatherNd", raw.GatherNd(params=matrix, indices=integers(100000, 2, below=999)))
        self.add("move", "ScatterNd", raw.ScatterNd(
            indices=integers(20000, 1, below=10007), updates=x(20000, 64), shape=[10007, 64]))
        segments = integers(20000, below=100)
        self.add("move", "UnsortedSegmentSum", raw.UnsortedSegmentSum(
            data=x(20000, 64), segment_ids=segments, num_segments=100))
        self.add("move", "OneHot", raw.OneHot(
            indices=segments, depth=100, on_value=self.number(1), off_value=self.number(0)))
        self.add("image", "ResizeBilinear", raw.ResizeBilinear(images=x(8, 64, 64, 3), size=[129, 127]))
        self.add("image", "ResizeNearestNeighbor", raw.ResizeNearestNeighbor(images=x(8, 64, 64, 3), size=[129, 127]))
        self.add("order", "TopK", raw.TopKV2(input=matrix, k=10).values)
        self.add("order", "sort", raw.TopKV2(input=x(100, 9999), k=9999).values)

    def linear_algebra(self):
        raw, x = self.raw, self.x
        drawn = self.cases.v1.random_uniform((300, 300), dtype=self.dtype, seed=1)
        diagonal = raw.MatrixDiag(diagonal=self.tf.fill([300], self.number(100)))
        definite = self.cases.variable(self.tf.matmul(drawn, drawn, transpose_b=True) + diagonal)
        self.add("linear algebra", "Cholesky", raw.Cholesky(input=definite))
        self.add("linear algebra", "MatrixInverse", raw.MatrixInverse(input=definite))
        self.add("linear algebra", "MatrixTriangularSolve", raw.MatrixTriangularSolve(matrix=definite, rhs=x(300, 300)))
        self.add("linear algebra", "Einsum", raw.Einsum(inputs=[x(8, 128, 64), x(8, 64, 128)], equation="bij,bjk->bik"))

    def random(self):
        seeds = {"seed": 3, "seed2": 4}
        for name in ("RandomUniform", "RandomStandardNormal", "TruncatedNormal"):
            self.add("random", name, getattr(self.raw, name)(shape=[MILLION], dtype=self.dtype, **seeds))
        self.add("random", "Gamma", self.raw.RandomGamma(shape=[100000], alpha=self.x(low=0.9, high=0.95), **seeds))
        self.add("random", "Multinomial", self.raw.Multinomial(logits=self.x(100, 1000), num_samples=100, **seeds))
        self.add("random", "Shuffle", self.raw.RandomShuffle(value=self.x(10007, 64), **seeds))

    def updates(self):
        raw, rate, gradient, number = self.raw, self.number(0.01), self.x(MILLION), self.number

        def state():
            return self.cases.variable(self.tf.zeros((MILLION,), self.dtype))._ref()

        self.add("update", "GradientDescent", raw.ApplyGradientDescent(var=state(), alpha=rate, delta=gradient))
        self.add("update", "Momentum", raw.ApplyMomentum(
            var=state(), accum=state(), lr=rate, grad=gradient, momentum=rate))
        self.add("update", "Adam", raw.ApplyAdam(
            var=state(), m=state(), v=state(), beta1_power=rate, beta2_power=rate, lr=rate, beta1=number(0.9),
            beta2=number(0.999), epsilon=number(1e-8), grad=gradient))
        self.add("update", "RMSProp", raw.ApplyRMSProp(
            var=state(), ms=state(), mom=state(), lr=rate, rho=rate, momentum=rate, epsilon=rate, grad=gradient))
        self.add("update", "Ftrl", raw.ApplyFtrl(
            var=state(), accum=state(), linear=state(), grad=gradient, lr=rate, l1=rate, l2=rate, lr_power=number(-0.5)))
        table = self.cases.variable(self.tf.zeros((10007, 64), self.dtype))._ref()
        self.add("update", "ScatterAdd", raw.ScatterAdd(
            ref=table, indices=self.cases.integers(20000, below=10007), updates=self.x(20000, 64)))

    def all(self):
        for family in (self.products, self.convolutions, self.pools, self.layers, self.maps, self.reductions, self.moves,
                       self.linear_algebra, self.random, self.updates):
            family()


def single_precision_only(cases):
    raw, x = cases.raw, cases.given
    cases.add("lrn/f32/32x12x12x20", raw.LRN(input=x(32, 12, 12, 20), depth_radius=5))
    cases.add("lrn/f32/odd 7x13x11x33, beta 0.75", raw.LRN(input=x(7, 13, 11, 33), depth_radius=2, beta=0.75))
    cases.add("lrn gradient/f32/32x12x12x20", raw.LRNGrad(
        input_grads=x(32, 12, 12, 20), input_image=x(32, 12, 12, 20, high=1.5),
        output_image=x(32, 12, 12, 20, low=0.1), depth_radius=5))
    cases.add("batch norm/f32/64x24x24x20", raw.FusedBatchNorm(
        x=x(64, 24, 24, 20), scale=x(20), offset=x(20), mean=[], variance=[]).y)
    cases.add("order/f32/InTopK", raw.InTopKV2(predictions=x(20000, 100), targets=cases.integers(20000, below=100), k=5))
    cases.add("summary/f32/HistogramSummary", raw.HistogramSummary(tag="h", values=x(MILLION)))


def other_dtypes(cases):
    tf, raw, x = cases.tf, cases.raw, cases.given
    for pair in ("float32 float64", "float64 float32", "float32 float16", "float16 float32", "float32 bfloat16",
                 "float32 int32", "int32 float32", "uint8 float32", "bool float32", "int32 int64", "float32 bool"):
        source, target = pair.split()
        cases.add(f"cast/{source} to {target}", raw.Cast(x=x(MILLION, dtype=source, high=100.0), DstT=tf.as_dtype(target)))
    for dtype in ("float16", "bfloat16", "int32", "int64", "uint8"):
        a, b = x(MILLION, dtype=dtype, low=1, high=100), x(MILLION, dtype=dtype, low=1, high=50)
        for name in ["AddV2", "Mul", "Maximum", "Less"] + ["FloorDiv", "FloorMod"] * (dtype != "bfloat16"):
            cases.add(f"map/{dtype}/{name}", getattr(raw, name)(x=a, y=b))
        matrix = x(1001, 999, dtype=dtype, low=1, high=100)
        cases.add(f"reduce/{dtype}/Sum", raw.Sum(input=matrix, axis=[0]))
        cases.add(f"reduce/{dtype}/Sum of all", raw.Sum(input=matrix, axis=[0, 1]))
        cases.add(f"reduce/{dtype}/ArgMax", raw.ArgMax(input=matrix, dimension=1))
        cases.add(f"move/{dtype}/Transpose", raw.Transpose(x=matrix, perm=[1, 0]))
    for dtype in ("float16", "bfloat16"):
        product = tf.matmul(x(500, 1250, dtype=dtype), x(1250, 800, dtype=dtype))
        cases.add(f"matmul/{dtype}/500x1250x800", product)
        cases.add(f"map/{dtype}/Exp", raw.Exp(x=x(MILLION, dtype=dtype)))
        cases.add(f"map/{dtype}/Tanh", raw.Tanh(x=x(MILLION, dtype=dtype)))
        cases.add(f"map/{dtype}/Relu", raw.Relu(features=x(MILLION, dtype=dtype)))
    integers = x(333, 333, dtype="int32", high=9)
    cases.add("matmul/int32/333x333x333", tf.matmul(integers, integers))
    numbers = cases.variable(tf.complex(*(tf.random.uniform((333, 333), seed=seed) for seed in (1, 2))))
    cases.add("matmul/complex64/333x333x333", tf.matmul(numbers, numbers))
    numbers = cases.variable(tf.complex(*(tf.random.uniform((500003,), seed=seed) for seed in (1, 2))))
    cases.add("map/complex64/Mul", raw.Mul(x=numbers, y=numbers))
    cases.add("random/int32/RandomUniformInt", raw.RandomUniformInt(shape=[MILLION], minval=0, maxval=1000, seed=3, seed2=4))
    truths = x(MILLION, dtype="bool")
    cases.add("map/bool/LogicalAnd", raw.LogicalAnd(x=truths, y=x(MILLION, dtype="bool", high=2)))
    cases.add("move/bool/Where", raw.Where(condition=truths))
    cases.add("reduce/bool/Any", raw.Any(input=x(1001, 999, dtype="bool"), axis=[1]))
    small = x(MILLION, dtype="int32", low=1, high=5)
    cases.add("map/int32/LeftShift", raw.LeftShift(x=x(MILLION, dtype="int32", low=1, high=100), y=small))
    cases.add("order/int32/Unique", raw.Unique(x=x(200003, dtype="int32", high=1000)).y)
    cases.add("order/int32/Bincount", raw.Bincount(
        arr=cases.integers(MILLION, below=100), size=100, weights=tf.constant([], tf.float32)))


def build(tf):
    """The graph, with an operation `init`, and for each case the name of its operation."""
    graph = tf.Graph()
    with graph.as_default():
        tf.compat.v1.set_random_seed(1)
        cases = Cases(tf)
        for dtype in SHORT:
            Typed(cases, dtype).all()
        single_precision_only(cases)
        other_dtypes(cases)
        variables = tf.compat.v1.global_variables()
        tf.compat.v1.group(*(variable.initializer for variable in variables), name="init")
    return graph, cases.operations
