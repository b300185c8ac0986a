//! A training loop in its steady state asks for no memory: the plan is made, the arena is there, and a callable writes into
//! the values of its last call.
//!
//! Matrix products are left out, whose library allocates its packing areas in each call. On more than one thread, rayon
//! allocates too: blocks of its queues, one in some tens of parallel loops.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use graph_core::session::SessionOptions;
use graph_core::{Graph, Session, Value, Variable};
use graph_ops::train::Optimizer;
use graph_ops::{array, math, nn, random, state, train};

/// Counts how often memory is asked for, by any thread.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static REQUESTS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all calls go to the system's allocator with the layouts they came with.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        REQUESTS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        REQUESTS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        REQUESTS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(block, layout, size) }
    }
}

/// Requests for memory in each of `calls` training steps, once a few steps have been made.
fn requests_of_steps(threads: usize, calls: usize) -> Vec<usize> {
    let graph = Graph::new();
    let _default = graph.as_default();
    random::set_random_seed(1);
    let images = array::placeholder::<f32>([None, Some(12), Some(12), Some(4)])
        .build()
        .unwrap();
    let labels = array::placeholder::<f32>([None, Some(4)]).build().unwrap();
    let filter = Variable::new(random::random_normal([3, 3, 4, 8]).stddev(0.1).seed(2))
        .build()
        .unwrap();
    let bias = Variable::new(array::zeros([8])).build().unwrap();
    let scale = Variable::new(array::ones([8])).build().unwrap();
    let convolved = nn::conv2d(&images, &filter)
        .strides([1, 1, 1, 1])
        .padding("SAME")
        .build()
        .unwrap();
    let activity = nn::relu(nn::bias_add(convolved, &bias).build().unwrap())
        .build()
        .unwrap();
    let normal = nn::lrn(&activity).build().unwrap();
    let pooled = nn::max_pool(normal)
        .ksize([1, 2, 2, 1])
        .strides([1, 2, 2, 1])
        .padding("VALID")
        .build()
        .unwrap();
    let kept = nn::dropout(pooled, 0.5f32).build().unwrap();
    let scaled = math::multiply(&kept, &scale).build().unwrap();
    let features = math::reduce_mean(&scaled).axis([1, 2]).build().unwrap();
    let logits = math::reduce_sum(array::reshape(features, [-1, 4, 2]).build().unwrap())
        .axis([2])
        .build()
        .unwrap();
    let losses = nn::softmax_cross_entropy_with_logits_v2(&labels, &logits)
        .build()
        .unwrap();
    let cost = math::reduce_mean(losses).build().unwrap();
    let norm = nn::l2_loss(&filter).build().unwrap();
    let objective = math::add(&cost, math::multiply(norm, 0.001f32).build().unwrap())
        .build()
        .unwrap();
    let step = train::AdamOptimizer::new(0.01)
        .minimize(&objective, &[filter.clone(), bias.clone(), scale.clone()])
        .unwrap();
    let session = Session::with_options(&graph, SessionOptions::new().threads(threads)).unwrap();
    session.run(state::global_variables_initializer().unwrap(), ()).unwrap();
    let callable = session
        .make_callable::<((), f32, f32)>((&step, &objective, &cost), &[&images, &labels])
        .unwrap();
    let pictures: Vec<f32> = (0..64 * 12 * 12 * 4).map(|index| (index % 17) as f32 / 17.0).collect();
    let classes: Vec<f32> = (0..64 * 4).map(|index| f32::from(index % 5 == 0)).collect();
    let feeds = [
        Value::from(pictures).reshaped([64, 12, 12, 4]).unwrap(),
        Value::from(classes).reshaped([64, 4]).unwrap(),
    ];
    let mut outputs = Vec::new();
    for _ in 0..3 {
        callable.call_into(&feeds, &mut outputs).unwrap();
    }
    let counted = |_| {
        let before = REQUESTS.load(Ordering::Relaxed);
        callable.call_into(&feeds, &mut outputs).unwrap();
        REQUESTS.load(Ordering::Relaxed) - before
    };
    (0..calls).map(counted).collect()
}

/// One test, since all threads of the process count.
#[test]
fn a_training_step_asks_for_no_memory() {
    let alone = requests_of_steps(1, 20);
    assert!(alone.iter().all(|&requests| requests == 0), "on one thread: {alone:?}");
    let pair = requests_of_steps(2, 200);
    let of_queues = pair.iter().sum::<usize>();
    println!("{of_queues} requests in 200 steps on two threads");
    assert!(of_queues <= 100, "on two threads: {pair:?}");
}
