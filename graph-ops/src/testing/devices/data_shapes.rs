//! Results of which only the data tells the shapes, and the errors that it decides.

use graph_core::graph::Tensor;
use graph_core::session::{
    RunOptions,
    evaluate::{evaluate_node, evaluate_node_on},
};
use graph_core::session::{Session, SessionOptions};
use graph_core::{DType, Error, Graph, Result, Value, feed, gradients};

use super::{Numbers, cast, check_case, device};
use crate::array::{boolean_mask, dynamic_partition, dynamic_stitch, placeholder};
use crate::testing::Case;

const EXACT: (f64, f64) = (0.0, 0.0);

fn ints(numbers: impl IntoIterator<Item = usize>) -> Value {
    Value::from(numbers.into_iter().map(|number| number as i32).collect::<Vec<_>>())
}

#[test]
fn places_of_what_is_true_are_those_of_the_cpu() {
    let Some(device) = device() else { return };
    let mut numbers = Numbers(71);
    for shape in [
        vec![],
        vec![1],
        vec![257],
        vec![2048],
        vec![2049],
        vec![30_003],
        vec![90, 301],
        vec![3, 1, 4001],
        vec![7, 5, 3, 2],
        vec![2, 3, 1, 2, 3, 1, 2, 5],
        vec![1, 2, 1, 2, 1, 2, 1, 2, 2],
        vec![0, 4],
    ] {
        for seldom in [1, 2, 1000, usize::MAX] {
            let len: usize = shape.iter().product();
            let elements: Vec<f64> = (0..len)
                .map(|_| match seldom {
                    usize::MAX => -0.0,
                    _ if numbers.among(1, seldom) == 1 => f64::NAN,
                    _ => 0.0,
                })
                .collect();
            let truths: Vec<bool> = elements.iter().map(|x| x.is_nan()).collect();
            let x = Value::from_vec(shape.clone(), elements).unwrap();
            let truths = Value::from_vec(shape.clone(), truths).unwrap();
            for x in [cast(&x, DType::Half), x, truths] {
                // The host takes what has more dimensions than a kernel has room for.
                if shape.len() <= 8 {
                    check_case(&device, &Case::new("Where").input(x), EXACT);
                }
            }
        }
    }
}

#[test]
fn partitions_are_those_of_the_cpu() {
    let Some(device) = device() else { return };
    let mut numbers = Numbers(72);
    for (places, slice, count) in [
        (vec![5000], vec![], 2),
        (vec![300], vec![3], 7),
        (vec![40, 30], vec![4], 100),
        (vec![17], vec![2, 8], 3),
        (vec![9], vec![0], 2),
        (vec![0], vec![3], 4),
        (vec![], vec![5], 3),
    ] {
        let shape = [&places[..], &slice[..]].concat();
        let x = numbers.tensor(&shape);
        let len = places.iter().product::<usize>();
        // The last part may be empty.
        let parts = ints((0..len).map(|_| numbers.among(0, (count - 1).max(1) - 1)));
        let parts = parts.reshaped(places).unwrap();
        for x in [cast(&x, DType::Float32), cast(&x, DType::Half), x] {
            let case = Case::new("DynamicPartition").attr("num_partitions", count as i64);
            check_case(&device, &case.input(x).input(parts.clone()), EXACT);
        }
    }
}

#[test]
fn stitched_tensors_are_those_of_the_cpu() {
    let Some(device) = device() else { return };
    let mut numbers = Numbers(73);
    for (shapes, slice, rows) in [
        // Many indices that are equal, and places that none names.
        (vec![vec![700], vec![20, 30]], vec![3], 500),
        (vec![vec![5], vec![], vec![2, 2]], vec![], 4),
        (vec![vec![3000]], vec![4, 4], 5000),
        (vec![vec![0], vec![6]], vec![7], 9),
        (vec![vec![4]], vec![0], 3),
    ] {
        let indices = shapes.iter().map(|shape: &Vec<usize>| {
            let len = shape.iter().product::<usize>();
            ints((0..len).map(|_| numbers.among(0, rows - 1)).collect::<Vec<_>>())
                .reshaped(shape.clone())
                .unwrap()
        });
        let indices: Vec<Value> = indices.collect();
        let data = shapes
            .iter()
            .map(|shape| numbers.tensor(&[&shape[..], &slice[..]].concat()));
        let data: Vec<Value> = data.collect();
        for dtype in [DType::Float64, DType::Float32, DType::Half] {
            for op in ["DynamicStitch", "ParallelDynamicStitch"] {
                let case = Case::new(op).attr("N", shapes.len() as i64);
                let case = indices.iter().cloned().fold(case, Case::input);
                let case = data.iter().map(|data| cast(data, dtype)).fold(case, Case::input);
                check_case(&device, &case, EXACT);
            }
        }
    }
}

/// Sorted numbers of segments, some of which have no row, and some of which have many.
fn segments(numbers: &mut Numbers, count: usize, most: usize) -> Vec<i32> {
    let mut segments: Vec<i32> = (0..count).map(|_| numbers.among(0, most) as i32).collect();
    segments.sort_unstable();
    segments
}

#[test]
fn sorted_segments_are_those_of_the_cpu() {
    let Some(device) = device() else { return };
    let mut numbers = Numbers(74);
    for (rows, width, most) in [
        (1, 1, 0),
        (5000, 1, 3),
        (3000, 5, 2),
        (300, 7, 400),
        (300, 300, 20),
        (10, 0, 4),
        (0, 3, 0),
    ] {
        let x = numbers.coarse(&[rows, width]);
        let ids = segments(&mut numbers, rows, most);
        let wide: Vec<i64> = ids.iter().map(|&id| id.into()).collect();
        for op in ["SegmentSum", "SegmentMean", "SegmentProd", "SegmentMin", "SegmentMax"] {
            for x in [cast(&x, DType::Float32), cast(&x, DType::Half), x.clone()] {
                // Sums of so many halves are rounded once, and those of small whole numbers are exact before that.
                let close = if op == "SegmentMean" { (1e-3, 0.0) } else { EXACT };
                let case = || Case::new(op).input(x.clone());
                check_case(&device, &case().input(ids.clone()), close);
                check_case(&device, &case().input(wide.clone()), close);
            }
        }
        if rows == 0 {
            continue;
        }
        let indices = ints((0..rows).map(|_| numbers.among(0, 29)));
        let x = numbers.tensor(&[30, width]);
        for op in ["SparseSegmentSum", "SparseSegmentMean", "SparseSegmentSqrtN"] {
            let case = Case::new(op).input(x.clone()).input(indices.clone());
            check_case(&device, &case.input(ids.clone()), (1e-12, 1e-12));
        }
    }
}

/// What an error says, whichever operation it is of.
fn parts_of(error: &Error) -> [Option<String>; 3] {
    let report = error.report();
    [
        Some(report.message.clone()),
        report.expected.clone(),
        report.got.clone(),
    ]
}

#[test]
fn what_the_data_decides_is_the_same_error_on_a_device() {
    let Some(device) = device() else { return };
    let rows = [[1.0f32, 2.0], [3.0, 4.0], [5.0, 6.0]];
    let deal = |parts: [i32; 3]| {
        let case = Case::new("DynamicPartition").attr("num_partitions", 2i64);
        case.input(rows).input(parts)
    };
    let mut cases = vec![deal([0, 2, -1]), deal([-5, 1, 1]), deal([0, 0, i32::MAX])];
    for ids in [
        [0i64, 2, 1],
        [-1, 0, 2],
        [1, 1, i64::MIN],
        [5, -1, -1],
        [0, 1, i64::MAX],
    ] {
        for op in ["SegmentSum", "SegmentMean", "SegmentProd", "SegmentMin", "SegmentMax"] {
            cases.push(Case::new(op).input(rows).input(ids));
        }
    }
    cases.push(Case::new("SegmentSum").input(rows).input([0i32, 1]));
    for (indices, ids) in [
        ([0i32, 3], [0i32, 1]),
        ([-1, 0], [0, 0]),
        ([0, 1], [1, 0]),
        ([7, 1], [1, 0]),
    ] {
        for op in ["SparseSegmentSum", "SparseSegmentMean", "SparseSegmentSqrtN"] {
            cases.push(Case::new(op).input(rows).input(indices).input(ids));
        }
    }
    let stitch = Case::new("DynamicStitch").attr("N", 1i64);
    cases.push(stitch.input([0i32, -3, 1]).input(rows));
    for case in cases {
        let node = case.node().unwrap();
        let expected = evaluate_node(&node, &case.inputs).unwrap_err();
        let got = evaluate_node_on(&node, &case.inputs, &device.accelerator()).unwrap_err();
        assert_eq!(got.class(), "InvalidArgument");
        assert_eq!(got.to_string(), expected.to_string());
        assert_eq!(parts_of(&got), parts_of(&expected));
    }
}

/// What a fetch gives on the host and on the device, and where the steps ran there.
struct Sessions([Session; 2]);

impl Sessions {
    fn new(graph: &Graph, device: &graph_cuda::Cuda) -> Result<Self> {
        let on = |accelerators| Session::with_options(graph, SessionOptions::new().accelerators(accelerators));
        Ok(Self([on(Vec::new())?, on(vec![device.accelerator()])?]))
    }

    /// Runs both, compares, and checks that all steps of these ops ran on the device.
    fn check(&self, fetches: &[&Tensor], feeds: impl Fn() -> graph_core::session::Feeds, ops: &[&str]) -> Result<()> {
        let Self([host, device]) = self;
        let fetches: Vec<Tensor> = fetches.iter().map(|&fetch| fetch.clone()).collect();
        let expected: Vec<Value> = host.run(fetches.clone(), feeds())?;
        let options = RunOptions {
            trace: true,
            ..RunOptions::default()
        };
        let (got, metadata): (Vec<Value>, _) = device.run_with(fetches.clone(), feeds(), &options)?;
        assert_eq!(got, expected);
        assert_eq!(device.run::<Vec<Value>>(fetches, feeds())?, expected);
        for op in ops {
            let steps = metadata.nodes.iter().filter(|step| step.op == *op);
            let devices: Vec<&str> = steps.map(|step| step.device.as_str()).collect();
            let there = devices.iter().all(|&device| device == "/device:GPU:0");
            assert!(!devices.is_empty() && there, "{op}: {devices:?}");
        }
        Ok(())
    }
}

/// What lies behind a mask, and its gradient, stay on the device.
#[test]
fn a_mask_of_the_device_is_applied_there() -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = placeholder::<f32>([6, 2]).build()?;
    let scores = placeholder::<f32>([6]).build()?;
    let mask = crate::op("Greater").input(&scores).input(0.0f32).build()?;
    let kept = boolean_mask(&x, &mask).build()?;
    let squares = crate::math::square(&kept).build()?;
    let sum = crate::math::reduce_sum(&squares).build()?;
    let slopes = gradients([&sum], [&x])?.build()?.remove(0).expect("a gradient");
    let sessions = Sessions::new(&graph, &device)?;
    for shown in [[1.0f32, -1.0, 0.0, 2.0, 3.0, -4.0], [-1.0; 6], [1.0; 6]] {
        let feeds = || {
            let rows: Vec<f32> = (0..12).map(|at| at as f32 - 4.0).collect();
            feed! { &x => Value::from_vec([6, 2], rows).expect("a value"), &scores => shown }
        };
        let ops = ["Where", "GatherV2", "Square", "Sum", "UnsortedSegmentSum"];
        sessions.check(&[&kept, &sum, &slopes], feeds, &ops)?;
    }
    Ok(())
}

/// Slices are dealt out, worked on, and put back: the gradient of each of the two is the other.
#[test]
fn slices_are_dealt_out_and_put_back_on_a_device() -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = placeholder::<f32>([5, 3]).build()?;
    let scores = placeholder::<f32>([5]).build()?;
    let positive = crate::op("Greater").input(&scores).input(0.0f32).build()?;
    let chosen = crate::op("Cast").input(&positive).attr("DstT", DType::Int32).build()?;
    let fed = placeholder::<i32>([5]).build()?;
    let sessions_of = |parts: &Tensor| -> Result<[Tensor; 4]> {
        let dealt = dynamic_partition(&x, parts, 2).build_all()?;
        let numbers = dynamic_partition((0..5).collect::<Vec<i32>>(), parts, 2).build_all()?;
        let worked: Vec<Tensor> = vec![
            crate::math::square(&dealt[0]).build()?,
            crate::op("Neg").input(&dealt[1]).build()?,
        ];
        let whole = dynamic_stitch(numbers, worked).build()?;
        let of_whole = gradients([&crate::math::square(&whole).build()?], [&x])?.build()?;
        let of_part = gradients([&crate::math::square(&dealt[1]).build()?], [&x])?.build()?;
        let [of_whole, of_part] = [of_whole, of_part].map(|mut list| list.remove(0).expect("a gradient"));
        Ok([whole, of_whole, of_part, dealt[1].clone()])
    };
    let (by_device, by_host) = (sessions_of(&chosen)?, sessions_of(&fed)?);
    let sessions = Sessions::new(&graph, &device)?;
    for (run, shown) in [[1.0f32, -1.0, 0.0, 2.0, -3.0], [-1.0; 5], [1.0; 5], [1.0; 5]]
        .into_iter()
        .enumerate()
    {
        let rows: Vec<f32> = (0..15).map(|at| ((at * 7 + run) % 5) as f32 - 1.5).collect();
        let parts: Vec<i32> = shown.iter().map(|&score| i32::from(score > 0.0)).collect();
        let feeds = || {
            let x_value = Value::from_vec([5, 3], rows.clone()).expect("a value");
            feed! { &x => x_value, &scores => shown, &fed => parts.clone() }
        };
        let fetches: Vec<&Tensor> = by_device.iter().chain(&by_host).collect();
        sessions.check(
            &fetches,
            feeds,
            &["Square", "Neg", "DynamicStitch", "ParallelDynamicStitch"],
        )?;
        sessions.check(&by_device.iter().collect::<Vec<_>>(), feeds, &["DynamicPartition"])?;
    }
    let wrong = || {
        let x_value = Value::zeros(DType::Float32, [5, 3]).expect("a value");
        feed! { &x => x_value, &fed => [0i32, 1, 2, 0, 0] }
    };
    let [host, gpu] = sessions
        .0
        .each_ref()
        .map(|session| session.run::<Value>(&by_host[0], wrong()).unwrap_err());
    // Either of the two that are told these numbers may be the first to say so.
    assert_eq!((gpu.class(), parts_of(&gpu)), ("InvalidArgument", parts_of(&host)));
    Ok(())
}

/// Indices that are constants tell the shape before the run, and the step is recorded.
#[test]
fn a_stitch_by_constants_is_part_of_a_recorded_step() -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = placeholder::<f32>([2, 2]).build()?;
    let y = placeholder::<f32>([2]).build()?;
    let indices = [
        crate::array::constant([3i32, 0]).build()?,
        crate::array::constant(1i32).build()?,
    ];
    let whole = dynamic_stitch(indices.to_vec(), vec![crate::math::square(&x).build()?, y.clone()]).build()?;
    assert_eq!(whole.shape(), [4, 2].into());
    let sums = crate::math::reduce_sum(&whole).build()?;
    let sessions = Sessions::new(&graph, &device)?;
    for run in 0..4 {
        let feeds = || feed! { &x => [[1.0f32, 2.0], [run as f32, 4.0]], &y => [5.0f32, -6.0] };
        sessions.check(&[&whole, &sums], feeds, &["DynamicStitch", "Sum"])?;
    }
    Ok(())
}

/// Means of segments, and their gradients, of which a session is told the numbers only in the run.
#[test]
fn segments_and_their_gradients_are_computed_on_a_device() -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = placeholder::<f32>([4, 2]).build()?;
    let ids = placeholder::<i32>([4]).build()?;
    let reduced = ["SegmentSum", "SegmentMean", "SegmentMin", "SegmentMax"].map(|op| {
        let reduced = crate::op(op).input(&x).input(&ids).build().expect("a node");
        let squares = crate::math::square(&reduced).build().expect("a node");
        let slopes = gradients([&squares], [&x]).and_then(|slopes| slopes.build());
        [reduced, slopes.expect("gradients").remove(0).expect("a gradient")]
    });
    let fetches: Vec<&Tensor> = reduced.iter().flatten().collect();
    let sessions = Sessions::new(&graph, &device)?;
    for shown in [[0, 0, 1, 1], [0, 0, 0, 0], [1, 1, 1, 3]] {
        let feeds = || feed! { &x => [[1.0f32, 2.0], [3.0, -4.0], [5.0, 6.0], [-7.0, 8.0]], &ids => shown };
        sessions.check(&fetches, feeds, &["SegmentMean", "SegmentMin", "SegmentMax"])?;
    }
    Ok(())
}
