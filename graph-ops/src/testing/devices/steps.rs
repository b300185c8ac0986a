//! Whole training steps, as they are after all rewrites: on the host alone, and with an emulated GPU.

use graph_core::graph::keys;
use graph_core::session::{Feeds, Session, SessionOptions};
use graph_core::{Graph, Operation, Result, Tensor, Value, Variable, feed};
use graph_cuda::Cuda;

use super::{Numbers, cast, device};
use crate::array::{placeholder, reshape};
use crate::state::{global_variables_initializer, variable_scope};
use crate::train::{
    AdamOptimizer, DynamicLossScale, DynamicLossScaleBuilder, GradientDescentOptimizer, MixedPrecision,
    MixedPrecisionLossScaleOptimizer, MomentumOptimizer, Optimizer,
};
use crate::{math, nn};

const BATCH: usize = 6;

/// Of 16 bits where there is one, else `float`.
type Precision = Option<MixedPrecision>;

pub(super) struct Network {
    pub(super) graph: Graph,
    images: Tensor,
    labels: Tensor,
    objective: Tensor,
    pub(super) train: Operation,
    pub(super) initialize: Operation,
    pub(super) variables: Vec<Variable>,
}

impl Network {
    /// A batch of what it takes.
    pub(super) fn feeds(&self, numbers: &mut Numbers) -> Result<Feeds> {
        let images = cast(&numbers.tensor(&[BATCH, 12, 12, 1]), graph_core::DType::Float32);
        let mut labels = vec![0f32; BATCH * 10];
        for row in labels.chunks_mut(10) {
            row[numbers.among(0, 9)] = 1.0;
        }
        let labels = Value::from_vec([BATCH, 10], labels)?;
        Ok(feed! { &self.images => images, &self.labels => labels })
    }
}

/// Weights and a bias.
fn parameters(numbers: &mut Numbers, shape: &[usize]) -> Result<[Variable; 2]> {
    let weights = cast(&numbers.tensor(shape), graph_core::DType::Float32);
    let bias = Value::zeros(graph_core::DType::Float32, [shape[shape.len() - 1]])?;
    Ok([
        Variable::new(weights).name("weights").build()?,
        Variable::new(bias).name("bias").build()?,
    ])
}

/// Two convolutions with pools, a normalization, a product with dropout, a cross entropy with weight decay.
pub(super) fn network(make_optimizer: impl FnOnce() -> Box<dyn Optimizer>) -> Result<Network> {
    let graph = Graph::new();
    let default = graph.as_default();
    graph.set_random_seed(3);
    let mut numbers = Numbers(31);
    let images = placeholder::<f32>([BATCH, 12, 12, 1]).name("images").build()?;
    let labels = placeholder::<f32>([BATCH, 10]).name("labels").build()?;
    let convolve = |input: &Tensor, params: &[Variable; 2]| -> Result<Tensor> {
        let sum = nn::conv2d(input, &params[0])
            .strides([1, 1, 1, 1])
            .padding("VALID")
            .build()?;
        let activity = nn::relu(nn::bias_add(sum, &params[1]).build()?).build()?;
        let pool = nn::max_pool(activity).ksize([1, 2, 2, 1]).strides([1, 2, 2, 1]);
        pool.padding("VALID").build()
    };
    let mut all = Vec::new();
    let first = {
        let _scope = variable_scope("conv_1")?;
        let params = parameters(&mut numbers, &[3, 3, 1, 6])?;
        let out = convolve(&images, &params)?;
        all.extend(params);
        nn::lrn(out).depth_radius(2).alpha(0.1).beta(0.75).build()?
    };
    let second = {
        let _scope = variable_scope("conv_2")?;
        let params = parameters(&mut numbers, &[2, 2, 6, 9])?;
        let out = convolve(&first, &params)?;
        all.extend(params);
        reshape(out, [BATCH as i32, 2 * 2 * 9]).build()?
    };
    let logits = {
        let _scope = variable_scope("dot")?;
        let params = parameters(&mut numbers, &[36, 10])?;
        let dropped = nn::dropout(&second, 0.8).seed(5).build()?;
        let logits = nn::bias_add(math::matmul(dropped, &params[0]).build()?, &params[1]).build()?;
        all.extend(params);
        logits
    };
    let losses = nn::softmax_cross_entropy_with_logits(&labels, &logits).build()?;
    let mut objective = math::reduce_mean(losses).build()?;
    for variable in all.iter().filter(|variable| variable.name().contains("weights")) {
        objective = math::add(
            &objective,
            math::multiply(0.01f32, nn::l2_loss(variable).build()?).build()?,
        )
        .build()?;
    }
    let train = make_optimizer().minimize(&objective, &all)?;
    let variables = graph.get_collection::<Variable>(keys::GLOBAL_VARIABLES)?;
    let initialize = global_variables_initializer()?;
    drop(default);
    Ok(Network {
        images,
        labels,
        objective,
        train,
        initialize,
        variables,
        graph,
    })
}

/// The objective in some steps, and all variables after them.
fn trained(network: &Network, device: Option<&Cuda>, precision: Precision) -> Result<(Vec<f32>, Vec<Value>)> {
    let accelerators = device.map(Cuda::accelerator).into_iter().collect();
    let mut options = SessionOptions::new().accelerators(accelerators);
    if let Some(precision) = precision {
        options.rewrites = options.rewrites.with(precision.rewrite());
    }
    let session = Session::with_options(&network.graph, options)?;
    session.run(&network.initialize, ())?;
    let mut numbers = Numbers(32);
    let mut objectives = Vec::new();
    for _ in 0..4 {
        let (objective, ()): (f32, ()) =
            session.run((&network.objective, &network.train), network.feeds(&mut numbers)?)?;
        objectives.push(objective);
    }
    let variables = network.variables.iter().map(|variable| session.run(variable, ()));
    Ok((objectives, variables.collect::<Result<Vec<Value>>>()?))
}

#[test]
pub(super) fn training_on_a_device_is_training_on_the_host() {
    let Some(device) = device() else { return };
    let optimizers: [Box<dyn Optimizer>; 3] = [
        Box::new(AdamOptimizer::new(0.01)),
        Box::new(MomentumOptimizer::new(0.05, 0.9)),
        Box::new(GradientDescentOptimizer::new(0.05)),
    ];
    for optimizer in optimizers {
        let network = network(|| optimizer).unwrap();
        let (expected, host) = trained(&network, None, None).unwrap();
        let (got, on_device) = trained(&network, Some(&device), None).unwrap();
        let objectives = |values: Vec<f32>| Value::from(values);
        super::assert_close(&objectives(got), &objectives(expected), (1e-5, 1e-6), "the objective");
        for (variable, (got, expected)) in network.variables.iter().zip(on_device.iter().zip(&host)) {
            super::assert_close(got, expected, (2e-3, 1e-4), &variable.name());
        }
        // Bit for bit from run to run.
        assert!(trained(&network, Some(&device), None).unwrap().1 == on_device);
    }
}

/// The network whose loss is scaled by `scale`, in mixed precision as the host trains it, checked to be what the device trains: the
/// objectives and the variables.
fn mixed(device: &Cuda, precision: MixedPrecision, scale: DynamicLossScaleBuilder) -> (Network, Vec<f32>, Vec<Value>) {
    let make = || MixedPrecisionLossScaleOptimizer::new(MomentumOptimizer::new(0.05, 0.9), scale.build()?);
    let network = network(|| Box::new(make().unwrap())).unwrap();
    let (expected, host) = trained(&network, None, Some(precision)).unwrap();
    let (got, on_device) = trained(&network, Some(device), Some(precision)).unwrap();
    let label = format!("the objective in {precision}, on the device and on the host");
    let (objectives, of_host) = (Value::from(got), Value::from(expected.clone()));
    super::assert_close(&objectives, &of_host, (rounding(precision), 0.0), &label);
    for (variable, (got, expected)) in network.variables.iter().zip(on_device.iter().zip(&host)) {
        let label = format!("{} in {precision}", variable.name());
        super::assert_close(got, expected, (4.0 * rounding(precision), rounding(precision)), &label);
    }
    assert!(trained(&network, Some(device), Some(precision)).unwrap().1 == on_device);
    (network, expected, host)
}

/// Sums of another order may round to the neighbour.
fn rounding(precision: MixedPrecision) -> f64 {
    match precision {
        MixedPrecision::Half => 1e-3,
        MixedPrecision::BFloat16 => 8e-3,
    }
}

/// The scalar variable of this name.
fn scalar(network: &Network, values: &[Value], name: &str) -> Value {
    let place = network.variables.iter().position(|variable| variable.name() == name);
    values[place.unwrap()].clone()
}

#[test]
pub(super) fn mixed_precision_on_a_device_is_that_of_the_host_and_near_float() {
    let Some(device) = device() else { return };
    for precision in MixedPrecision::ALL {
        // Gradients of up to 2.4 stay below the largest number of f16.
        let scale = DynamicLossScale::new().initial_loss_scale(1024.0);
        let (network, mixed, variables) = mixed(&device, precision, scale);
        assert_eq!(
            scalar(&network, &variables, "good_steps:0"),
            Value::scalar(4i64),
            "{precision}"
        );
        let (float, _) = trained(&network, Some(&device), None).unwrap();
        assert_ne!(mixed, float, "{precision} is float");
        let label = format!("the objective in {precision} and in float");
        let tolerance = (4.0 * rounding(precision), 0.0);
        super::assert_close(&Value::from(mixed), &Value::from(float), tolerance, &label);
    }
}

#[test]
pub(super) fn a_step_that_overflows_is_left_out_on_a_device_as_on_the_host() {
    let Some(device) = device() else { return };
    let (network, objectives, variables) = mixed(&device, MixedPrecision::Half, DynamicLossScale::new());
    let value = |name: &str| scalar(&network, &variables, name);
    assert_eq!(value("current_loss_scale:0"), Value::scalar(16_384f32));
    assert_eq!(value("good_steps:0"), Value::scalar(3i64));
    // The second step begins where the first did, with other images and labels; in float it begins farther down.
    let (float, _) = trained(&network, Some(&device), None).unwrap();
    assert!(objectives[1] > 1.2 * float[1], "{objectives:?}, and in float {float:?}");
}
