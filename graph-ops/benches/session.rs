//! What the engine itself costs: building a graph, differentiating it, planning it, and running plans whose kernels do next
//! to nothing.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use graph_core::session::{RewriteOptions, SessionOptions};
use graph_core::{Graph, Session, Tensor, Value, feed, gradients};
use graph_ops::{array, math};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// A scalar placeholder, and the end of a chain of `count` additions to it.
fn chain(count: usize) -> (Tensor, Tensor) {
    let x = array::placeholder::<f32>(()).build().expect("a placeholder");
    let mut y = x.clone();
    for _ in 0..count {
        y = math::add(&y, &x).build().expect("a sum");
    }
    (x, y)
}

fn running(c: &mut Criterion) {
    graph_ops::install();
    let mut group = c.benchmark_group("run");
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = array::placeholder::<f32>(()).build().expect("a placeholder");
    let y = math::add(&x, 1.0f32).build().expect("a sum");
    let session = Session::new(&graph).expect("a session");
    let call = session.make_callable::<f32>(&y, &[&x]).expect("a callable");
    let one = Value::scalar(1.0f32);
    group.bench_function("callable of x + 1", |b| {
        b.iter(|| call.call(black_box(std::slice::from_ref(&one))).expect("a run"))
    });
    group.bench_function("session run of x + 1", |b| {
        b.iter(|| session.run::<f32>(&y, feed! { x => 1.0f32 }).expect("a run"))
    });
    let count = 10_000;
    let (x, y) = chain(count);
    for (name, rewrites) in [("without", RewriteOptions::none()), ("with", RewriteOptions::all())] {
        let session = Session::with_options(&graph, SessionOptions::new().rewrites(rewrites)).expect("a session");
        let call = session.make_callable::<f32>(&y, &[&x]).expect("a callable");
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(format!("chain of {count} additions, {name} rewrites"), |b| {
            b.iter(|| call.call(black_box(std::slice::from_ref(&one))).expect("a run"))
        });
    }
}

fn building(c: &mut Criterion) {
    graph_ops::install();
    let mut group = c.benchmark_group("make");
    group.sample_size(10);
    // Seconds of `work` on a new graph each time, of which `prepare` is not counted.
    fn timed<S>(iterations: u64, prepare: impl Fn() -> S, work: impl Fn(S)) -> Duration {
        let mut time = Duration::ZERO;
        for _ in 0..iterations {
            let graph = Graph::new();
            let _default = graph.as_default();
            let prepared = prepare();
            let start = Instant::now();
            work(prepared);
            time += start.elapsed();
        }
        time
    }
    for count in [1_000usize, 10_000, 100_000] {
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(BenchmarkId::new("nodes", count), |b| {
            b.iter_custom(|iterations| timed(iterations, || (), |()| drop(black_box(chain(count)))))
        });
        group.bench_function(BenchmarkId::new("gradients", count), |b| {
            b.iter_custom(|iterations| {
                timed(
                    iterations,
                    || chain(count),
                    |(x, y)| {
                        let built = gradients([&y], [&x]).and_then(|gradients| gradients.build());
                        drop(black_box(built.expect("gradients")));
                    },
                )
            })
        });
        group.bench_function(BenchmarkId::new("plan and first run", count), |b| {
            b.iter_custom(|iterations| {
                timed(
                    iterations,
                    || chain(count),
                    |(x, y)| {
                        let session = Session::new(&Graph::current()).expect("a session");
                        black_box(session.run::<f32>(&y, feed! { x => 1.0f32 }).expect("a run"));
                    },
                )
            })
        });
    }
}

criterion_group!(benches, running, building);
criterion_main!(benches);
