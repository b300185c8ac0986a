//! Dropout: Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov, "Dropout: A Simple Way to Prevent Neural Networks
//! from Overfitting" (2014), in the form that scales while it trains.

use graph_core::graph::{IntoOperand, Operand, Tensor};
use graph_core::{DType, Error, Result, Value};

use crate::composite::Composite;
use crate::random::random_uniform;

/// Dropout about to be made; see [`dropout`].
#[must_use = "an operation is made by `build`"]
pub struct Dropout {
    x: Operand,
    keep_prob: Operand,
    noise_shape: Option<Operand>,
    seed: Option<i64>,
    name: String,
    site: Composite,
}

/// `x` (floating-point, of any shape) with each element kept with probability `keep_prob` and then divided by it, else 0,
/// so that the sum is expected to stay the same.
///
/// `keep_prob` is a number in (0, 1], with 1 for `x` as it is, or a scalar tensor of `x`'s dtype, so that the same graph
/// trains with dropout and is tested without.
///
/// ```
/// # fn main() -> graph_core::Result<()> {
/// use graph_ops::{array::constant, nn::dropout};
/// let x = constant([[1.0f32, 2.0], [3.0, 4.0]]).build()?;
/// assert_eq!(dropout(&x, 1.0).build()?, x);
/// assert!(dropout(&x, 0.0).build().is_err());
/// # Ok(())
/// # }
/// ```
#[track_caller]
pub fn dropout(x: impl IntoOperand, keep_prob: impl IntoOperand) -> Dropout {
    let (x, keep_prob) = (x.into_operand(), keep_prob.into_operand());
    let site = Composite::of(&[&x, &keep_prob]);
    Dropout {
        x,
        keep_prob,
        noise_shape: None,
        seed: None,
        name: "dropout".to_owned(),
        site,
    }
}

impl Dropout {
    /// The shape of the random choices, broadcast to `x`: a 1 makes all along that dimension stay or go together.
    pub fn noise_shape(mut self, shape: impl IntoOperand) -> Self {
        self.noise_shape = Some(shape.into_operand());
        self
    }

    /// The op's own seed.
    pub fn seed(mut self, seed: i64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Names the scope.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Makes the operations.
    ///
    /// # Errors
    /// The operands' own, and `InvalidArgument` if `x` is not floating-point, or `keep_prob` a number outside (0, 1], no
    /// scalar or of another dtype.
    pub fn build(self) -> Result<Tensor> {
        let site = &self.site;
        let rate = match &self.keep_prob {
            Operand::Number(number) => Rate::of_number(number)?,
            tensor => {
                let keep = site.tensor(tensor, None, "keep_prob")?;
                let one = number_like(1.0, keep.dtype())?;
                Rate::Tensor(site.binary("Sub", one, &keep, "sub")?)
            }
        };
        let scope = site.scope(&self.name)?;
        let x = site.tensor(&self.x, None, "x")?;
        let dtype = x.dtype();
        if !dtype.is_floating() {
            return Err(Error::invalid_argument("only floating-point tensors can be scaled").got(format!("{x:?}")));
        }
        let rate = match rate {
            Rate::Number(0.0) => return Ok(x),
            Rate::Number(rate) => site.constant(number_like(rate, dtype)?, "rate")?,
            Rate::Tensor(rate) => rate,
        };
        if rate.dtype() != dtype || rate.shape().rank().is_some_and(|rank| rank != 0) {
            return Err(Error::invalid_argument("the probability must be a scalar of x's dtype")
                .expected(dtype)
                .got(format!("{rate:?}")));
        }
        let noise_shape = match &self.noise_shape {
            Some(shape) => site.shape(shape, "noise_shape")?,
            None => shape_of(site, &x)?,
        };
        let random = random_uniform(&noise_shape).dtype(dtype);
        let random = match self.seed {
            Some(seed) => random.seed(seed),
            None => random,
        }
        .build()?;
        let keep = site.binary("Sub", number_like(1.0, dtype)?, &rate, "sub")?;
        let scale = site.binary("RealDiv", number_like(1.0, dtype)?, &keep, "truediv")?;
        let mask = site.binary("GreaterEqual", &random, &rate, "GreaterEqual")?;
        let scaled = site.binary("Mul", &x, &scale, "mul")?;
        let mask = site.node("Cast").input(&mask).attr("DstT", dtype).build()?;
        let kept = site.binary("Mul", &scaled, &mask, "mul")?;
        kept.set_shape(x.shape())?;
        drop(scope);
        Ok(kept)
    }
}

impl IntoOperand for Dropout {
    fn into_operand(self) -> Operand {
        self.build().into_operand()
    }
}

/// The probability that an element is dropped.
enum Rate {
    Number(f64),
    Tensor(Tensor),
}

impl Rate {
    fn of_number(keep: &Value) -> Result<Self> {
        let keep = keep.cast_exactly(DType::Float64)?.to_scalar::<f64>()?;
        if keep > 0.0 && keep <= 1.0 {
            return Ok(Self::Number(1.0 - keep));
        }
        Err(Error::invalid_argument("`keep_prob`, the probability to keep an element, must be in (0, 1]").got(keep))
    }
}

/// A number as a scalar of a floating-point dtype.
fn number_like(number: f64, dtype: DType) -> Result<Value> {
    Value::scalar(number).cast_exactly(dtype)
}

/// The shape of a tensor as a value: a constant where it is known.
fn shape_of(site: &Composite, x: &Tensor) -> Result<Tensor> {
    match x.shape().to_shape() {
        Some(shape) => site.constant(Value::int32_vector(shape.iter().map(|&dim| dim as i32)), "Shape"),
        None => site.node("Shape").input(x).build(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::constant;
    use crate::testing::listing;
    use graph_core::PartialShape;
    use graph_core::feed;
    use graph_core::graph::{Graph, scope};
    use graph_core::session::Session;

    fn placeholder(name: &str, shape: PartialShape) -> Tensor {
        let node = crate::op("Placeholder")
            .attr("dtype", DType::Float32)
            .attr("shape", shape);
        node.name(name).build().unwrap()
    }

    #[test]
    fn the_nodes_are_tensorflows() {
        let graph = Graph::new();
        graph.set_random_seed(1);
        let _default = graph.as_default();
        let x = placeholder("x", PartialShape::unknown_of_rank(2));
        let keep = placeholder("keep", PartialShape::scalar());
        let _scope = scope::name_scope("d").unwrap();
        let y = dropout(&x, &keep).build().unwrap();
        assert_eq!(y.name(), "d/dropout/mul_1:0");
        let expected = [
            "Const d/sub/x <- ",
            "Sub d/sub <- d/sub/x, keep",
            "Shape d/dropout/Shape <- x",
            "Const d/dropout/random_uniform/min <- ",
            "Const d/dropout/random_uniform/max <- ",
            "RandomUniform d/dropout/random_uniform/RandomUniform <- d/dropout/Shape",
            "Sub d/dropout/random_uniform/sub <- d/dropout/random_uniform/max, d/dropout/random_uniform/min",
            "Mul d/dropout/random_uniform/mul <- d/dropout/random_uniform/RandomUniform, d/dropout/random_uniform/sub",
            "Add d/dropout/random_uniform <- d/dropout/random_uniform/mul, d/dropout/random_uniform/min",
            "Const d/dropout/sub/x <- ",
            "Sub d/dropout/sub <- d/dropout/sub/x, d/sub",
            "Const d/dropout/truediv/x <- ",
            "RealDiv d/dropout/truediv <- d/dropout/truediv/x, d/dropout/sub",
            "GreaterEqual d/dropout/GreaterEqual <- d/dropout/random_uniform, d/sub",
            "Mul d/dropout/mul <- x, d/dropout/truediv",
            "Cast d/dropout/Cast <- d/dropout/GreaterEqual",
            "Mul d/dropout/mul_1 <- d/dropout/mul, d/dropout/Cast",
        ];
        assert_eq!(listing(&graph)[2..], expected);
        let random = graph.operation("d/dropout/random_uniform/RandomUniform").unwrap();
        let seeds = (
            random.attr::<i64>("seed").unwrap(),
            random.attr::<i64>("seed2").unwrap(),
        );
        assert_eq!(seeds, (1, 7));
    }

    #[test]
    fn what_is_kept_is_scaled_and_another_mask_comes_with_each_run() {
        let graph = Graph::new();
        let _default = graph.as_default();
        let (x, keep) = (
            placeholder("x", PartialShape::from([1000usize])),
            placeholder("keep", ().into()),
        );
        let y = dropout(&x, &keep).seed(7).build().unwrap();
        let rows = dropout(&x, 0.5).noise_shape([1]).build().unwrap();
        let session = Session::new(&graph).unwrap();
        let ones = vec![1.0f32; 1000];
        let run =
            |keep_is: f32| -> Vec<f32> { session.run(&y, feed! { &x => ones.clone(), &keep => keep_is }).unwrap() };
        let (first, second) = (run(0.5), run(0.5));
        assert!(first.iter().all(|&element| element == 0.0 || element == 2.0));
        let kept = first.iter().filter(|&&element| element != 0.0).count();
        assert!((430..570).contains(&kept), "{kept}");
        assert_ne!(first, second);
        assert_eq!(run(1.0), ones);
        let rows: Vec<f32> = session.run(&rows, feed! { &x => ones.clone() }).unwrap();
        assert!(rows.iter().all(|&element| element == rows[0]));
    }

    #[test]
    fn probabilities_lie_between_0_and_1() {
        let graph = Graph::new();
        let _default = graph.as_default();
        let x = constant([1.0f32, 2.0]).build().unwrap();
        for bad in [0.0, -0.5, 1.5, f64::NAN] {
            assert_eq!(
                dropout(&x, bad).build().unwrap_err().class(),
                "InvalidArgument",
                "{bad}"
            );
        }
        assert_eq!(dropout(&x, 1.0).build().unwrap(), x);
        assert!(dropout([1, 2], 0.5).build().is_err());
        let vector = placeholder("vector", PartialShape::from([2usize]));
        assert!(dropout(&x, &vector).build().is_err());
    }
}
