//! The network: LeNet-5, and what training adds to it.

use graph_core::graph::IntoOperand;
use graph_core::graph::scope::name_scope;
use graph_core::{Graph, Operation, Tensor, Variable};
use graph_ops::state::{add_to_collection, get_collection, variable_scope};
use graph_ops::train::{
    AdamOptimizer, GradientDescentOptimizer, IntoLossScale, MixedPrecision, MixedPrecisionLossScaleOptimizer,
    Optimizer, RmsPropOptimizer,
};
use graph_ops::{array, math, nn, summary};

use crate::error::Result;
use crate::global_definitions::{Definitions, OptimizerName};
use crate::layers::{
    Activation, Parameters, conv_2d_layer, dot_product_layer, dropout_layer, flatten_layer,
    local_response_normalization_layer, max_pool_2d_layer, softmax_layer, unflatten_layer,
};
use crate::support::{Layout, visualize_images};

/// The collection of parameters that the optimizer updates.
pub const TRAINABLE_PARAMS: &str = "trainable_params";
/// The collection of parameters whose size is penalized: weights, not biases.
pub const REGULARIZER_WORTHY_PARAMS: &str = "regularizer_worthy_params";
/// The collection of what is added up to the objective.
pub const OBJECTIVES: &str = "objectives";

/// How many of the input images the summaries show.
const SHOWN_IMAGES: usize = 6;

/// Adds the parameters of a layer to the collections: both are trainable, the weights worth regularizing. A layer that is
/// not processed stays as it is initialized.
pub fn process_params(params: &Parameters) {
    add_to_collection(TRAINABLE_PARAMS, &params[0]);
    add_to_collection(TRAINABLE_PARAMS, &params[1]);
    add_to_collection(REGULARIZER_WORTHY_PARAMS, &params[0]);
}

/// Adds `coefficient` times the L2 loss, sum(w^2)/2, of each variable to the objectives, in the scope `name`.
///
/// # Errors
/// What building the operations reports.
pub fn apply_weight_decay(var_list: &[Variable], coefficient: f32, name: &str) -> Result<()> {
    let _scope = variable_scope(name)?;
    for param in var_list {
        let norm = (coefficient * nn::l2_loss(param).build()?)?;
        summary::scalar(&format!("l2_{}", param.name()), &norm).build()?;
        add_to_collection(OBJECTIVES, &norm);
    }
    Ok(())
}

/// Adds `coefficient` times the L1 norm, sum(|w|), of each variable to the objectives, in the scope `name`.
///
/// # Errors
/// What building the operations reports.
pub fn apply_l1(var_list: &[Variable], coefficient: f32, name: &str) -> Result<()> {
    let _scope = variable_scope(name)?;
    for param in var_list {
        let magnitudes = math::abs(param).name("abs").build()?;
        let norm = (coefficient * math::reduce_sum(magnitudes).name("l1").build()?)?;
        summary::scalar(&format!("l1_{}", param.name()), &norm).build()?;
        add_to_collection(OBJECTIVES, &norm);
    }
    Ok(())
}

/// Applies both regularizers.
///
/// # Errors
/// What building the operations reports.
pub fn apply_regularizer(var_list: &[Variable], definitions: &Definitions) -> Result<()> {
    apply_weight_decay(var_list, definitions.weight_decay_coeff, "weight-decay")?;
    apply_l1(var_list, definitions.l1_coeff, "l1-regularization")
}

/// One step of Adam on `var_list` towards a smaller `obj`.
///
/// # Errors
/// What building the operations reports.
pub fn apply_adam(var_list: &[Variable], obj: &Tensor, learning_rate: impl IntoOperand) -> Result<Operation> {
    Ok(adam(learning_rate).minimize(obj, var_list)?)
}

fn adam(learning_rate: impl IntoOperand) -> AdamOptimizer {
    AdamOptimizer::new(learning_rate).name("adam")
}

/// One step of RMSProp with momentum on `var_list` towards a smaller `obj`.
///
/// # Errors
/// What building the operations reports.
pub fn apply_rmsprop(
    var_list: &[Variable],
    obj: &Tensor,
    learning_rate: impl IntoOperand,
    decay: f32,
    momentum: f32,
) -> Result<Operation> {
    Ok(rmsprop(learning_rate, decay, momentum).minimize(obj, var_list)?)
}

fn rmsprop(learning_rate: impl IntoOperand, decay: f32, momentum: f32) -> RmsPropOptimizer {
    let optimizer = RmsPropOptimizer::new(learning_rate).decay(decay).momentum(momentum);
    optimizer.name("rmsprop")
}

/// One step of gradient descent on `var_list` towards a smaller `obj`.
///
/// # Errors
/// What building the operations reports.
pub fn apply_gradient_descent(
    var_list: &[Variable],
    obj: &Tensor,
    learning_rate: impl IntoOperand,
) -> Result<Operation> {
    Ok(gradient_descent(learning_rate).minimize(obj, var_list)?)
}

fn gradient_descent(learning_rate: impl IntoOperand) -> GradientDescentOptimizer {
    GradientDescentOptimizer::new(learning_rate).name("gradient_descent")
}

/// One step of `optimizer` on `var_list` towards a smaller `obj`, which is multiplied by a dynamic loss scale before
/// gradients are taken: in `f16` they might vanish. A step whose gradients are not all finite is left out.
///
/// # Errors
/// What building the operations reports.
pub fn apply_with_loss_scale(var_list: &[Variable], obj: &Tensor, optimizer: Box<dyn Optimizer>) -> Result<Operation> {
    let optimizer = MixedPrecisionLossScaleOptimizer::of(optimizer, "dynamic".into_loss_scale()?);
    Ok(optimizer.minimize(obj, var_list)?)
}

/// LeNet-5 for square images: two convolution layers, two dot-product layers and a softmax layer, with pooling and
/// normalization behind the convolutions and dropout before each dot-product layer.
#[derive(Debug, Clone)]
pub struct Lenet5 {
    definitions: Definitions,
    /// The placeholder of the images: `float` [batch, pixels].
    pub images: Tensor,
    /// The placeholder of the probability to keep an activity: `float`, a scalar. Feed 1 to test.
    pub dropout_prob: Tensor,
    /// The output before the softmax: `float` [batch, classes].
    pub logits: Tensor,
    /// The probabilities of the classes: `float` [batch, classes].
    pub inference: Tensor,
    /// The most probable class: `int64` [batch].
    pub predictions: Tensor,
    training: Option<Training>,
}

/// What [`Lenet5::cook`] adds.
#[derive(Debug, Clone)]
pub struct Training {
    /// The placeholder of the labels: `float` [batch, classes], one-hot.
    pub labels: Tensor,
    /// The cross-entropy of the batch, a scalar.
    pub cost: Tensor,
    /// What is minimized: the cost and all regularizers, a scalar.
    pub obj: Tensor,
    /// The operation of one training step.
    pub back_prop: Operation,
    /// The share of the batch that is predicted right, a scalar.
    pub accuracy: Tensor,
}

impl Lenet5 {
    /// The network for the placeholder `images`, with the tutorial's definitions.
    ///
    /// # Errors
    /// What building the operations reports.
    pub fn new(images: &Tensor) -> Result<Self> {
        Self::with_definitions(images, Definitions::default())
    }

    /// The network for the placeholder `images`.
    ///
    /// # Errors
    /// Definitions of which no network can be made, or what building the operations reports.
    pub fn with_definitions(images: &Tensor, definitions: Definitions) -> Result<Self> {
        definitions.validate()?;
        let images_square = unflatten_layer(images, 1, "unflatten")?;
        visualize_images(&images_square, "images", SHOWN_IMAGES, Layout::Single)?;

        let (conv1_out, params) = conv_2d_layer(&images_square)
            .neurons(definitions.c1)
            .filter_size(definitions.f1)
            .name("conv_1")
            .visualize(true)
            .build()?;
        process_params(&params);
        let pool1_out = max_pool_2d_layer(&conv1_out).name("pool_1").build()?;
        let lrn1_out = local_response_normalization_layer(&pool1_out, "lrn_1")?;

        let (conv2_out, params) = conv_2d_layer(&lrn1_out)
            .neurons(definitions.c2)
            .filter_size(definitions.f2)
            .name("conv_2")
            .build()?;
        process_params(&params);
        let pool2_out = max_pool_2d_layer(&conv2_out).name("pool_2").build()?;
        let lrn2_out = local_response_normalization_layer(&pool2_out, "lrn_2")?;

        let flattened = flatten_layer(&lrn2_out, "flatten")?;
        let dropout_prob = array::placeholder::<f32>(graph_core::PartialShape::unknown())
            .name("dropout_probability")
            .build()?;

        let flattened_dropout = dropout_layer(&flattened, &dropout_prob, "dropout_1")?;
        let (fc1_out, params) = dot_product_layer(&flattened_dropout)
            .neurons(definitions.d1)
            .name("dot_1")
            .build()?;
        process_params(&params);
        let fc1_out_dropout = dropout_layer(&fc1_out, &dropout_prob, "dropout_2")?;
        let (fc2_out, params) = dot_product_layer(&fc1_out_dropout)
            .neurons(definitions.d2)
            .name("dot_2")
            .build()?;
        process_params(&params);
        let fc2_out_dropout = dropout_layer(&fc2_out, &dropout_prob, "dropout_3")?;

        let (logits, params) = dot_product_layer(&fc2_out_dropout)
            .neurons(definitions.c)
            .activation(Activation::Identity)
            .name("logits_layer")
            .build()?;
        process_params(&params);
        let (inference, predictions) = softmax_layer(&logits, "softmax_layer")?;
        Ok(Self {
            definitions,
            images: images.clone(),
            dropout_prob,
            logits,
            inference,
            predictions,
            training: None,
        })
    }

    /// The values that the network was made with.
    pub fn definitions(&self) -> &Definitions {
        &self.definitions
    }

    /// The graph of the network.
    pub fn graph(&self) -> &Graph {
        self.images.graph()
    }

    /// Prepares the network for training towards the placeholder `labels`: cost, regularizers, optimizer, accuracy and
    /// confusion matrix.
    ///
    /// # Errors
    /// What building the operations reports.
    pub fn cook(&mut self, labels: &Tensor) -> Result<&Training> {
        let (cost, obj) = self.objective(labels)?;
        let back_prop = {
            let _scope = variable_scope("train")?;
            self.optimizer(&obj)?
        };
        let accuracy = self.test(labels)?;
        Ok(self.training.insert(Training {
            labels: labels.clone(),
            cost,
            obj,
            back_prop,
            accuracy,
        }))
    }

    /// What [`Lenet5::cook`] added.
    ///
    /// # Errors
    /// If the network is not cooked yet.
    pub fn training(&self) -> Result<&Training> {
        Ok(self.training.as_ref().ok_or_else(|| {
            graph_core::Error::failed_precondition("the network is not prepared for training")
                .hint("call Lenet5::cook first")
        })?)
    }

    fn objective(&self, labels: &Tensor) -> Result<(Tensor, Tensor)> {
        let _scope = variable_scope("objective")?;
        let cost = {
            let _scope = variable_scope("cross-entropy")?;
            let losses = nn::softmax_cross_entropy_with_logits(labels, &self.logits).build()?;
            let cost = math::reduce_mean(losses).build()?;
            summary::scalar("cost", &cost).build()?;
            add_to_collection(OBJECTIVES, &cost);
            cost
        };
        apply_regularizer(
            &get_collection::<Variable>(REGULARIZER_WORTHY_PARAMS)?,
            &self.definitions,
        )?;
        let obj = math::add_n(get_collection::<Tensor>(OBJECTIVES)?)
            .name("objective")
            .build()?;
        summary::scalar("obj", &obj).build()?;
        Ok((cost, obj))
    }

    fn optimizer(&self, obj: &Tensor) -> Result<Operation> {
        let definitions = &self.definitions;
        let var_list = get_collection::<Variable>(TRAINABLE_PARAMS)?;
        if definitions.mixed_precision == Some(MixedPrecision::Half) {
            let optimizer: Box<dyn Optimizer> = match definitions.optimizer {
                OptimizerName::Adam => Box::new(adam(definitions.lr)),
                OptimizerName::RmsProp => Box::new(rmsprop(definitions.lr, definitions.decay, definitions.momentum)),
                OptimizerName::Sgd => Box::new(gradient_descent(definitions.lr)),
            };
            return apply_with_loss_scale(&var_list, obj, optimizer);
        }
        match definitions.optimizer {
            OptimizerName::Adam => apply_adam(&var_list, obj, definitions.lr),
            OptimizerName::RmsProp => {
                apply_rmsprop(&var_list, obj, definitions.lr, definitions.decay, definitions.momentum)
            }
            OptimizerName::Sgd => apply_gradient_descent(&var_list, obj, definitions.lr),
        }
    }

    fn test(&self, labels: &Tensor) -> Result<Tensor> {
        let _scope = variable_scope("test")?;
        let label_classes = math::argmax(labels, 1).build()?;
        let correct = math::equal(&self.predictions, label_classes)
            .name("correct_predictions")
            .build()?;
        let flags = math::cast(correct, graph_core::DType::Float32).build()?;
        let accuracy = math::reduce_mean(flags).name("accuracy").build()?;
        summary::scalar("accuracy", &accuracy).build()?;
        {
            let _scope = name_scope("confusion")?;
            let label_classes = math::argmax(labels, 1).build()?;
            let classes = self.definitions.c as i32;
            let confusion = math::confusion_matrix(label_classes, &self.predictions)
                .num_classes(classes)
                .name("confusion")
                .build()?;
            let confusion = math::cast(confusion, graph_core::DType::Float32).build()?;
            let picture = array::reshape(confusion, [1, classes, classes, 1]).build()?;
            summary::image("confusion", picture).build()?;
        }
        Ok(accuracy)
    }
}
