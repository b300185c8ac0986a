//! Recorded steps in several lanes, whose work runs in any order that lanes allow: the bits are those of one lane.

use graph_core::accelerator::Lanes;
use graph_core::graph::scope;
use graph_core::session::{Feeds, RewriteOptions, Session, SessionOptions};
use graph_core::{Graph, Operation, Result, Tensor, Value, Variable, feed};
use graph_cuda::{Cuda, DeviceOptions};

use super::super::gpu_with;
use super::steps::network;
use super::{Numbers, cast};
use crate::array::{placeholder, transpose};
use crate::control::group;
use crate::state::{assign, assign_add, global_variables_initializer};
use crate::train::{AdamOptimizer, DynamicLossScale, MixedPrecision, MixedPrecisionLossScaleOptimizer, Optimizer};
use crate::{math, nn};

/// More than the runs after which the faster of two ways stays.
const STEPS: usize = 16;

/// A device with these lanes; `None`, which it says, where there is not even an emulated one.
fn device(lanes: Lanes) -> Option<Cuda> {
    let options = DeviceOptions {
        lanes: Some(lanes),
        ..DeviceOptions::default()
    };
    gpu_with(&options)
        .inspect_err(|error| println!("skipped: {error}"))
        .ok()
}

/// Steps of a graph, and the variables that are looked at after them.
struct Steps<'a> {
    graph: &'a Graph,
    initialize: &'a Operation,
    step: &'a Operation,
    variables: &'a [Variable],
    feeds: &'a dyn Fn(&mut Numbers) -> Result<Feeds>,
    rewrites: RewriteOptions,
}

impl Steps<'_> {
    fn run(&self, device: &Cuda, recorded: bool) -> Result<Vec<Value>> {
        let options = SessionOptions::new()
            .accelerators(vec![device.accelerator()])
            .rewrites(self.rewrites.clone())
            .record_steps(recorded);
        let session = Session::with_options(self.graph, options)?;
        session.run::<()>(self.initialize, ())?;
        let mut numbers = Numbers(57);
        for _ in 0..STEPS {
            session.run::<()>(self.step, (self.feeds)(&mut numbers)?)?;
        }
        let waits = device.work().waits;
        session.run::<()>(self.step, (self.feeds)(&mut numbers)?)?;
        assert_eq!(
            device.work().waits,
            waits,
            "a step without fetches waits for the device"
        );
        let values = self.variables.iter().map(|variable| session.run(variable, ()));
        values.collect()
    }

    /// Whether several lanes were used, checked to give the bits of steps that are not recorded.
    fn check(&self) -> Option<bool> {
        let one = device(Lanes::One)?;
        let expected = self.run(&one, false).unwrap();
        assert!(self.run(&one, true).unwrap() == expected, "one lane");
        assert_eq!(one.work().lanes, 0);
        let mut used = false;
        for lanes in [Lanes::Several(4), Lanes::Several(2), Lanes::Measured(4)] {
            let device = device(lanes)?;
            assert!(self.run(&device, true).unwrap() == expected, "{lanes:?}");
            used |= device.work().lanes > 0;
        }
        Some(used)
    }
}

#[test]
fn training_in_lanes_is_training_in_order() {
    let adam = || -> Box<dyn Optimizer> { Box::new(AdamOptimizer::new(0.01)) };
    let scaled = || -> Box<dyn Optimizer> {
        let scale = DynamicLossScale::new().build().unwrap();
        let optimizer = MixedPrecisionLossScaleOptimizer::new(AdamOptimizer::new(0.01), scale);
        Box::new(optimizer.unwrap())
    };
    for precision in [None, Some(MixedPrecision::Half)] {
        let network = match precision {
            None => network(adam),
            Some(_) => network(scaled),
        };
        let network = network.unwrap();
        let rewrites = RewriteOptions::all();
        let steps = Steps {
            graph: &network.graph,
            initialize: &network.initialize,
            step: &network.train,
            variables: &network.variables,
            feeds: &|numbers| network.feeds(numbers),
            rewrites: match precision {
                None => rewrites,
                Some(precision) => rewrites.with(precision.rewrite()),
            },
        };
        let Some(used) = steps.check() else { return };
        assert!(used, "a training step has work that can run side by side");
    }
}

/// Matrices of variables and feeds, made of each other without plan, some of which become the values of variables.
fn entangled(numbers: &mut Numbers) -> Result<(Graph, Tensor, Operation, Operation, Vec<Variable>)> {
    const SHAPE: [usize; 2] = [5, 5];
    let graph = Graph::new();
    let _default = graph.as_default();
    let variables: Vec<Variable> = (0..3)
        .map(|_| Variable::new(cast(&numbers.tensor(&SHAPE), graph_core::DType::Float32)).build())
        .collect::<Result<_>>()?;
    let fed = placeholder::<f32>(SHAPE).build()?;
    let mut tensors = vec![fed.clone()];
    let mut updates: Vec<Operation> = Vec::new();
    for _ in 0..numbers.among(8, 30) {
        let one = tensors[numbers.among(0, tensors.len() - 1)].clone();
        let other = tensors[numbers.among(0, tensors.len() - 1)].clone();
        let variable = &variables[numbers.among(0, variables.len() - 1)];
        // Reads of a variable that come before an update, or after it.
        let after = updates.last().filter(|_| numbers.among(0, 1) == 0).cloned();
        let _after = scope::control_dependencies(&after)?;
        match numbers.among(0, 7) {
            0 => tensors.push(math::tanh(math::matmul(one, other).build()?).build()?),
            1 => tensors.push(math::add(one, other).build()?),
            2 => tensors.push(math::multiply(one, variable).build()?),
            3 => tensors.push(transpose(one).build()?),
            4 => tensors.push(nn::softmax(math::add(one, variable).build()?).build()?),
            5 => tensors.push(math::subtract(one, math::reduce_mean(other).build()?).build()?),
            6 => updates.push(assign(variable, math::tanh(one).build()?).build()?.op()),
            _ => updates.push(assign_add(variable, one).build()?.op()),
        }
    }
    let last = tensors[tensors.len() - 1].clone();
    updates.push(assign(&variables[0], math::sigmoid(last).build()?).build()?.op());
    let step = group(&updates, "step")?;
    let initialize = global_variables_initializer()?;
    Ok((graph.clone(), fed, step, initialize, variables))
}

#[test]
fn entangled_graphs_in_lanes_are_those_in_order() {
    let mut numbers = Numbers(91);
    let mut in_lanes = 0;
    for _ in 0..24 {
        let (graph, fed, step, initialize, variables) = entangled(&mut numbers).unwrap();
        let feeds = |numbers: &mut Numbers| {
            let value = cast(&numbers.tensor(&[5, 5]), graph_core::DType::Float32);
            Ok(feed! { &fed => value })
        };
        let steps = Steps {
            graph: &graph,
            initialize: &initialize,
            step: &step,
            variables: &variables,
            feeds: &feeds,
            // Kernels that other graphs have too, and more steps of them.
            rewrites: RewriteOptions::none(),
        };
        let Some(used) = steps.check() else { return };
        in_lanes += usize::from(used);
    }
    assert!(
        in_lanes > 12,
        "{in_lanes} of 24 graphs have steps that can run side by side"
    );
}
