//! The tutorial's functions and classes, one by one: what they take without being told, what they build and what they compute.

use std::slice;

use graph_core::{Graph, Operation, PartialShape, Session, Tensor, Value, Variable, feed};
use graph_ops::state::{get_collection, global_variables_initializer};
use graph_ops::{array, math};
use lenet::Error;
use lenet::dataset::{Examples, FashionMnist, Feed, Mnist, PIXELS, Placeholders};
use lenet::global_definitions::{Definitions, OptimizerName};
use lenet::layers::{
    Activation, conv_2d_layer, dot_product_layer, dropout_layer, flatten_layer, local_response_normalization_layer,
    max_pool_2d_layer, softmax_layer, unflatten_layer,
};
use lenet::network::{
    Lenet5, OBJECTIVES, REGULARIZER_WORTHY_PARAMS, TRAINABLE_PARAMS, apply_adam, apply_gradient_descent, apply_l1,
    apply_regularizer, apply_rmsprop, apply_weight_decay, process_params,
};
use lenet::support::{Layout, initializer, nhwc2hwcn, nhwc2hwnc, visualize_filters, visualize_images};
use lenet::third_party::put_kernels_on_grid;
use lenet::trainer::{TrainOptions, Trainer, TrainerOptions};

fn constant(value: impl Into<Value>) -> Tensor {
    array::constant(value.into()).build().unwrap()
}

fn images(shape: [usize; 4]) -> Tensor {
    let count = shape.iter().product::<usize>();
    let pixels = (0..count)
        .map(|index| (index as f32 * 0.37).sin())
        .collect::<Vec<f32>>();
    constant(Value::from_vec(shape, pixels).unwrap())
}

fn shape(tensor: &Tensor) -> String {
    tensor.shape().to_string()
}

fn run(fetch: &Tensor) -> Value {
    let session = Session::new(&Graph::current()).unwrap();
    session.run(global_variables_initializer().unwrap(), ()).unwrap();
    session.run(fetch, ()).unwrap()
}

fn operations(op: &str) -> Vec<Operation> {
    let mut operations = Graph::current().operations();
    operations.retain(|operation| operation.op_type() == op);
    operations
}

#[test]
fn a_dot_product_layer_has_1200_neurons_relu_and_its_scope() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let input = constant([[1.0f32, -2.0, 0.5]]);
    let (activity, [weights, bias]) = dot_product_layer(&input).build().unwrap();
    assert_eq!(
        (shape(&activity).as_str(), activity.name().as_str()),
        ("[1,1200]", "fc/activity:0")
    );
    assert_eq!(
        (weights.name(), bias.name()),
        ("fc/weights:0".into(), "fc/bias:0".into())
    );
    assert_eq!(
        (weights.shape().to_string(), bias.shape().to_string()),
        ("[3,1200]".into(), "[1200]".into())
    );
    let value = run(&activity);
    assert!(value.as_slice::<f32>().unwrap().iter().all(|&x| x >= 0.0));

    let layer = dot_product_layer(&input)
        .neurons(4)
        .name("linear")
        .activation(Activation::Identity);
    let (sums, _) = layer.build().unwrap();
    assert_eq!(sums.name(), "linear/pre-activation:0");
}

#[test]
fn layers_share_parameters() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let input = constant([[1.0f32, -2.0]]);
    let first = dot_product_layer(&input).neurons(2).activation(Activation::Identity);
    let (first, params) = first.build().unwrap();
    let again = dot_product_layer(&input)
        .params(&params)
        .activation(Activation::Identity)
        .name("again");
    let (second, same) = again.build().unwrap();
    assert_eq!(same[0].name(), params[0].name());
    let difference = math::subtract(&first, &second).build().unwrap();
    assert_eq!(run(&difference), Value::from([[0.0f32, 0.0]]));

    let block = images([1, 8, 8, 1]);
    let (_, filters) = conv_2d_layer(&block).neurons(3).build().unwrap();
    conv_2d_layer(&block).params(&filters).name("twin").build().unwrap();
    assert_eq!(get_collection::<Variable>("variables").unwrap().len(), 4);
    let wrong = dot_product_layer(&constant([[1.0f32, 2.0, 3.0]]))
        .params(&params)
        .name("wrong")
        .build();
    assert!(matches!(wrong.map(|_| ()), Err(Error::Graph(error)) if error.class() == "InvalidArgument"));
}

#[test]
fn a_convolution_layer_has_5_by_5_filters_stride_1_and_no_padding() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let input = images([2, 9, 9, 3]);
    let (activity, [weights, _]) = conv_2d_layer(&input).build().unwrap();
    assert_eq!(
        (shape(&activity).as_str(), activity.name().as_str()),
        ("[2,5,5,20]", "conv/activity:0")
    );
    assert_eq!(weights.shape().to_string(), "[5,5,3,20]");
    assert!(operations("ImageSummary").is_empty(), "shown only if asked for");

    let layer = conv_2d_layer(&input)
        .neurons(4)
        .filter_size((3, 2))
        .stride([1, 2, 3, 1])
        .padding("SAME");
    let (activity, [weights, _]) = layer.name("other").visualize(true).build().unwrap();
    assert_eq!(
        (shape(&activity), weights.shape().to_string()),
        ("[2,5,3,4]".into(), "[3,2,3,4]".into())
    );
    let pictures = operations("ImageSummary");
    assert_eq!(pictures.len(), 1);
    assert_eq!(pictures[0].name(), "other/filters_other");

    let unknown = array::placeholder::<f32>(PartialShape::unknown()).build().unwrap();
    assert!(conv_2d_layer(&unknown).build().is_err(), "channels that are not known");
    assert!(conv_2d_layer(&constant([[1.0f32]])).name("matrix").build().is_err());
    assert!(conv_2d_layer(&input).padding("FULL").name("full").build().is_err());
}

#[test]
fn a_pooling_layer_halves_each_side() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let input = images([1, 5, 4, 2]);
    let pooled = max_pool_2d_layer(&input).build().unwrap();
    assert_eq!(
        (shape(&pooled).as_str(), pooled.name().as_str()),
        ("[1,2,2,2]", "pool/pool:0")
    );
    let layer = max_pool_2d_layer(&input)
        .pool_size([1, 3, 3, 1])
        .stride([1, 1, 2, 1])
        .padding("SAME");
    assert_eq!(shape(&layer.name("wide").build().unwrap()), "[1,5,2,2]");
}

#[test]
fn normalization_is_tensorflows_with_its_defaults() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let input = constant([[[[1.0f32, 2.0, 3.0]]]]);
    let output = local_response_normalization_layer(&input, "lrn").unwrap();
    // depth_radius 5, bias 1, alpha 1, beta 0.5: x / sqrt(1 + 14).
    let expected = [1.0f32, 2.0, 3.0].map(|x| x / 15f32.sqrt());
    let got = run(&output);
    for (got, expected) in got.as_slice::<f32>().unwrap().iter().zip(expected) {
        assert!((got - expected).abs() < 1e-6);
    }
    assert_eq!(output.name(), "lrn/LRN:0");
}

#[test]
fn dropout_keeps_with_the_probability_and_scales() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let input = constant(Value::from_vec([1, 1000], vec![1.0f32; 1000]).unwrap());
    let keep = array::placeholder::<f32>(()).build().unwrap();
    let output = dropout_layer(&input, &keep, "dropout").unwrap();
    let session = Session::new(&graph).unwrap();
    let kept: Value = session.run(&output, feed! { keep => 0.8 }).unwrap();
    let kept = kept.as_slice::<f32>().unwrap();
    assert!(kept.iter().all(|&x| x == 0.0 || (x - 1.25).abs() < 1e-6));
    let share = kept.iter().filter(|&&x| x > 0.0).count() as f64 / 1000.0;
    assert!((share - 0.8).abs() < 0.06, "{share}");
    let all: Value = session.run(&output, feed! { keep => 1.0 }).unwrap();
    assert!(all.as_slice::<f32>().unwrap().iter().all(|&x| x == 1.0));
}

#[test]
fn images_are_flattened_and_squared_again() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let input = images([2, 3, 3, 2]);
    let rows = flatten_layer(&input, "flatten").unwrap();
    assert_eq!(shape(&rows), "[2,18]");
    let back = unflatten_layer(&rows, 2, "unflatten").unwrap();
    assert_eq!(shape(&back), "[?,3,3,2]".replace('?', "2"));
    assert_eq!(run(&back), run(&input));
    let error = unflatten_layer(&rows, 1, "other").unwrap_err();
    assert!(error.to_string().contains("18"), "{error}");
    assert!(unflatten_layer(&rows, 0, "none").is_err());
    let unknown = array::placeholder::<f32>([None, None]).build().unwrap();
    assert!(unflatten_layer(&unknown, 1, "unknown").is_err());
}

#[test]
fn a_softmax_layer_gives_probabilities_and_the_most_probable_class() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let (inference, predictions) = softmax_layer(&constant([[0.0f32, 3f32.ln()], [2.0, 1.0]]), "softmax").unwrap();
    assert_eq!(run(&predictions), Value::from([1i64, 0]));
    let probabilities = run(&inference);
    let probabilities = probabilities.as_slice::<f32>().unwrap();
    assert!((probabilities[0] - 0.25).abs() < 1e-6 && (probabilities[1] - 0.75).abs() < 1e-6);
    assert_eq!(
        (inference.name(), predictions.name()),
        ("softmax/inference:0".into(), "softmax/predictions:0".into())
    );
}

/// Two parameters with known norms.
fn parameters() -> [Variable; 2] {
    let weights = Variable::new([[3.0f32, -4.0]]).name("weights").build().unwrap();
    let bias = Variable::new([1.0f32, 2.0]).name("bias").build().unwrap();
    [weights, bias]
}

#[test]
fn parameters_are_collected_weights_to_regularize_and_both_to_train() {
    let graph = Graph::new();
    let _default = graph.as_default();
    process_params(&parameters());
    let names = |key: &str| -> Vec<String> {
        let variables = get_collection::<Variable>(key).unwrap();
        variables.iter().map(|variable| variable.name().to_owned()).collect()
    };
    assert_eq!(names(TRAINABLE_PARAMS), ["weights:0", "bias:0"]);
    assert_eq!(names(REGULARIZER_WORTHY_PARAMS), ["weights:0"]);
}

#[test]
fn regularizers_add_their_norms_to_the_objectives() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let [weights, _] = parameters();
    apply_l1(slice::from_ref(&weights), 0.5, "l1").unwrap();
    apply_weight_decay(slice::from_ref(&weights), 0.5, "weight_decay").unwrap();
    let definitions = Definitions {
        l1_coeff: 2.0,
        weight_decay_coeff: 4.0,
        ..Definitions::default()
    };
    apply_regularizer(&[weights], &definitions).unwrap();
    let objectives = get_collection::<Tensor>(OBJECTIVES).unwrap();
    let session = Session::new(&graph).unwrap();
    session.run(global_variables_initializer().unwrap(), ()).unwrap();
    let norms: Vec<f32> = session.run(&objectives, ()).unwrap();
    // |3| + |-4| = 7 and (9 + 16) / 2 = 12.5; decay first where both are applied.
    assert_eq!(norms, [3.5, 6.25, 50.0, 14.0]);
    let tags: Vec<String> = operations("ScalarSummary").iter().map(Operation::name).collect();
    assert_eq!(tags[..2], ["l1/l1_weights_0", "weight_decay/l2_weights_0"]);
}

/// The parameter 3 after one step towards the smallest x^2.
fn after_a_step(apply: impl Fn(&[Variable], &Tensor) -> lenet::Result<Operation>) -> f32 {
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = Variable::new(3.0f32).name("x").build().unwrap();
    let step = apply(slice::from_ref(&x), &math::square(&x).build().unwrap()).unwrap();
    let session = Session::new(&graph).unwrap();
    session.run(global_variables_initializer().unwrap(), ()).unwrap();
    session.run(&step, ()).unwrap();
    session.run(&x, ()).unwrap()
}

#[test]
fn optimizers_heed_their_rates() {
    let close = |got: f32, expected: f32| assert!((got - expected).abs() < 1e-5, "{got}, expected {expected}");
    close(
        after_a_step(|variables, objective| apply_gradient_descent(variables, objective, 0.25)),
        1.5,
    );
    // Adam's first step is as long as its rate.
    close(
        after_a_step(|variables, objective| apply_adam(variables, objective, 0.125)),
        2.875,
    );
    // RMSProp's mean square begins at 1: 0.75 + 0.25 * 36, and the step is 0.5 * 6 / sqrt(9.75).
    let step = after_a_step(|variables, objective| apply_rmsprop(variables, objective, 0.5, 0.75, 0.5));
    close(step, 3.0 - 3.0 / 9.75f32.sqrt());
}

#[test]
fn initial_values_have_the_deviation_of_the_first_dimension() {
    let graph = Graph::new();
    graph.set_random_seed(1);
    let _default = graph.as_default();
    let values = run(&initializer([16, 1000], "xavier").unwrap());
    let values = values.as_slice::<f32>().unwrap();
    assert!(values.iter().all(|x| x.abs() <= 0.5), "two deviations of 1/sqrt(16)");
    let deviation = (values.iter().map(|x| x * x).sum::<f32>() / values.len() as f32).sqrt();
    // A normal distribution cut at two deviations has 0.8796 of the deviation.
    assert!((deviation - 0.25 * 0.8796).abs() < 0.005, "{deviation}");
}

#[test]
fn blocks_change_the_order_of_their_axes() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let block = images([2, 3, 4, 5]);
    assert_eq!(shape(&nhwc2hwcn(&block, "nhwc2hwcn").unwrap()), "[3,4,5,2]");
    assert_eq!(shape(&nhwc2hwnc(&block, "nhwc2hwnc").unwrap()), "[3,4,2,5]");
    assert!(nhwc2hwcn(constant([1.0f32]), "vector").is_err());
}

#[test]
fn kernels_lie_on_a_grid_with_black_pixels_around_each() {
    let graph = Graph::new();
    let _default = graph.as_default();
    // Four kernels of 1 x 2 pixels: kernel k holds k and k + 10.
    let kernels = Value::from([[[[0.0f32, 1.0, 2.0, 3.0]], [[10.0, 11.0, 12.0, 13.0]]]]);
    let grid = put_kernels_on_grid(constant(kernels), 1, "visualizer").unwrap();
    assert_eq!(grid.dtype(), graph_core::DType::UInt8);
    let picture = run(&grid);
    // [1, (Y + 2 pad) gridY, (X + 2 pad) gridX, channels]
    assert_eq!(picture.shape().dims(), [1, 6, 8, 1]);
    let pixels = picture.as_slice::<u8>().unwrap();
    let pixel = |row: usize, column: usize| pixels[row * 8 + column];
    let brightness = |value: f32| (value / 13.0 * 255.5) as u8;
    for (kernel, (row, column)) in [(0, 0), (0, 4), (3, 0), (3, 4)].into_iter().enumerate() {
        let (row, column) = (row + 1, column + 1);
        let around = [
            (row - 1, column),
            (row + 1, column),
            (row, column - 1),
            (row, column + 2),
        ];
        assert!(
            around.iter().all(|&(row, column)| pixel(row, column) == 0),
            "kernel {kernel}"
        );
        let found = [pixel(row, column), pixel(row, column + 1)];
        let expected = [0, 1, 2, 3].map(|k| [brightness(k as f32), brightness(k as f32 + 10.0)]);
        assert!(expected.contains(&found), "{found:?}");
    }
    assert_eq!(
        pixels.iter().filter(|&&pixel| pixel > 0).count(),
        7,
        "all but the smallest are bright"
    );

    let wide = put_kernels_on_grid(images([5, 5, 1, 20]), 2, "wide").unwrap();
    assert_eq!(shape(&wide), "[1,36,45,1]");
    let bare = put_kernels_on_grid(images([5, 4, 3, 6]), 0, "bare").unwrap();
    assert_eq!(shape(&bare), "[1,10,12,3]");
    let unknown = array::placeholder::<f32>([None, Some(2), Some(1), Some(1)])
        .build()
        .unwrap();
    assert!(put_kernels_on_grid(&unknown, 1, "unknown").is_err());
    let equal = put_kernels_on_grid(constant([[[[2.0f32, 2.0]]]]), 0, "equal").unwrap();
    assert_eq!(run(&equal).num_elements(), 2, "kernels without contrast are no error");
}

#[test]
fn pictures_are_shown_singly_or_on_one_grid() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let block = images([7, 4, 4, 1]);
    visualize_images(&block, "single", 6, Layout::default()).unwrap();
    visualize_images(&block, "grid", 6, Layout::Grid).unwrap();
    let filters = Variable::new(images([3, 3, 1, 4])).name("filters").build().unwrap();
    visualize_filters(&filters, "conv_filters").unwrap();
    let summaries = operations("ImageSummary");
    let described: Vec<(String, i64, String)> = summaries
        .iter()
        .map(|summary| {
            (
                summary.name(),
                summary.attr("max_images").unwrap(),
                shape(&summary.input(1)),
            )
        })
        .collect();
    let expected = [
        ("single", 6, "[7,4,4,1]"),
        ("grid", 1, "[1,12,18,1]"),
        ("conv_filters", 1, "[1,10,10,1]"),
    ];
    assert_eq!(
        described,
        expected.map(|(name, most, shape)| (name.to_owned(), most, shape.to_owned()))
    );
    for summary in &summaries {
        assert!(!run(&summary.output(0)).as_strings().unwrap()[0].is_empty());
    }
}

/// Examples whose class is the brightest row of pixels.
fn examples(count: usize) -> Examples {
    let labels: Vec<u8> = (0..count).map(|index| (index % 10) as u8).collect();
    let mut pixels = vec![0u8; count * PIXELS];
    for (image, &label) in pixels.chunks_mut(PIXELS).zip(&labels) {
        image[28 * (2 * usize::from(label) + 4)..][..56].fill(200);
    }
    Examples::new(pixels, labels).unwrap()
}

fn small_definitions(optimizer: OptimizerName) -> Definitions {
    let lr = match optimizer {
        OptimizerName::Adam => 0.01,
        OptimizerName::RmsProp => 0.02,
        OptimizerName::Sgd => 0.1,
    };
    Definitions {
        c1: 4,
        c2: 4,
        d1: 32,
        d2: 32,
        lr,
        optimizer,
        ..Definitions::default()
    }
}

fn small_network(optimizer: OptimizerName) -> Lenet5 {
    let inputs = Placeholders::new().unwrap();
    let mut net = Lenet5::with_definitions(&inputs.images, small_definitions(optimizer)).unwrap();
    net.cook(&inputs.labels).unwrap();
    net
}

#[test]
fn the_network_has_the_tutorials_attributes() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let inputs = Placeholders::new().unwrap();
    let mut net = Lenet5::new(&inputs.images).unwrap();
    assert_eq!(*net.definitions(), Definitions::default());
    let shapes = [&net.images, &net.logits, &net.inference, &net.predictions].map(shape);
    assert_eq!(shapes, ["[?,784]", "[?,10]", "[?,10]", "[?]"]);
    assert_eq!(net.dropout_prob.name(), "dropout_probability:0");
    assert!(matches!(net.training(), Err(Error::Graph(error)) if error.class() == "FailedPrecondition"));
    let training = net.cook(&inputs.labels).unwrap();
    assert_eq!(training.labels, inputs.labels);
    assert_eq!(
        [&training.cost, &training.obj, &training.accuracy].map(shape),
        ["[]", "[]", "[]"]
    );
    assert_eq!(training.back_prop.name(), "train/adam");
    let wrong = Placeholders::new().unwrap();
    let definitions = Definitions {
        f1: (28, 28),
        ..Definitions::default()
    };
    assert!(matches!(
        Lenet5::with_definitions(&wrong.images, definitions),
        Err(Error::Definition { .. })
    ));
}

#[test]
fn the_trainer_trains_tests_and_writes_summaries() {
    for optimizer in OptimizerName::ALL {
        let folder = tempfile::tempdir().unwrap();
        let graph = Graph::new();
        graph.set_random_seed(1);
        let _default = graph.as_default();
        let feed = Feed::new(examples(300), examples(100), 20, 1).unwrap();
        let options = TrainerOptions {
            logdir: None,
            threads: Some(1),
            ..TrainerOptions::default()
        };
        let mut trainer = Trainer::with_options(small_network(optimizer), feed, options).unwrap();
        assert!(trainer.tensorboard.is_none());
        trainer.write_summary(0).unwrap();
        trainer.summaries(folder.path()).unwrap();

        let (objective, cost) = trainer.bp_step(50).unwrap();
        assert!(objective > cost && cost > 0.0);
        let before = trainer.test().unwrap();
        let mut after = before;
        for step in 1..=400 {
            trainer.bp_step(50).unwrap();
            // RMSProp sets out slowly: its mean of squares begins at one.
            if step % 20 == 0 {
                after = trainer.test().unwrap();
                if after > 0.9 {
                    break;
                }
            }
        }
        assert!(after > 0.9 && after > before, "{optimizer}: {before}, then {after}");
        let training = trainer.training_accuracy(200).unwrap();
        assert!(training > 0.9, "{optimizer}: {training}");
        assert!(matches!(
            trainer.training_accuracy(281),
            Err(Error::BatchSize {
                got: 281,
                examples: 280
            })
        ));
        trainer.write_summary(61).unwrap();
        let progress = TrainOptions {
            iter: 2,
            mini_batch_size: 50,
            update_after_iter: 1,
            ..TrainOptions::default()
        };
        assert!(trainer.train(progress).unwrap() > 0.8);
        assert!(trainer.tensorboard.is_none(), "closed at the end");
    }
}

#[test]
fn accuracies_do_not_depend_on_how_the_images_are_cut() {
    let graph = Graph::new();
    graph.set_random_seed(2);
    let _default = graph.as_default();
    let feed = Feed::new(examples(20), examples(1234), 0, 1).unwrap();
    let options = TrainerOptions {
        logdir: None,
        threads: None,
        ..TrainerOptions::default()
    };
    let trainer = Trainer::with_options(small_network(OptimizerName::Adam), feed, options).unwrap();
    let test = &trainer.dataset.test;
    let whole = trainer.accuracy(
        Value::from_vec([1234, PIXELS], test.images(0..1234).unwrap()).unwrap(),
        Value::from_vec([1234, 10], test.labels(0..1234).unwrap()).unwrap(),
    );
    assert_eq!(trainer.test().unwrap(), whole.unwrap());
}

#[test]
fn a_network_that_is_not_cooked_cannot_be_trained() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let inputs = Placeholders::new().unwrap();
    let net = Lenet5::with_definitions(&inputs.images, small_definitions(OptimizerName::Adam)).unwrap();
    let feed = Feed::new(examples(10), examples(10), 0, 1).unwrap();
    let options = TrainerOptions {
        logdir: None,
        threads: None,
        ..TrainerOptions::default()
    };
    let Err(Error::Graph(error)) = Trainer::with_options(net, feed, options) else {
        panic!("it trains")
    };
    assert_eq!(error.class(), "FailedPrecondition");
}

#[test]
fn both_datasets_read_their_folder() {
    let folder = tempfile::tempdir().unwrap();
    let graph = Graph::new();
    let _default = graph.as_default();
    for error in [
        Mnist::new(folder.path(), 1).map(|_| ()).unwrap_err(),
        FashionMnist::new(folder.path(), 1).map(|_| ()).unwrap_err(),
    ] {
        assert!(matches!(error, Error::MissingFile { .. }), "{error}");
    }
    assert_eq!(
        graph.num_operations(),
        0,
        "nothing is made for images that are not there"
    );
    let data = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../data");
    let mnist: Mnist = FashionMnist::new(data, 1).unwrap().into();
    assert_eq!(
        (shape(&mnist.images), shape(&mnist.labels)),
        ("[?,784]".into(), "[?,10]".into())
    );
    assert_eq!(mnist.images.name(), "dataset_inputs/images:0");
}
