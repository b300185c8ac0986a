//! What accelerators do for several variables at once: updates by the same rule, sums of the same operations, casts. With and
//! without, the bits are the same.

use graph_core::graph::scope;
use graph_core::session::{Feeds, RunOptions, Session, SessionOptions};
use graph_core::{Graph, Operation, Result, Tensor, Value, Variable, feed};
use graph_cuda::Cuda;

use super::{Numbers, cast, device};
use crate::array::{constant, placeholder};
use crate::control::{cond, group};
use crate::state::{assign, assign_add, global_variables_initializer};
use crate::train::{
    AdagradOptimizer, AdamOptimizer, FtrlOptimizer, GradientDescentOptimizer, MixedPrecision, MomentumOptimizer,
    Optimizer, RmsPropOptimizer,
};
use crate::{math, nn};

/// The rewrites that make one operation of several.
const GROUPING: [&str; 3] = ["cast_grouping", "sum_grouping", "update_grouping"];

/// Steps of a graph.
struct Steps {
    graph: Graph,
    step: Operation,
    initialize: Operation,
    /// What is looked at after the steps.
    variables: Vec<Variable>,
    precision: Option<MixedPrecision>,
}

impl Steps {
    fn of(graph: &Graph, step: Operation, variables: Vec<Variable>) -> Result<Self> {
        let _default = graph.as_default();
        Ok(Self {
            initialize: global_variables_initializer()?,
            graph: graph.clone(),
            step,
            variables,
            precision: None,
        })
    }

    /// The variables after three steps, and the ops of a fourth.
    fn run(&self, device: &Cuda, without: &[&str], feeds: &dyn Fn() -> Feeds) -> Result<(Vec<Value>, Vec<String>)> {
        let mut options = SessionOptions::new().accelerators(vec![device.accelerator()]);
        options.rewrites = without
            .iter()
            .fold(options.rewrites, |rewrites, name| rewrites.without(name));
        if let Some(precision) = self.precision {
            options.rewrites = options.rewrites.with(precision.rewrite());
        }
        let session = Session::with_options(&self.graph, options)?;
        session.run::<()>(&self.initialize, ())?;
        for _ in 0..3 {
            session.run::<()>(&self.step, feeds())?;
        }
        let values = self.variables.iter().map(|variable| session.run(variable, ()));
        let values = values.collect::<Result<Vec<Value>>>()?;
        let options = RunOptions {
            trace: true,
            ..RunOptions::default()
        };
        let ((), traced) = session.run_with(&self.step, feeds(), &options)?;
        let ops = traced.nodes.into_iter().map(|node| node.op.to_string());
        Ok((values, ops.collect()))
    }

    /// Checks that grouping changes no bit; the ops of a step with it and without it.
    fn check(&self, device: &Cuda, label: &str, feeds: &dyn Fn() -> Feeds) -> Result<[Vec<String>; 2]> {
        let (grouped, ops) = self.run(device, &[], feeds)?;
        let (single, others) = self.run(device, &GROUPING, feeds)?;
        for ((variable, grouped), single) in self.variables.iter().zip(&grouped).zip(&single) {
            assert_eq!(grouped, single, "{} of {label}", variable.name());
        }
        Ok([ops, others])
    }
}

fn no_feeds() -> Feeds {
    Feeds::new()
}

fn count(ops: &[String], op: &str) -> usize {
    ops.iter().filter(|other| *other == op).count()
}

/// Updates of a step, in any form.
fn updates(ops: &[String]) -> usize {
    let is_update = |op: &&String| op.contains("Apply") || op.contains("Assign");
    ops.iter().filter(is_update).count()
}

/// Variables of these shapes.
fn variables(numbers: &mut Numbers, shapes: &[&[usize]], resource: bool) -> Result<Vec<Variable>> {
    let variable = |&shape: &&[usize]| {
        let value = cast(&numbers.tensor(shape), graph_core::DType::Float32);
        Variable::new(value).use_resource(resource).build()
    };
    shapes.iter().map(variable).collect()
}

/// The sum of the squares of all variables' functions, whose gradients differ from element to element, and with `decay` the
/// halves of the squares of the variables.
fn loss(variables: &[Variable], decay: bool) -> Result<Tensor> {
    let mut total = math::reduce_sum(math::square(math::sin(&variables[0]).build()?).build()?).build()?;
    for variable in &variables[1..] {
        let term = math::reduce_sum(math::square(math::sin(variable).build()?).build()?).build()?;
        total = math::add(&total, term).build()?;
    }
    for variable in variables.iter().filter(|_| decay) {
        let term = math::multiply(0.01f32, nn::l2_loss(variable).build()?).build()?;
        total = math::add(&total, term).build()?;
    }
    Ok(total)
}

const SHAPES: [&[usize]; 6] = [&[300], &[3, 5, 7], &[1], &[40, 40], &[2, 0], &[9]];

#[test]
fn updates_of_several_variables_are_those_of_each() -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    type Make = fn() -> Box<dyn Optimizer>;
    let optimizers: [(&str, Make); 7] = [
        ("GradientDescent", || Box::new(GradientDescentOptimizer::new(0.05f32))),
        ("Momentum", || Box::new(MomentumOptimizer::new(0.05f32, 0.9f32))),
        ("Nesterov", || {
            Box::new(MomentumOptimizer::new(0.05f32, 0.9f32).use_nesterov(true))
        }),
        ("Adam", || Box::new(AdamOptimizer::new(0.01f32))),
        ("RMSProp", || Box::new(RmsPropOptimizer::new(0.01f32))),
        ("Adagrad", || Box::new(AdagradOptimizer::new(0.1f32))),
        ("Ftrl", || Box::new(FtrlOptimizer::new(0.1f32))),
    ];
    for (name, make) in optimizers {
        for (resource, decay) in [(false, true), (true, true), (false, false)] {
            let graph = Graph::new();
            let default = graph.as_default();
            // Slots that begin at a constant cannot be empty.
            let filled = matches!(name, "Adagrad" | "Ftrl");
            let shapes: Vec<&[usize]> = SHAPES
                .into_iter()
                .filter(|shape| !(filled && shape.contains(&0)))
                .collect();
            let all = variables(&mut Numbers(41), &shapes, resource)?;
            let step = make().minimize(&loss(&all, decay)?, &all)?;
            let every = graph.get_collection::<Variable>(graph_core::graph::keys::GLOBAL_VARIABLES)?;
            drop(default);
            let label = format!("{name}, resource {resource}, decay {decay}");
            let steps = Steps::of(&graph, step, every)?;
            let [grouped, single] = steps.check(&device, &label, &no_feeds)?;
            // One variable is empty, and stays alone; Adam's powers are one operation.
            let powers = usize::from(name == "Adam");
            assert!(updates(&grouped) <= 3 + powers, "{label}: {grouped:?}");
            assert!(updates(&single) >= shapes.len() + 2 * powers, "{label}: {single:?}");
        }
    }
    Ok(())
}

/// More variables than one kernel takes, and the norms of all of them.
#[test]
fn many_variables_take_several_kernels() -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    let graph = Graph::new();
    let default = graph.as_default();
    let lengths: Vec<usize> = (0..37).map(|at| 1 + at * 53).collect();
    let shapes: Vec<&[usize]> = lengths.iter().map(std::slice::from_ref).collect();
    let mut all = variables(&mut Numbers(42), &shapes, false)?;
    let mut norms = math::multiply(0.5f32, nn::l2_loss(&all[0]).build()?).build()?;
    for variable in &all[1..] {
        let norm = math::multiply(0.25f32, nn::l2_loss(variable).build()?).build()?;
        norms = math::add(&norms, norm).build()?;
    }
    let kept = Variable::new(0.0f32).trainable(false).build()?;
    let keep = assign(&kept, &norms).build_operation()?;
    let step = {
        let _after = scope::control_dependencies([&keep])?;
        AdamOptimizer::new(0.01f32).minimize(&norms, &all)?
    };
    all.push(kept);
    drop(default);
    let [grouped, single] = Steps::of(&graph, step, all)?.check(&device, "37 variables", &no_feeds)?;
    assert_eq!(count(&grouped, "_FusedSum"), 1, "{grouped:?}");
    assert_eq!(count(&single, "_FusedSum"), 37, "{single:?}");
    assert_eq!(count(&grouped, "Mul"), 0, "{grouped:?}");
    Ok(())
}

/// Large variables whose gradients come early are not updated with those whose gradients come much later.
#[test]
fn large_variables_do_not_wait_for_the_first_layers() -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    for (width, together) in [(1024, 2), (64, 1)] {
        let graph = Graph::new();
        let default = graph.as_default();
        let shapes: [&[usize]; 4] = [&[3, 4], &[4, 5], &[5, width], &[width, 1025]];
        let all = variables(&mut Numbers(49), &shapes, false)?;
        let mut activity = placeholder::<f32>([2, 3]).name("x").build()?;
        let x = activity.clone();
        for variable in &all {
            activity = nn::softmax(math::matmul(&activity, variable).build()?).build()?;
        }
        let objective = math::reduce_sum(math::square(activity).build()?).build()?;
        let step = MomentumOptimizer::new(0.1f32, 0.9f32).minimize(&objective, &all)?;
        let every = graph.get_collection::<Variable>(graph_core::graph::keys::GLOBAL_VARIABLES)?;
        drop(default);
        let value = cast(&Numbers(50).tensor(&[2, 3]), graph_core::DType::Float32);
        let label = format!("a last layer of width {width}");
        let [grouped, _] = Steps::of(&graph, step, every)?.check(&device, &label, &|| feed! { &x => value.clone() })?;
        assert_eq!(updates(&grouped), together, "{label}: {grouped:?}");
    }
    Ok(())
}

/// Where groups would wait for themselves, or for each other, some are left: each update's result is what it is alone.
#[test]
fn updates_that_wait_for_others_stay_behind_them() -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    let graph = Graph::new();
    let default = graph.as_default();
    let all = variables(&mut Numbers(43), &[&[4], &[5], &[4], &[5]], false)?;
    // One tensor each: numbers that are equal but not the same make no group.
    let [half, quarter] = [&constant(0.5f32).build()?, &constant(0.25f32).build()?];
    let gradient = |variable: &Variable| math::sin(variable).build();
    let after = |before: &Operation, update: &dyn Fn() -> Result<Operation>| {
        let _after = scope::control_dependencies([before])?;
        update()
    };
    // The rates 0.5 and 0.25 would be two groups, each with one update before the other's and one behind.
    let a1 = descend(&all[0], half, &gradient(&all[0])?)?;
    let b1 = after(&a1, &|| descend(&all[1], quarter, &gradient(&all[1])?))?;
    let b2 = descend(&all[2], quarter, &gradient(&all[2])?)?;
    let a2 = after(&b2, &|| descend(&all[3], half, &gradient(&all[3])?))?;
    // Once more the first, behind all, by what it is then.
    let again = {
        let _after = scope::control_dependencies([&b1, &a2])?;
        let now = crate::op("Identity").input(&all[0]).build()?;
        descend(&all[0], half, &math::cos(now).build()?)?
    };
    let step = group([&a1, &b1, &b2, &a2, &again], "step")?;
    drop(default);
    let [grouped, single] = Steps::of(&graph, step, all)?.check(&device, "updates that wait", &no_feeds)?;
    // Two of the five are one; the other pair would wait for those, and those for it.
    assert_eq!((updates(&grouped), updates(&single)), (4, 5), "{grouped:?}");
    Ok(())
}

/// The update of a variable by a rate times a gradient.
fn descend(variable: &Variable, rate: &Tensor, delta: &Tensor) -> Result<Operation> {
    let update = crate::op("ApplyGradientDescent").input(variable).input(rate);
    update.input(delta).build_operation()
}

/// One kernel has one set of numbers, and gives each variable one update.
#[test]
fn other_numbers_and_a_second_update_make_another_group() -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    let graph = Graph::new();
    let default = graph.as_default();
    let all = variables(&mut Numbers(51), &[&[4], &[5], &[6], &[7]], false)?;
    let [half, quarter] = [&constant(0.5f32).build()?, &constant(0.25f32).build()?];
    let ones = |variable: &Variable| constant(vec![1.0f32; variable.shape().num_elements().unwrap_or(0)]).build();
    let mut updates_of_all = Vec::new();
    for (variable, rate) in all.iter().zip([half, quarter, half, quarter]) {
        updates_of_all.push(descend(variable, rate, &ones(variable)?)?);
    }
    // Whichever comes first, both are done.
    updates_of_all.push(descend(&all[0], half, &ones(&all[0])?)?);
    let step = group(&updates_of_all, "step")?;
    drop(default);
    let [grouped, _] = Steps::of(&graph, step, all)?.check(&device, "other numbers", &no_feeds)?;
    assert_eq!(updates(&grouped), 3, "{grouped:?}");
    Ok(())
}

/// Gradients that are computed of another variable of the group take its old value.
#[test]
fn updates_by_each_others_variables_take_the_old_values() -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    for resource in [false, true] {
        let graph = Graph::new();
        let default = graph.as_default();
        let all = variables(&mut Numbers(44), &[&[600], &[600], &[600]], resource)?;
        let read = |variable: &Variable| math::multiply(variable, 1.0f32).build();
        let op = if resource {
            "ResourceApplyGradientDescent"
        } else {
            "ApplyGradientDescent"
        };
        let mut updates = Vec::new();
        for (at, variable) in all.iter().enumerate() {
            let other = &all[(at + 1) % all.len()];
            let delta = math::add(math::sin(other).build()?, read(other)?).build()?;
            updates.push(
                crate::op(op)
                    .input(variable)
                    .input(0.5f32)
                    .input(delta)
                    .build_operation()?,
            );
        }
        let step = group(&updates, "step")?;
        drop(default);
        let steps = Steps::of(&graph, step, all)?;
        steps.check(&device, &format!("each other's, resource {resource}"), &no_feeds)?;
    }
    Ok(())
}

/// Updates in a branch belong to the branch.
#[test]
fn updates_in_branches_are_not_those_outside() -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    let graph = Graph::new();
    let default = graph.as_default();
    let taken = placeholder::<bool>(()).build()?;
    let all = variables(&mut Numbers(45), &[&[4], &[4], &[4]], false)?;
    let add = |variable: &Variable, by: f32| assign_add(variable, [by; 4]).build_operation();
    let descend = |variable: &Variable| {
        let update = crate::op("ApplyGradientDescent").input(variable).input(0.5f32);
        update.input([1.0f32, 2.0, 3.0, 4.0]).build_operation()
    };
    let branch: Operation = cond(&taken, || descend(&all[0]), || add(&all[0], 3.0)).build()?;
    let step = group([&branch, &descend(&all[1])?, &descend(&all[2])?], "step")?;
    drop(default);
    let steps = Steps::of(&graph, step, all)?;
    for value in [true, false] {
        let feeds = || feed! { &taken => value };
        let [ops, _] = steps.check(&device, &format!("a branch, {value}"), &feeds)?;
        assert_eq!(count(&ops, "_FusedApplyGradientDescent"), 1, "{ops:?}");
    }
    Ok(())
}

/// Updates whose variables are on the host are done there, together as well.
#[test]
fn updates_on_the_host_of_a_session_with_a_gpu() -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    let graph = Graph::new();
    let default = graph.as_default();
    let step = {
        let _host = scope::device("/cpu:0")?;
        let all = variables(&mut Numbers(46), &SHAPES, false)?;
        AdamOptimizer::new(0.01f32).minimize(&loss(&all, true)?, &all)?
    };
    let every = graph.get_collection::<Variable>(graph_core::graph::keys::GLOBAL_VARIABLES)?;
    drop(default);
    let [grouped, _] = Steps::of(&graph, step, every)?.check(&device, "on the host", &no_feeds)?;
    assert!(count(&grouped, "_FusedApplyAdam") <= 3, "{grouped:?}");
    Ok(())
}

/// The casts of mixed precision, of more variables than one kernel takes, whichever the type.
#[test]
fn variables_are_cast_at_once() -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    for precision in MixedPrecision::ALL {
        for (resource, layers) in [(false, 3), (true, 3), (false, 70)] {
            let graph = Graph::new();
            let default = graph.as_default();
            let shapes: Vec<[usize; 2]> = (0..layers).map(|at| [3 + at % 5, 3 + (at + 1) % 5]).collect();
            let shapes: Vec<&[usize]> = shapes.iter().map(|shape| &shape[..]).collect();
            let all = variables(&mut Numbers(47), &shapes, resource)?;
            let x = placeholder::<f32>([4, 3]).build()?;
            let mut activity = x.clone();
            for variable in &all {
                activity = math::tanh(math::matmul(&activity, variable).build()?).build()?;
            }
            let objective = math::reduce_sum(math::square(activity).build()?).build()?;
            let step = GradientDescentOptimizer::new(0.1f32).minimize(&objective, &all)?;
            drop(default);
            let mut steps = Steps::of(&graph, step, all)?;
            steps.precision = Some(precision);
            let value = cast(&Numbers(48).tensor(&[4, 3]), graph_core::DType::Float32);
            let feeds = || feed! { &x => value.clone() };
            let label = format!("{layers} layers in {precision}, resource {resource}");
            let [grouped, single] = steps.check(&device, &label, &feeds)?;
            assert_eq!(count(&grouped, "_Casts"), 1, "{label}: {grouped:?}");
            let saved = count(&single, "Cast") - count(&grouped, "Cast");
            assert_eq!(saved, layers, "{label}: {single:?}");
        }
    }
    Ok(())
}
