//! Node by node: what `minimize` builds is what TensorFlow 1.15 builds.

use graph_core::graph::{OpBuilder, keys};
use graph_core::session::{Feeds, Session};
use graph_core::{DType, Graph, Operation, PartialShape, Tensor, Value, Variable};

use super::*;
use crate::state::{global_variables, global_variables_initializer, variable_scope};

/// Nodes as `Op name <- inputs`, control inputs sorted as exported graphs have them, `_class` behind.
fn listing(operations: &[Operation]) -> Vec<String> {
    let line = |operation: &Operation| {
        let inputs = operation.inputs().into_iter().map(|input| {
            let name = input.name();
            name.strip_suffix(":0").map_or(name.clone(), str::to_owned)
        });
        let mut controls: Vec<String> = operation
            .control_inputs()
            .iter()
            .map(|control| format!("^{}", control.name()))
            .collect();
        controls.sort();
        let inputs: Vec<String> = inputs.chain(controls).collect();
        let class = match operation.attr_value("_class") {
            Some(_) => {
                let groups = operation.colocation_groups();
                let groups: Vec<_> = groups
                    .iter()
                    .map(|group| String::from_utf8_lossy(group).into_owned())
                    .collect();
                format!(" {}", groups.join(" "))
            }
            None => String::new(),
        };
        format!(
            "{} {} <- {}{class}",
            operation.op_type(),
            operation.name(),
            inputs.join(", ")
        )
    };
    operations.iter().map(line).collect()
}

#[track_caller]
pub(super) fn assert_listing(operations: &[Operation], expected: &str) {
    let got = listing(operations);
    let expected: Vec<&str> = expected
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    for (index, (got, expected)) in got.iter().zip(&expected).enumerate() {
        assert_eq!(got.trim_end(), *expected, "node {index}");
    }
    assert_eq!(
        got.len(),
        expected.len(),
        "{:#?}",
        &got[expected.len().min(got.len())..]
    );
}

fn placeholder(shape: PartialShape, dtype: DType) -> Tensor {
    crate::install();
    let node = OpBuilder::new("Placeholder").attr("dtype", dtype).attr("shape", shape);
    node.build().unwrap()
}

/// A small and a large variable, with gradients that are placeholders.
fn two_variables(dtype: DType) -> Vec<GradientAndVariable> {
    let _scope = variable_scope("conv").unwrap();
    [("weights", 1000), ("bias", 3)]
        .into_iter()
        .map(|(name, len)| {
            let gradient = placeholder([len].into(), dtype);
            let start = Value::zeros(dtype, [len]).unwrap();
            (Some(gradient), Variable::new(start).name(name).build().unwrap())
        })
        .collect()
}

/// What `optimizer` makes in the scope `train` for the two variables.
fn updates(optimizer: &dyn Optimizer, dtype: DType, global_step: bool) -> Vec<Operation> {
    let graph = Graph::new();
    let _default = graph.as_default();
    let gradients = two_variables(dtype);
    let options = if global_step {
        MinimizeOptions::new().global_step(&create_global_step().unwrap())
    } else {
        MinimizeOptions::new()
    };
    let before = graph.num_operations();
    let _train = variable_scope("train").unwrap();
    let operation = optimizer.apply_gradients(&gradients, &options).unwrap();
    assert_eq!(graph.get_collection::<Operation>(keys::TRAIN_OP).unwrap(), [operation]);
    graph.operations().split_off(before)
}

#[test]
fn adam_is_tensorflows_node_by_node() {
    let made = updates(&AdamOptimizer::new(0.01).name("adam"), DType::Float32, false);
    assert_listing(
        &made,
        "Const train/beta1_power/initial_value <-  loc:@conv/bias
        VariableV2 train/beta1_power <-  loc:@conv/bias
        Assign train/beta1_power/Assign <- train/beta1_power, train/beta1_power/initial_value loc:@conv/bias
        Identity train/beta1_power/read <- train/beta1_power loc:@conv/bias
        Const train/beta2_power/initial_value <-  loc:@conv/bias
        VariableV2 train/beta2_power <-  loc:@conv/bias
        Assign train/beta2_power/Assign <- train/beta2_power, train/beta2_power/initial_value loc:@conv/bias
        Identity train/beta2_power/read <- train/beta2_power loc:@conv/bias
        Const train/conv/weights/adam/Initializer/zeros/shape_as_tensor <-  loc:@conv/weights
        Const train/conv/weights/adam/Initializer/zeros/Const <-  loc:@conv/weights
        Fill train/conv/weights/adam/Initializer/zeros <- train/conv/weights/adam/Initializer/zeros/shape_as_tensor, train/conv/weights/adam/Initializer/zeros/Const loc:@conv/weights
        VariableV2 train/conv/weights/adam <-  loc:@conv/weights
        Assign train/conv/weights/adam/Assign <- train/conv/weights/adam, train/conv/weights/adam/Initializer/zeros loc:@conv/weights
        Identity train/conv/weights/adam/read <- train/conv/weights/adam loc:@conv/weights
        Const train/conv/weights/adam_1/Initializer/zeros/shape_as_tensor <-  loc:@conv/weights
        Const train/conv/weights/adam_1/Initializer/zeros/Const <-  loc:@conv/weights
        Fill train/conv/weights/adam_1/Initializer/zeros <- train/conv/weights/adam_1/Initializer/zeros/shape_as_tensor, train/conv/weights/adam_1/Initializer/zeros/Const loc:@conv/weights
        VariableV2 train/conv/weights/adam_1 <-  loc:@conv/weights
        Assign train/conv/weights/adam_1/Assign <- train/conv/weights/adam_1, train/conv/weights/adam_1/Initializer/zeros loc:@conv/weights
        Identity train/conv/weights/adam_1/read <- train/conv/weights/adam_1 loc:@conv/weights
        Const train/conv/bias/adam/Initializer/zeros <-  loc:@conv/bias
        VariableV2 train/conv/bias/adam <-  loc:@conv/bias
        Assign train/conv/bias/adam/Assign <- train/conv/bias/adam, train/conv/bias/adam/Initializer/zeros loc:@conv/bias
        Identity train/conv/bias/adam/read <- train/conv/bias/adam loc:@conv/bias
        Const train/conv/bias/adam_1/Initializer/zeros <-  loc:@conv/bias
        VariableV2 train/conv/bias/adam_1 <-  loc:@conv/bias
        Assign train/conv/bias/adam_1/Assign <- train/conv/bias/adam_1, train/conv/bias/adam_1/Initializer/zeros loc:@conv/bias
        Identity train/conv/bias/adam_1/read <- train/conv/bias/adam_1 loc:@conv/bias
        Const train/adam/learning_rate <-
        Const train/adam/beta1 <-
        Const train/adam/beta2 <-
        Const train/adam/epsilon <-
        ApplyAdam train/adam/update_conv/weights/ApplyAdam <- conv/weights, train/conv/weights/adam, train/conv/weights/adam_1, train/beta1_power/read, train/beta2_power/read, train/adam/learning_rate, train/adam/beta1, train/adam/beta2, train/adam/epsilon, conv/Placeholder loc:@conv/weights
        ApplyAdam train/adam/update_conv/bias/ApplyAdam <- conv/bias, train/conv/bias/adam, train/conv/bias/adam_1, train/beta1_power/read, train/beta2_power/read, train/adam/learning_rate, train/adam/beta1, train/adam/beta2, train/adam/epsilon, conv/Placeholder_1 loc:@conv/bias
        Mul train/adam/mul <- train/beta1_power/read, train/adam/beta1, ^train/adam/update_conv/bias/ApplyAdam, ^train/adam/update_conv/weights/ApplyAdam loc:@conv/bias
        Assign train/adam/Assign <- train/beta1_power, train/adam/mul loc:@conv/bias
        Mul train/adam/mul_1 <- train/beta2_power/read, train/adam/beta2, ^train/adam/update_conv/bias/ApplyAdam, ^train/adam/update_conv/weights/ApplyAdam loc:@conv/bias
        Assign train/adam/Assign_1 <- train/beta2_power, train/adam/mul_1 loc:@conv/bias
        NoOp train/adam <- ^train/adam/Assign, ^train/adam/Assign_1, ^train/adam/update_conv/bias/ApplyAdam, ^train/adam/update_conv/weights/ApplyAdam",
    );
    let assign = made
        .iter()
        .find(|operation| operation.name() == "train/adam/Assign")
        .unwrap();
    assert!(!assign.attr::<bool>("use_locking").unwrap());
}

#[test]
fn gradient_descent_is_tensorflows_node_by_node() {
    let made = updates(&GradientDescentOptimizer::new(0.01), DType::Float32, false);
    assert_listing(
        &made,
        "Const train/GradientDescent/learning_rate <-
        ApplyGradientDescent train/GradientDescent/update_conv/weights/ApplyGradientDescent <- conv/weights, train/GradientDescent/learning_rate, conv/Placeholder loc:@conv/weights
        ApplyGradientDescent train/GradientDescent/update_conv/bias/ApplyGradientDescent <- conv/bias, train/GradientDescent/learning_rate, conv/Placeholder_1 loc:@conv/bias
        NoOp train/GradientDescent <- ^train/GradientDescent/update_conv/bias/ApplyGradientDescent, ^train/GradientDescent/update_conv/weights/ApplyGradientDescent",
    );
}

#[test]
fn rms_prop_is_tensorflows_node_by_node() {
    let made = updates(&RmsPropOptimizer::new(0.01).name("rmsprop"), DType::Float32, false);
    assert_listing(
        &made[..12],
        "Const train/conv/weights/rmsprop/Initializer/ones/shape_as_tensor <-  loc:@conv/weights
        Const train/conv/weights/rmsprop/Initializer/ones/Const <-  loc:@conv/weights
        Fill train/conv/weights/rmsprop/Initializer/ones <- train/conv/weights/rmsprop/Initializer/ones/shape_as_tensor, train/conv/weights/rmsprop/Initializer/ones/Const loc:@conv/weights
        VariableV2 train/conv/weights/rmsprop <-  loc:@conv/weights
        Assign train/conv/weights/rmsprop/Assign <- train/conv/weights/rmsprop, train/conv/weights/rmsprop/Initializer/ones loc:@conv/weights
        Identity train/conv/weights/rmsprop/read <- train/conv/weights/rmsprop loc:@conv/weights
        Const train/conv/weights/rmsprop_1/Initializer/zeros/shape_as_tensor <-  loc:@conv/weights
        Const train/conv/weights/rmsprop_1/Initializer/zeros/Const <-  loc:@conv/weights
        Fill train/conv/weights/rmsprop_1/Initializer/zeros <- train/conv/weights/rmsprop_1/Initializer/zeros/shape_as_tensor, train/conv/weights/rmsprop_1/Initializer/zeros/Const loc:@conv/weights
        VariableV2 train/conv/weights/rmsprop_1 <-  loc:@conv/weights
        Assign train/conv/weights/rmsprop_1/Assign <- train/conv/weights/rmsprop_1, train/conv/weights/rmsprop_1/Initializer/zeros loc:@conv/weights
        Identity train/conv/weights/rmsprop_1/read <- train/conv/weights/rmsprop_1 loc:@conv/weights",
    );
    assert_listing(
        &made[20..],
        "Const train/rmsprop/learning_rate <-
        Const train/rmsprop/decay <-
        Const train/rmsprop/momentum <-
        Const train/rmsprop/epsilon <-
        ApplyRMSProp train/rmsprop/update_conv/weights/ApplyRMSProp <- conv/weights, train/conv/weights/rmsprop, train/conv/weights/rmsprop_1, train/rmsprop/learning_rate, train/rmsprop/decay, train/rmsprop/momentum, train/rmsprop/epsilon, conv/Placeholder loc:@conv/weights
        ApplyRMSProp train/rmsprop/update_conv/bias/ApplyRMSProp <- conv/bias, train/conv/bias/rmsprop, train/conv/bias/rmsprop_1, train/rmsprop/learning_rate, train/rmsprop/decay, train/rmsprop/momentum, train/rmsprop/epsilon, conv/Placeholder_1 loc:@conv/bias
        NoOp train/rmsprop <- ^train/rmsprop/update_conv/bias/ApplyRMSProp, ^train/rmsprop/update_conv/weights/ApplyRMSProp",
    );
    let centered = updates(&RmsPropOptimizer::new(0.01).centered(true), DType::Float32, false);
    let update = centered
        .iter()
        .find(|operation| operation.op_type() == "ApplyCenteredRMSProp")
        .unwrap();
    assert_listing(
        std::slice::from_ref(update),
        "ApplyCenteredRMSProp train/RMSProp/update_conv/weights/ApplyCenteredRMSProp <- conv/weights, train/conv/weights/RMSProp_1, train/conv/weights/RMSProp, train/conv/weights/RMSProp_2, train/RMSProp/learning_rate, train/RMSProp/decay, train/RMSProp/momentum, train/RMSProp/epsilon, conv/Placeholder loc:@conv/weights",
    );
}

#[test]
fn a_global_step_is_advanced_after_all_updates() {
    let made = updates(
        &MomentumOptimizer::new(0.1, 0.9).use_nesterov(true),
        DType::Float32,
        true,
    );
    assert_listing(
        &made[10..],
        "Const train/Momentum/learning_rate <-
        Const train/Momentum/momentum <-
        ApplyMomentum train/Momentum/update_conv/weights/ApplyMomentum <- conv/weights, train/conv/weights/Momentum, train/Momentum/learning_rate, conv/Placeholder, train/Momentum/momentum loc:@conv/weights
        ApplyMomentum train/Momentum/update_conv/bias/ApplyMomentum <- conv/bias, train/conv/bias/Momentum, train/Momentum/learning_rate, conv/Placeholder_1, train/Momentum/momentum loc:@conv/bias
        NoOp train/Momentum/update <- ^train/Momentum/update_conv/bias/ApplyMomentum, ^train/Momentum/update_conv/weights/ApplyMomentum
        Const train/Momentum/value <- ^train/Momentum/update loc:@global_step
        AssignAdd train/Momentum <- global_step, train/Momentum/value loc:@global_step",
    );
    assert!(made[12].attr::<bool>("use_nesterov").unwrap());
}

#[test]
fn parameters_are_cast_to_the_variables_dtype() {
    let made = updates(&AdamOptimizer::new(0.01), DType::Float64, false);
    let casts: Vec<Operation> = made
        .into_iter()
        .filter(|operation| operation.op_type() == "Cast")
        .collect();
    assert_listing(
        &casts[..6],
        "Cast train/Adam/update_conv/weights/Cast <- train/beta1_power/read loc:@conv/weights
        Cast train/Adam/update_conv/weights/Cast_1 <- train/beta2_power/read loc:@conv/weights
        Cast train/Adam/update_conv/weights/Cast_2 <- train/Adam/learning_rate loc:@conv/weights
        Cast train/Adam/update_conv/weights/Cast_3 <- train/Adam/beta1 loc:@conv/weights
        Cast train/Adam/update_conv/weights/Cast_4 <- train/Adam/beta2 loc:@conv/weights
        Cast train/Adam/update_conv/weights/Cast_5 <- train/Adam/epsilon loc:@conv/weights",
    );
}

#[test]
fn ftrl_and_proximal_slots_start_from_constants() {
    let made = updates(&FtrlOptimizer::new(0.1), DType::Float32, false);
    assert_listing(
        &made[..4],
        "Const train/Const <-  loc:@conv/weights
        VariableV2 train/conv/weights/Ftrl <-  loc:@conv/weights
        Assign train/conv/weights/Ftrl/Assign <- train/conv/weights/Ftrl, train/Const loc:@conv/weights
        Identity train/conv/weights/Ftrl/read <- train/conv/weights/Ftrl loc:@conv/weights",
    );
    for optimizer in [
        &ProximalAdagradOptimizer::new(0.1) as &dyn Optimizer,
        &ProximalGradientDescentOptimizer::new(0.1),
        &AdagradOptimizer::new(0.1),
        &AdadeltaOptimizer::default(),
        &FtrlOptimizer::new(0.1).l2_shrinkage_regularization_strength(0.5),
    ] {
        let made = updates(optimizer, DType::Float32, false);
        assert_eq!(
            made.last().unwrap().name(),
            format!("train/{}", optimizer.state().name())
        );
    }
}

/// Trains x -> 2x + 1 on gradients given by hand, and returns the variable.
fn descend(optimizer: &dyn Optimizer, steps: usize) -> f32 {
    let graph = Graph::new();
    let _default = graph.as_default();
    crate::install();
    let variable = Variable::new(3.0f32).name("x").build().unwrap();
    let gradient = placeholder(().into(), DType::Float32);
    let step = create_global_step().unwrap();
    let options = MinimizeOptions::new().global_step(&step);
    let train = optimizer
        .apply_gradients(&[(Some(gradient.clone()), variable.clone())], &options)
        .unwrap();
    let session = Session::new(&graph).unwrap();
    session.run(global_variables_initializer().unwrap(), ()).unwrap();
    for _ in 0..steps {
        let x: f32 = session.run(&variable, ()).unwrap();
        session.run(&train, Feeds::new().with(&gradient, 2.0 * x)).unwrap();
    }
    assert_eq!(session.run::<i64>(&step, ()).unwrap(), steps as i64);
    assert!(global_variables().unwrap().len() >= 2);
    session.run(&variable, ()).unwrap()
}

#[test]
fn optimizers_find_the_minimum_of_a_square() {
    assert!((descend(&GradientDescentOptimizer::new(0.25), 3) - 0.375).abs() < 1e-6);
    assert!(descend(&MomentumOptimizer::new(0.1, 0.5), 60).abs() < 1e-3);
    assert!(descend(&RmsPropOptimizer::new(0.1), 60).abs() < 0.2);
    assert!(descend(&AdagradOptimizer::new(1.0), 60).abs() < 1e-2);
    assert!(
        descend(
            &ProximalGradientDescentOptimizer::new(0.1).l2_regularization_strength(0.1),
            60
        )
        .abs()
            < 1e-3
    );
}

#[test]
fn what_cannot_be_trained_is_an_error() {
    let graph = Graph::new();
    let _default = graph.as_default();
    crate::install();
    let variable = Variable::new(3.0f32).name("x").build().unwrap();
    let loss = placeholder(().into(), DType::Float32);
    let optimizer = GradientDescentOptimizer::new(0.1);
    let error = optimizer.minimize(&loss, &[]).unwrap_err().to_string();
    assert!(error.contains("No variables to optimize"), "{error}");
    let error = optimizer
        .minimize(&loss, std::slice::from_ref(&variable))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("No gradients provided") && error.contains("x:0"),
        "{error}"
    );
    let whole = placeholder(().into(), DType::Int32);
    assert!(optimizer.minimize(&whole, &[variable]).is_err());
    assert!(create_global_step().is_ok());
    assert!(create_global_step().is_err());
    assert_eq!(get_or_create_global_step().unwrap().name(), "global_step:0");
}

#[test]
fn schedules_are_tensorflows_node_by_node() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let step = create_global_step().unwrap();
    let before = graph.num_operations();
    exponential_decay(0.1, &step, 100, 0.96)
        .staircase(true)
        .build()
        .unwrap();
    polynomial_decay(0.1, &step, 100).build().unwrap();
    assert_listing(
        &graph.operations().split_off(before),
        "Const ExponentialDecay/initial_learning_rate <-
        Const ExponentialDecay/Cast/x <-
        Cast ExponentialDecay/Cast <- ExponentialDecay/Cast/x
        Const ExponentialDecay/Cast_1/x <-
        Cast ExponentialDecay/Cast_2 <- global_step/read
        RealDiv ExponentialDecay/truediv <- ExponentialDecay/Cast_2, ExponentialDecay/Cast
        Floor ExponentialDecay/Floor <- ExponentialDecay/truediv
        Pow ExponentialDecay/Pow <- ExponentialDecay/Cast_1/x, ExponentialDecay/Floor
        Mul ExponentialDecay <- ExponentialDecay/initial_learning_rate, ExponentialDecay/Pow
        Const PolynomialDecay/initial_learning_rate <-
        Const PolynomialDecay/Cast/x <-
        Const PolynomialDecay/Cast_1/x <-
        Cast PolynomialDecay/Cast_2 <- global_step/read
        Const PolynomialDecay/Cast_3/x <-
        Cast PolynomialDecay/Cast_3 <- PolynomialDecay/Cast_3/x
        Minimum PolynomialDecay/Minimum <- PolynomialDecay/Cast_2, PolynomialDecay/Cast_3
        RealDiv PolynomialDecay/truediv <- PolynomialDecay/Minimum, PolynomialDecay/Cast_3
        Sub PolynomialDecay/sub <- PolynomialDecay/initial_learning_rate, PolynomialDecay/Cast/x
        Const PolynomialDecay/sub_1/x <-
        Sub PolynomialDecay/sub_1 <- PolynomialDecay/sub_1/x, PolynomialDecay/truediv
        Pow PolynomialDecay/Pow <- PolynomialDecay/sub_1, PolynomialDecay/Cast_1/x
        Mul PolynomialDecay/Mul <- PolynomialDecay/sub, PolynomialDecay/Pow
        Add PolynomialDecay <- PolynomialDecay/Mul, PolynomialDecay/Cast/x",
    );
}

#[test]
fn schedules_fall_as_their_formulas_say() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let step = create_global_step().unwrap();
    let rates = [
        (exponential_decay(0.1, &step, 10, 0.5).build(), 0.1 * 0.5f32.powf(2.5)),
        (exponential_decay(0.1, &step, 10, 0.5).staircase(true).build(), 0.025),
        (natural_exp_decay(0.1, &step, 10, 0.5).build(), 0.1 * (-1.25f32).exp()),
        (inverse_time_decay(0.1, &step, 10, 0.5).build(), 0.1 / 2.25),
        (
            polynomial_decay(0.1, &step, 50)
                .end_learning_rate(0.01)
                .power(2.0)
                .build(),
            0.09 * 0.25 + 0.01,
        ),
        (polynomial_decay(0.1, &step, 10).end_learning_rate(0.01).build(), 0.01),
        (
            polynomial_decay(0.1, &step, 10)
                .end_learning_rate(0.01)
                .cycle(true)
                .build(),
            0.09 * (1.0 - 25.0 / 30.0) + 0.01,
        ),
        (cosine_decay(0.1, &step, 50).alpha(0.1).build(), 0.1 * (0.9 * 0.5 + 0.1)),
        (
            piecewise_constant(&step, &[10, 25, 30], &[1.0, 0.5, 0.25, 0.125], None),
            0.5,
        ),
        (piecewise_constant(&step, &[10, 24], &[1.0, 0.5, 0.25], None), 0.25),
    ];
    let at = crate::state::assign(&step, 25i64).build().unwrap();
    let session = Session::new(&graph).unwrap();
    session.run(at.op(), ()).unwrap();
    for (index, (rate, expected)) in rates.into_iter().enumerate() {
        let rate: f32 = session.run(rate.unwrap(), ()).unwrap();
        assert!(
            (rate - expected).abs() < 1e-6,
            "schedule {index}: {rate}, expected {expected}"
        );
    }
    assert!(piecewise_constant(&step, &[10], &[1.0], None).is_err());
}
