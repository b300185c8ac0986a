//! The kernels of a training step on MNIST at a batch of 500, and a few larger ones, each beside what the machine could do.
//!
//! Behind criterion's own figures stands, for each kernel, how much of its roofline it reaches: the time that its
//! multiplications and additions would take at the rate of a loop of nothing else, or its operands and results, each moved
//! once, at the rate of a large copy, whichever is longer, over the median time that it took. Both rates are measured in the
//! same run, with all threads. What lies in the caches from one call to the next can be moved faster than that copy.

mod roofline;

use criterion::{Criterion, criterion_group, criterion_main};
use graph_ops::cpu::broadcast::{broadcast_binary, map_unary};
use graph_ops::cpu::convolution::{Conv2dGeometry, conv2d, conv2d_backprop_filter, conv2d_backprop_input};
use graph_ops::cpu::gemm::{Product, gemm, gemm_bias};
use graph_ops::cpu::lrn::{LocalResponse, lrn, lrn_grad};
use graph_ops::cpu::philox::{Key, Philox};
use graph_ops::cpu::pooling::{Pool2dGeometry, max_pool, max_pool_grad, max_pool_relu_grad};
use graph_ops::cpu::random::{RandomMask, RandomReal};
use graph_ops::cpu::reduce::{Sum, reduce};
use graph_ops::cpu::softmax::softmax_cross_entropy;
use graph_ops::cpu::transpose::transpose;
use graph_ops::cpu::window::Padding;
use roofline::{Work, bench};
use std::hint::black_box;

fn normal(len: usize) -> Vec<f32> {
    let mut out = vec![0.0; len];
    f32::fill_normal(Philox::new(Key::from_seeds(1, len as u64)), &mut out);
    out
}

fn convolutions(c: &mut Criterion) {
    for (name, images, filter) in [
        ("28x28x1 * 5x5x20", [500, 28, 28, 1], [5, 5, 1, 20]),
        ("12x12x20 * 3x3x50", [500, 12, 12, 20], [3, 3, 20, 50]),
    ] {
        let Some(g) = Conv2dGeometry::new(images, filter, [1; 2], [1; 2], [Padding::Valid; 2]) else {
            continue;
        };
        let group = format!("conv2d {name}");
        let (mut x, mut w) = (normal(g.batch * g.image_len()), normal(g.filter_len()));
        let mut y = normal(g.batch * g.out_image_len());
        // Of the plain sum: what takes fewer multiplications may reach more than all of the roofline.
        let work = Work::new(
            2 * g.batch * g.out_image_len() * g.filter_len() / g.out_channels,
            x.len() + w.len() + y.len(),
        );
        bench(c, &group, "forward", work, || conv2d(&g, &x, &w, &mut y));
        bench(c, &group, "backprop filter", work, || {
            conv2d_backprop_filter(&g, &x, &y, &mut w)
        });
        bench(c, &group, "backprop input", work, || {
            conv2d_backprop_input(&g, &y, &w, &mut x)
        });
    }
}

fn pooling(c: &mut Criterion) {
    for images in [[500, 24, 24, 20], [500, 10, 10, 50]] {
        let Some(g) = Pool2dGeometry::new(images, [2; 2], [2; 2], [Padding::Valid; 2]) else {
            continue;
        };
        let group = format!("max pool {images:?}");
        let (x, mut y) = (normal(g.batch * g.image_len()), normal(g.batch * g.out_image_len()));
        let (mut dx, mut bias) = (x.clone(), vec![0f32; g.channels]);
        let forward = Work::new(x.len(), x.len() + y.len());
        let backward = Work::new(x.len(), 2 * x.len() + y.len());
        bench(c, &group, "forward", forward, || max_pool(&g, &x, &mut y));
        bench(c, &group, "gradient", backward, || max_pool_grad(&g, &x, &y, &mut dx));
        bench(c, &group, "gradient with Relu and bias", backward, || {
            max_pool_relu_grad(&g, &x, &y, &mut dx, Some(&mut bias))
        });
    }
}

fn normalization(c: &mut Criterion) {
    let a = LocalResponse {
        depth_radius: 4,
        bias: 1.0,
        alpha: 0.001 / 9.0,
        beta: 0.75,
    };
    let x = normal(72_000 * 20);
    let (mut y, mut dx) = (x.clone(), x.clone());
    let group = "lrn 72000x20";
    bench(c, group, "forward", Work::new(14 * x.len(), 2 * x.len()), || {
        lrn(&a, 20, &x, &mut y)
    });
    bench(c, group, "gradient", Work::new(28 * x.len(), 4 * x.len()), || {
        lrn_grad(&a, 20, &y, &x, &y, &mut dx)
    });
}

fn products(c: &mut Criterion) {
    for (m, n, k, ta, tb) in [
        (500, 800, 1250, false, false),
        (1250, 800, 500, true, false),
        (500, 1250, 800, false, true),
        (32, 800, 1250, false, false),
        (1250, 800, 32, true, false),
        (32, 1250, 800, false, true),
        (1, 800, 1250, false, false),
        (1024, 1024, 1024, false, false),
    ] {
        let (a, b, mut out) = (normal(m * k), normal(k * n), vec![0.0; m * n]);
        let product = Product::new(m, n, k).transposed(ta, tb);
        let work = Work::new(2 * m * n * k, m * k + k * n + m * n);
        let turned = |turned: bool| if turned { "'" } else { "" };
        let name = format!("{m}x{n}x{k} a{} b{}", turned(ta), turned(tb));
        bench(c, "gemm", &name, work, || gemm(product, &a, &b, &mut out));
        if !(ta || tb) {
            let bias = normal(n);
            bench(c, "gemm with bias and Relu", &name, work, || {
                gemm_bias(product, &a, &b, &bias, true, &mut out)
            });
        }
    }
}

fn element_wise(c: &mut Criterion) {
    let (x, bias) = (normal(288_000 * 20), normal(20));
    let mut y = x.clone();
    let work = Work::new(x.len(), 2 * x.len());
    bench(c, "element-wise", "bias add 288000x20", work, || {
        broadcast_binary(&x, &[288_000, 20], &bias, &[20], &mut y, &[288_000, 20], |x, b| x + b)
    });
    bench(c, "element-wise", "relu 5.76M", work, || {
        map_unary(&x, &mut y, |x: f32| if x > 0.0 { x } else { 0.0 })
    });
    bench(
        c,
        "element-wise",
        "transpose 1000x2000",
        Work::new(0, 4_000_000),
        || transpose(&x[..2_000_000], &[1000, 2000], &[1, 0], &mut y[..2_000_000]),
    );
}

fn reductions(c: &mut Criterion) {
    let x = normal(288_000 * 20);
    let mut sums = vec![0.0; 800];
    let of = |len: usize| Work::new(len, len);
    bench(c, "reduce", "bias gradient 288000x20", of(x.len()), || {
        reduce(Sum::<f32>::new(), &x, &[288_000, 20], &[true, false], &mut sums[..20])
    });
    bench(c, "reduce", "bias gradient 500x800", of(400_000), || {
        reduce(Sum::<f32>::new(), &x[..400_000], &[500, 800], &[true, false], &mut sums)
    });
    bench(c, "reduce", "sum 5.76M", of(x.len()), || {
        reduce(Sum::<f32>::new(), &x, &[x.len()], &[true], &mut sums[..1])
    });
    let (mut loss, mut back) = (vec![0.0; 500], vec![0.0; 5000]);
    bench(
        c,
        "reduce",
        "softmax cross entropy 500x10",
        Work::new(100_000, 15_500),
        || softmax_cross_entropy(&x[..5000], &x[5000..10_000], 10, &mut loss, &mut back),
    );
}

fn random(c: &mut Criterion) {
    let mut out = vec![0.0f32; 500 * 1250];
    let generator = Philox::new(Key::from_seeds(1, 2));
    // Its work is in whole numbers, which the rate of multiplications says nothing of.
    let work = Work::new(0, out.len());
    bench(c, "random", "uniform 625000", work, || {
        f32::fill_uniform(black_box(generator), &mut out)
    });
    bench(c, "random", "mask 625000", work, || {
        f32::fill_mask(black_box(generator), 0.5, &mut out)
    });
    bench(c, "random", "normal 625000", work, || {
        f32::fill_normal(black_box(generator), &mut out)
    });
}

criterion_group!(
    kernels,
    convolutions,
    pooling,
    normalization,
    products,
    element_wise,
    reductions,
    random
);
criterion_main!(kernels);
