//! The kernels of a training step on MNIST at a batch of 500, and a few larger ones.

use criterion::{Criterion, criterion_group, criterion_main};
use graph_ops::cpu::broadcast::{broadcast_binary, map_unary};
use graph_ops::cpu::convolution::{Conv2dGeometry, conv2d, conv2d_backprop_filter, conv2d_backprop_input};
use graph_ops::cpu::gemm::{Product, gemm};
use graph_ops::cpu::lrn::{LocalResponse, lrn, lrn_grad};
use graph_ops::cpu::philox::{Key, Philox};
use graph_ops::cpu::pooling::{Pool2dGeometry, max_pool, max_pool_grad};
use graph_ops::cpu::random::RandomReal;
use graph_ops::cpu::reduce::{Sum, reduce};
use graph_ops::cpu::softmax::softmax_cross_entropy;
use graph_ops::cpu::transpose::transpose;
use graph_ops::cpu::window::Padding;
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
        let mut group = c.benchmark_group(format!("conv2d {name}"));
        let (mut x, mut w) = (normal(g.batch * g.image_len()), normal(g.filter_len()));
        let mut y = normal(g.batch * g.out_image_len());
        group.bench_function("forward", |b| b.iter(|| conv2d(&g, &x, &w, &mut y)));
        group.bench_function("backprop filter", |b| {
            b.iter(|| conv2d_backprop_filter(&g, &x, &y, &mut w))
        });
        group.bench_function("backprop input", |b| {
            b.iter(|| conv2d_backprop_input(&g, &y, &w, &mut x))
        });
    }
}

fn pooling(c: &mut Criterion) {
    for images in [[500, 24, 24, 20], [500, 10, 10, 50]] {
        let Some(g) = Pool2dGeometry::new(images, [2; 2], [2; 2], [Padding::Valid; 2]) else {
            continue;
        };
        let mut group = c.benchmark_group(format!("max pool {images:?}"));
        let (x, mut y) = (normal(g.batch * g.image_len()), normal(g.batch * g.out_image_len()));
        let mut dx = x.clone();
        group.bench_function("forward", |b| b.iter(|| max_pool(&g, &x, &mut y)));
        group.bench_function("gradient", |b| b.iter(|| max_pool_grad(&g, &x, &y, &mut dx)));
    }
}

fn normalization(c: &mut Criterion) {
    let mut group = c.benchmark_group("lrn 72000x20");
    let a = LocalResponse {
        depth_radius: 4,
        bias: 1.0,
        alpha: 0.001 / 9.0,
        beta: 0.75,
    };
    let x = normal(72_000 * 20);
    let (mut y, mut dx) = (x.clone(), x.clone());
    group.bench_function("forward", |b| b.iter(|| lrn(&a, 20, &x, &mut y)));
    group.bench_function("gradient", |b| b.iter(|| lrn_grad(&a, 20, &y, &x, &y, &mut dx)));
}

fn products(c: &mut Criterion) {
    let mut group = c.benchmark_group("gemm");
    for (m, n, k, ta, tb) in [
        (500, 500, 1250, false, false),
        (1250, 500, 500, true, false),
        (500, 1250, 500, false, true),
        (1024, 1024, 1024, false, false),
    ] {
        let (a, b, mut out) = (normal(m * k), normal(k * n), vec![0.0; m * n]);
        let product = Product::new(m, n, k).transposed(ta, tb);
        group.bench_function(format!("{m}x{n}x{k} {ta} {tb}"), |bench| {
            bench.iter(|| gemm(product, &a, &b, &mut out))
        });
    }
}

fn element_wise(c: &mut Criterion) {
    let (x, bias) = (normal(288_000 * 20), normal(20));
    let mut y = x.clone();
    c.bench_function("bias add 288000x20", |b| {
        b.iter(|| broadcast_binary(&x, &[288_000, 20], &bias, &[20], &mut y, &[288_000, 20], |x, b| x + b))
    });
    c.bench_function("relu 5.76M", |b| {
        b.iter(|| map_unary(&x, &mut y, |x: f32| if x > 0.0 { x } else { 0.0 }))
    });
    c.bench_function("transpose 1000x2000", |b| {
        b.iter(|| transpose(&x[..2_000_000], &[1000, 2000], &[1, 0], &mut y[..2_000_000]))
    });
}

fn reductions(c: &mut Criterion) {
    let x = normal(288_000 * 20);
    let mut sums = vec![0.0; 800];
    c.bench_function("bias gradient 288000x20", |b| {
        b.iter(|| reduce(Sum::<f32>::new(), &x, &[288_000, 20], &[true, false], &mut sums[..20]))
    });
    c.bench_function("bias gradient 500x800", |b| {
        b.iter(|| reduce(Sum::<f32>::new(), &x[..400_000], &[500, 800], &[true, false], &mut sums))
    });
    c.bench_function("sum 5.76M", |b| {
        b.iter(|| reduce(Sum::<f32>::new(), &x, &[x.len()], &[true], &mut sums[..1]))
    });
    let (mut loss, mut back) = (vec![0.0; 500], vec![0.0; 5000]);
    c.bench_function("softmax cross entropy 500x10", |b| {
        b.iter(|| softmax_cross_entropy(&x[..5000], &x[5000..10_000], 10, &mut loss, &mut back))
    });
}

fn random(c: &mut Criterion) {
    let mut out = vec![0.0f32; 500 * 1250];
    let generator = Philox::new(Key::from_seeds(1, 2));
    c.bench_function("uniform 625000", |b| {
        b.iter(|| f32::fill_uniform(black_box(generator), &mut out))
    });
    c.bench_function("normal 625000", |b| {
        b.iter(|| f32::fill_normal(black_box(generator), &mut out))
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
