//! Optimizers of resource variables: the nodes are TensorFlow's, the numbers those of other variables.

use graph_core::session::Session;
use graph_core::{Graph, Operation, Value, Variable};

use super::tests::assert_listing;
use super::*;
use crate::state::global_variables_initializer;

#[test]
fn adam_of_resource_variables_is_tensorflows_node_by_node() {
    let graph = Graph::new();
    let _default = graph.as_default();
    crate::install();
    let v = Variable::new([1.0f32, 2.0])
        .name("v")
        .use_resource(true)
        .build()
        .unwrap();
    let step = Variable::new(0i64).name("step").use_resource(true).trainable(false);
    let step = step.build().unwrap();
    let squares = crate::math::square(&v).build().unwrap();
    let loss = crate::math::reduce_sum(&squares).build().unwrap();
    let optimizer = AdamOptimizer::new(0.1).name("adam");
    let options = MinimizeOptions::new().global_step(&step);
    let train = optimizer
        .minimize_with(&loss, &crate::state::trainable_variables().unwrap(), &options)
        .unwrap();
    let made: Vec<Operation> = graph
        .operations()
        .into_iter()
        .filter(|operation| !operation.name().starts_with("gradients"))
        .collect();
    assert_listing(
        &made,
        "Const v/Initializer/initial_value <-  loc:@v
        VarHandleOp v <-  loc:@v
        VarIsInitializedOp v/IsInitialized/VarIsInitializedOp <- v
        AssignVariableOp v/Assign <- v, v/Initializer/initial_value
        ReadVariableOp v/Read/ReadVariableOp <- v
        Const step/Initializer/initial_value <-  loc:@step
        VarHandleOp step <-  loc:@step
        VarIsInitializedOp step/IsInitialized/VarIsInitializedOp <- step
        AssignVariableOp step/Assign <- step, step/Initializer/initial_value
        ReadVariableOp step/Read/ReadVariableOp <- step
        ReadVariableOp Square/ReadVariableOp <- v
        Square Square <- Square/ReadVariableOp
        Const Const <-
        Sum Sum <- Square, Const
        Const beta1_power/Initializer/initial_value <-  loc:@v
        VarHandleOp beta1_power <-  loc:@v
        VarIsInitializedOp beta1_power/IsInitialized/VarIsInitializedOp <- beta1_power loc:@v
        AssignVariableOp beta1_power/Assign <- beta1_power, beta1_power/Initializer/initial_value
        ReadVariableOp beta1_power/Read/ReadVariableOp <- beta1_power loc:@v
        Const beta2_power/Initializer/initial_value <-  loc:@v
        VarHandleOp beta2_power <-  loc:@v
        VarIsInitializedOp beta2_power/IsInitialized/VarIsInitializedOp <- beta2_power loc:@v
        AssignVariableOp beta2_power/Assign <- beta2_power, beta2_power/Initializer/initial_value
        ReadVariableOp beta2_power/Read/ReadVariableOp <- beta2_power loc:@v
        Const v/adam/Initializer/zeros <-  loc:@v
        VarHandleOp v/adam <-  loc:@v
        VarIsInitializedOp v/adam/IsInitialized/VarIsInitializedOp <- v/adam loc:@v
        AssignVariableOp v/adam/Assign <- v/adam, v/adam/Initializer/zeros
        ReadVariableOp v/adam/Read/ReadVariableOp <- v/adam loc:@v
        Const v/adam_1/Initializer/zeros <-  loc:@v
        VarHandleOp v/adam_1 <-  loc:@v
        VarIsInitializedOp v/adam_1/IsInitialized/VarIsInitializedOp <- v/adam_1 loc:@v
        AssignVariableOp v/adam_1/Assign <- v/adam_1, v/adam_1/Initializer/zeros
        ReadVariableOp v/adam_1/Read/ReadVariableOp <- v/adam_1 loc:@v
        Const adam/learning_rate <-
        Const adam/beta1 <-
        Const adam/beta2 <-
        Const adam/epsilon <-
        ReadVariableOp adam/update_v/ResourceApplyAdam/ReadVariableOp <- beta1_power
        ReadVariableOp adam/update_v/ResourceApplyAdam/ReadVariableOp_1 <- beta2_power
        ResourceApplyAdam adam/update_v/ResourceApplyAdam <- v, v/adam, v/adam_1, adam/update_v/ResourceApplyAdam/ReadVariableOp, adam/update_v/ResourceApplyAdam/ReadVariableOp_1, adam/learning_rate, adam/beta1, adam/beta2, adam/epsilon, gradients/Square_grad/Mul_1 loc:@v
        ReadVariableOp adam/ReadVariableOp <- beta1_power, ^adam/update_v/ResourceApplyAdam
        Mul adam/mul <- adam/ReadVariableOp, adam/beta1 loc:@v
        AssignVariableOp adam/AssignVariableOp <- beta1_power, adam/mul loc:@v
        ReadVariableOp adam/ReadVariableOp_1 <- beta1_power, ^adam/AssignVariableOp, ^adam/update_v/ResourceApplyAdam loc:@v
        ReadVariableOp adam/ReadVariableOp_2 <- beta2_power, ^adam/update_v/ResourceApplyAdam
        Mul adam/mul_1 <- adam/ReadVariableOp_2, adam/beta2 loc:@v
        AssignVariableOp adam/AssignVariableOp_1 <- beta2_power, adam/mul_1 loc:@v
        ReadVariableOp adam/ReadVariableOp_3 <- beta2_power, ^adam/AssignVariableOp_1, ^adam/update_v/ResourceApplyAdam loc:@v
        NoOp adam/update <- ^adam/AssignVariableOp, ^adam/AssignVariableOp_1, ^adam/update_v/ResourceApplyAdam
        Const adam/Const <- ^adam/update loc:@step
        AssignAddVariableOp adam <- step, adam/Const loc:@step",
    );
    let session = Session::new(&graph).unwrap();
    session.run(global_variables_initializer().unwrap(), ()).unwrap();
    session.run(&train, ()).unwrap();
    session.run(&train, ()).unwrap();
    let after: (Value, i64) = session.run((&v, &step), ()).unwrap();
    crate::testing::assert_close(
        &after.0,
        &Value::from(AFTER_TWO_STEPS_OF_ADAM),
        (1e-6, 0.0),
        "after two steps",
    );
    assert_eq!(after.1, 2);
}

/// By TensorFlow.
const AFTER_TWO_STEPS_OF_ADAM: [f32; 2] = [0.8004126, 1.8001668];

#[test]
fn every_optimizer_updates_resource_variables_as_others() {
    let optimizers: Vec<Box<dyn Optimizer>> = vec![
        Box::new(GradientDescentOptimizer::new(0.1)),
        Box::new(MomentumOptimizer::new(0.1, 0.9).use_nesterov(true)),
        Box::new(AdamOptimizer::new(0.1)),
        Box::new(AdagradOptimizer::new(0.1)),
        Box::new(AdadeltaOptimizer::new(0.1)),
        Box::new(RmsPropOptimizer::new(0.1)),
        Box::new(RmsPropOptimizer::new(0.1).centered(true)),
        Box::new(FtrlOptimizer::new(0.1)),
        Box::new(ProximalGradientDescentOptimizer::new(0.1).l1_regularization_strength(0.1)),
        Box::new(ProximalAdagradOptimizer::new(0.1).l2_regularization_strength(0.1)),
    ];
    for (number, optimizer) in optimizers.iter().enumerate() {
        let train = |resource: bool| -> Value {
            let graph = Graph::new();
            let _default = graph.as_default();
            let variable = Variable::new([1.0f32, -2.0]).use_resource(resource).build().unwrap();
            let squares = crate::math::square(&variable).build().unwrap();
            let step = optimizer.minimize(&squares, std::slice::from_ref(&variable)).unwrap();
            let ops: Vec<&str> = graph.operations().iter().map(Operation::op_type).collect();
            let by_handle = ops.iter().filter(|op| op.starts_with("ResourceApply")).count();
            assert_eq!(by_handle, usize::from(resource), "optimizer {number}");
            assert_eq!(ops.contains(&"VariableV2"), !resource, "optimizer {number}");
            let session = Session::new(&graph).unwrap();
            session.run(global_variables_initializer().unwrap(), ()).unwrap();
            (0..3).for_each(|_| session.run(&step, ()).unwrap());
            session.run(&variable, ()).unwrap()
        };
        assert_eq!(train(true), train(false), "optimizer {number}");
    }
}
