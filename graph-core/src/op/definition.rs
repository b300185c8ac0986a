//! Op definitions, written in TensorFlow's own notation.
//!
//! ```
//! use graph_core::op::OpDefinition;
//! let matmul = OpDefinition::new("MatMul", "Matrix product.")
//!     .input("a: T")
//!     .input("b: T")
//!     .output("product: T")
//!     .attr("transpose_a: bool = false")
//!     .attr("transpose_b: bool = false")
//!     .attr("T: {bfloat16, half, float, double, int32, int64}");
//! assert_eq!(matmul.inputs.len(), 2);
//! ```

use crate::dtype::DType;
use crate::error::Result;
use crate::gradients::GradientContext;
use crate::graph::Tensor;
use crate::op::attr::AttrValue;
use crate::op::kernel::KernelDefinition;
use crate::op::shape_inference::InferenceContext;
use crate::shape::PartialShape;

/// Computes what can be known of an op's output shapes, and checks its inputs.
pub type ShapeFunction = fn(&mut InferenceContext<'_>) -> Result<()>;

/// Builds the gradients of an op's inputs; one entry an input, `None` where there is none.
pub type GradientFunction = fn(&mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>>;

/// What an output (its slot is the second argument) says about a *shape* whose dimensions are its elements, when its value is not known as a whole.
pub type ValueAsShapeFunction = fn(&InferenceContext<'_>, usize) -> Option<PartialShape>;

/// How gradients flow through an op.
#[derive(Clone, Copy, Default)]
pub enum GradientRule {
    /// Through this function.
    Function(GradientFunction),
    /// Not at all, by nature: TensorFlow's `NotDifferentiable`.
    NotDifferentiable,
    /// None is defined, as for most of these in TensorFlow: asking is an error.
    Undefined,
    /// The definition does not say, which no definition should.
    #[default]
    Unsaid,
}

/// Ops that the executor itself must know, for values that may be dead.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ControlFlow {
    /// An ordinary op: dead if any of its inputs, data or control, is.
    #[default]
    None,
    /// Forwards its first input to output 1 if the second is true, else to output 0; the other output is dead.
    Switch,
    /// Forwards the one of its inputs that is alive, and says which.
    Merge,
    /// Enters a loop's frame.
    Enter,
    /// Leaves a loop's frame.
    Exit,
    /// Carries a value to a loop's next iteration.
    NextIteration,
    /// A loop's condition.
    LoopCond,
}

/// The type of an op's argument.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ArgType {
    /// Always this dtype.
    Fixed(DType),
    /// The dtype that this attribute says.
    Attr(&'static str),
    /// Several tensors with the dtypes that this `list(type)` attribute says.
    List(&'static str),
}

/// An input or output of an op.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ArgDef {
    /// Its name.
    pub name: &'static str,
    /// Its dtype or dtypes.
    pub ty: ArgType,
    /// For a list of tensors of one dtype: the attribute that says how many.
    pub number: Option<&'static str>,
    /// Whether it is a reference to a variable.
    pub is_ref: bool,
}

impl ArgDef {
    /// Whether the argument stands for a list of tensors.
    pub fn is_list(&self) -> bool {
        self.number.is_some() || matches!(self.ty, ArgType::List(_))
    }
}

/// The type of an attribute.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum AttrType {
    String,
    Int,
    Float,
    Bool,
    Type,
    Shape,
    Tensor,
    Func,
    List(&'static AttrType),
}

impl AttrType {
    /// In the words of an op definition: `int`, `list(type)`, ...
    pub fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Int => "int",
            Self::Float => "float",
            Self::Bool => "bool",
            Self::Type => "type",
            Self::Shape => "shape",
            Self::Tensor => "tensor",
            Self::Func => "func",
            Self::List(Self::String) => "list(string)",
            Self::List(Self::Int) => "list(int)",
            Self::List(Self::Float) => "list(float)",
            Self::List(Self::Bool) => "list(bool)",
            Self::List(Self::Type) => "list(type)",
            Self::List(Self::Shape) => "list(shape)",
            Self::List(Self::Tensor) => "list(tensor)",
            Self::List(_) => "list(func)",
        }
    }

    fn parse(text: &'static str) -> Option<AttrType> {
        const LISTS: [AttrType; 8] = [
            AttrType::String,
            AttrType::Int,
            AttrType::Float,
            AttrType::Bool,
            AttrType::Type,
            AttrType::Shape,
            AttrType::Tensor,
            AttrType::Func,
        ];
        static ELEMENTS: [AttrType; 8] = LISTS;
        if let Some(inner) = text.strip_prefix("list(").and_then(|rest| rest.strip_suffix(')')) {
            return ELEMENTS
                .iter()
                .find(|element| element.name() == inner.trim())
                .map(AttrType::List);
        }
        LISTS.into_iter().find(|ty| ty.name() == text)
    }
}

/// An attribute of an op.
#[derive(Clone, Debug)]
pub struct AttrDef {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub ty: AttrType,
    /// Its value where a node does not say.
    pub default: Option<AttrValue>,
    /// The least value of an int, the least length of a list.
    pub minimum: Option<i64>,
    /// For types: those allowed; empty for any.
    pub allowed_types: Vec<DType>,
    /// For strings: those allowed; empty for any.
    pub allowed_strings: Vec<&'static str>,
}

/// Everything that is true of an op: its signature, shape function, gradient and kernels.
pub struct OpDefinition {
    /// The op's type, such as `MatMul`.
    pub name: &'static str,
    /// What it computes, in a sentence or two; with the formula's source where it has one.
    pub summary: &'static str,
    /// The inputs, in order.
    pub inputs: Vec<ArgDef>,
    /// The outputs, in order.
    pub outputs: Vec<ArgDef>,
    /// The attributes, in TensorFlow's order.
    pub attrs: Vec<AttrDef>,
    /// Whether it keeps state or has effects: never folded, never merged with its like.
    pub stateful: bool,
    /// Whether its two inputs may change places.
    pub commutative: bool,
    /// Whether its result may be taken in any grouping of its inputs.
    pub aggregate: bool,
    /// Whether the variable of a reference or handle may be uninitialized.
    pub allows_uninitialized_input: bool,
    /// Whether the variables whose handles it takes are only looked at, not changed.
    pub only_reads: bool,
    /// What the executor must know of it.
    pub control_flow: ControlFlow,
    /// Whether running it can fail on data (a failed assertion, a division by zero): a control edge to it is kept.
    pub may_fail: bool,
    /// Whether all that can make it fail is found while its kernel is made, from its plan-time inputs and shapes.
    pub fails_early: bool,
    /// The inputs (indices of arguments) whose *values* kernels must know when they are made: axes, shapes, permutations.
    pub plan_time_inputs: Vec<usize>,
    /// Its shape function.
    pub shape: ShapeFunction,
    /// What its outputs say as shapes.
    pub value_as_shape: Option<ValueAsShapeFunction>,
    /// Its gradient.
    pub gradient: GradientRule,
    /// Its kernels, by device and dtype.
    pub kernels: Vec<KernelDefinition>,
}

impl OpDefinition {
    /// Begins the definition of an op without inputs, outputs or attributes, and with outputs of unknown shape.
    pub fn new(name: &'static str, summary: &'static str) -> Self {
        Self {
            name,
            summary,
            inputs: Vec::new(),
            outputs: Vec::new(),
            attrs: Vec::new(),
            stateful: false,
            commutative: false,
            aggregate: false,
            allows_uninitialized_input: false,
            only_reads: false,
            control_flow: ControlFlow::None,
            may_fail: false,
            fails_early: false,
            plan_time_inputs: Vec::new(),
            shape: InferenceContext::unknown_shapes,
            value_as_shape: None,
            gradient: GradientRule::Unsaid,
            kernels: Vec::new(),
        }
    }

    /// Adds an input: `"a: T"`, `"values: N * T"`, `"ref: Ref(T)"`, `"shape: int32"`.
    ///
    /// # Panics
    /// If the text is not in the notation; definitions are part of the program.
    pub fn input(mut self, spec: &'static str) -> Self {
        let arg = parse_arg(self.name, spec);
        self.inputs.push(self.resolved(arg));
        self
    }

    /// Adds an output, in the notation of [`OpDefinition::input`].
    ///
    /// # Panics
    /// If the text is not in the notation.
    pub fn output(mut self, spec: &'static str) -> Self {
        let arg = parse_arg(self.name, spec);
        self.outputs.push(self.resolved(arg));
        self
    }

    /// Adds an attribute: `"T: {float, double}"`, `"N: int >= 1"`, `"padding: {'SAME', 'VALID'}"`, `"axis: int = 0"`.
    ///
    /// # Panics
    /// If the text is not in the notation.
    pub fn attr(mut self, spec: &'static str) -> Self {
        let attr = parse_attr(spec)
            .unwrap_or_else(|| panic!("op {}: '{spec}' is not the definition of an attribute", self.name));
        let is_list = attr.ty == AttrType::List(&AttrType::Type);
        for arg in self.inputs.iter_mut().chain(&mut self.outputs) {
            if is_list && arg.ty == ArgType::Attr(attr.name) {
                arg.ty = ArgType::List(attr.name);
            }
        }
        self.attrs.push(attr);
        self
    }

    /// The argument, which is a list where the attribute that says its type is a list of types.
    fn resolved(&self, mut arg: ArgDef) -> ArgDef {
        if let ArgType::Attr(name) = arg.ty
            && self
                .attr_def(name)
                .is_some_and(|attr| attr.ty == AttrType::List(&AttrType::Type))
        {
            arg.ty = ArgType::List(name);
        }
        arg
    }

    /// Marks the op as stateful.
    pub fn stateful(mut self) -> Self {
        self.stateful = true;
        self
    }

    /// Marks the op as commutative.
    pub fn commutative(mut self) -> Self {
        self.commutative = true;
        self
    }

    /// Marks the op as an aggregate, as `AddN` is.
    pub fn aggregate(mut self) -> Self {
        self.aggregate = true;
        self
    }

    /// Lets the variable of a reference or handle be uninitialized.
    pub fn allows_uninitialized_input(mut self) -> Self {
        self.allows_uninitialized_input = true;
        self
    }

    /// Says that the op only looks at the variables whose handles it takes.
    pub fn only_reads(mut self) -> Self {
        self.only_reads = true;
        self
    }

    /// Says that running the op can fail on data.
    pub fn may_fail(mut self) -> Self {
        self.may_fail = true;
        self
    }

    /// Says that the op can fail on its plan-time inputs and on nothing else.
    pub fn may_fail_early(mut self) -> Self {
        (self.may_fail, self.fails_early) = (true, true);
        self
    }

    /// Says what the executor must know of the op.
    pub fn control_flow(mut self, control_flow: ControlFlow) -> Self {
        self.control_flow = control_flow;
        self
    }

    /// Says which inputs' values kernels need when they are made.
    pub fn plan_time_inputs(mut self, inputs: &[usize]) -> Self {
        self.plan_time_inputs = inputs.to_vec();
        self
    }

    /// Sets the shape function.
    pub fn shape(mut self, shape: ShapeFunction) -> Self {
        self.shape = shape;
        self
    }

    /// Sets what the outputs say as shapes.
    pub fn value_as_shape(mut self, function: ValueAsShapeFunction) -> Self {
        self.value_as_shape = Some(function);
        self
    }

    /// Sets the gradient.
    pub fn gradient(mut self, gradient: GradientFunction) -> Self {
        self.gradient = GradientRule::Function(gradient);
        self
    }

    /// Says that no gradient flows through the op.
    pub fn not_differentiable(mut self) -> Self {
        self.gradient = GradientRule::NotDifferentiable;
        self
    }

    /// Says that no gradient is defined for the op, so that asking for one is an error.
    pub fn no_gradient(mut self) -> Self {
        self.gradient = GradientRule::Undefined;
        self
    }

    /// Adds a kernel.
    pub fn kernel(mut self, kernel: KernelDefinition) -> Self {
        self.kernels.push(kernel);
        self
    }

    /// The attribute `name`.
    pub fn attr_def(&self, name: &str) -> Option<&AttrDef> {
        self.attrs.iter().find(|attr| attr.name == name)
    }
}

fn parse_arg(op: &str, spec: &'static str) -> ArgDef {
    let parse = || {
        let (name, mut ty) = spec.split_once(':')?;
        ty = ty.trim();
        let mut number = None;
        if let Some((count, element)) = ty.split_once('*') {
            (number, ty) = (Some(count.trim()), element.trim());
        }
        let mut is_ref = false;
        if let Some(inner) = ty.strip_prefix("Ref(").and_then(|rest| rest.strip_suffix(')')) {
            (is_ref, ty) = (true, inner.trim());
        }
        let ty = match DType::from_name(ty) {
            Some(dtype) if ty == dtype.name() => ArgType::Fixed(dtype),
            _ => ArgType::Attr(ty),
        };
        Some(ArgDef {
            name: name.trim(),
            ty,
            number,
            is_ref,
        })
    };
    parse().unwrap_or_else(|| panic!("op {op}: '{spec}' is not the definition of an argument"))
}

fn parse_attr(spec: &'static str) -> Option<AttrDef> {
    let (name, rest) = spec.split_once(':')?;
    let (ty, default) = match rest.rsplit_once('=') {
        // Not the sign of a minimum, `int >= 1`.
        Some((ty, default)) if !ty.ends_with('>') => (ty.trim(), Some(default.trim())),
        _ => (rest.trim(), None),
    };
    let (ty, minimum) = match ty.split_once(">=") {
        Some((ty, minimum)) => (ty.trim(), Some(minimum.trim().parse().ok()?)),
        None => (ty, None),
    };
    let mut attr = AttrDef {
        name: name.trim(),
        ty: AttrType::Type,
        default: None,
        minimum,
        allowed_types: Vec::new(),
        allowed_strings: Vec::new(),
    };
    let (inner, list) = match ty.strip_prefix("list(").and_then(|rest| rest.strip_suffix(')')) {
        Some(inner) => (inner.trim(), true),
        None => (ty, false),
    };
    let element = match inner.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        Some(options) if options.trim_start().starts_with('\'') => {
            attr.allowed_strings = options
                .split(',')
                .map(|option| option.trim().trim_matches('\''))
                .collect();
            AttrType::String
        }
        Some(options) => {
            for option in options.split(',') {
                attr.allowed_types.extend(type_set(option.trim())?);
            }
            AttrType::Type
        }
        None if matches!(inner, "numbertype" | "realnumbertype") => {
            attr.allowed_types = type_set(inner)?;
            AttrType::Type
        }
        None => AttrType::parse(inner)?,
    };
    attr.ty = if list {
        AttrType::parse(list_name(element)?)?
    } else {
        element
    };
    attr.default = match default {
        Some(text) => Some(parse_default(text, attr.ty)?),
        None => None,
    };
    Some(attr)
}

/// The dtypes that a name in a set of types stands for.
fn type_set(name: &str) -> Option<Vec<DType>> {
    Some(match name {
        "numbertype" => DType::NUMBERS.to_vec(),
        "realnumbertype" => DType::REAL_NUMBERS.to_vec(),
        _ => vec![DType::from_name(name)?],
    })
}

fn list_name(element: AttrType) -> Option<&'static str> {
    [
        "list(string)",
        "list(int)",
        "list(float)",
        "list(bool)",
        "list(type)",
        "list(shape)",
        "list(tensor)",
        "list(func)",
    ]
    .into_iter()
    .find(|name| &name[5..name.len() - 1] == element.name())
}

fn parse_default(text: &'static str, ty: AttrType) -> Option<AttrValue> {
    let elements = |text: &'static str| {
        let inner = text.strip_prefix('[')?.strip_suffix(']')?.trim();
        Some(if inner.is_empty() {
            Vec::new()
        } else {
            inner.split(',').map(str::trim).collect::<Vec<_>>()
        })
    };
    Some(match ty {
        AttrType::String => AttrValue::String(text.trim_matches('\'').as_bytes().to_vec()),
        AttrType::Int => AttrValue::Int(text.parse().ok()?),
        AttrType::Float => AttrValue::Float(text.parse().ok()?),
        AttrType::Bool => AttrValue::Bool(text.parse().ok()?),
        AttrType::Type => AttrValue::Type(DType::from_name(text)?),
        AttrType::Shape if text == "unknown" => AttrValue::Shape(PartialShape::unknown()),
        AttrType::Shape => AttrValue::Shape(PartialShape::from_dims(
            elements(text)?
                .into_iter()
                .map(|dim| dim.parse().ok().map(Some))
                .collect::<Option<Vec<_>>>()?,
        )),
        AttrType::List(AttrType::String) => AttrValue::StringList(
            elements(text)?
                .into_iter()
                .map(|element| element.trim_matches('\'').as_bytes().to_vec())
                .collect(),
        ),
        AttrType::List(AttrType::Int) => AttrValue::IntList(
            elements(text)?
                .into_iter()
                .map(|element| element.parse().ok())
                .collect::<Option<_>>()?,
        ),
        AttrType::List(AttrType::Float) => AttrValue::FloatList(
            elements(text)?
                .into_iter()
                .map(|element| element.parse().ok())
                .collect::<Option<_>>()?,
        ),
        AttrType::List(AttrType::Bool) => AttrValue::BoolList(
            elements(text)?
                .into_iter()
                .map(|element| element.parse().ok())
                .collect::<Option<_>>()?,
        ),
        AttrType::List(AttrType::Type) => AttrValue::TypeList(
            elements(text)?
                .into_iter()
                .map(DType::from_name)
                .collect::<Option<_>>()?,
        ),
        AttrType::List(AttrType::Shape) if elements(text)?.is_empty() => AttrValue::ShapeList(Vec::new()),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_notation_of_attributes() {
        let attr = parse_attr("N: int >= 1").unwrap();
        assert_eq!((attr.name, attr.ty, attr.minimum), ("N", AttrType::Int, Some(1)));
        let attr = parse_attr("index: int >= 0 = 2").unwrap();
        assert_eq!((attr.minimum, attr.default), (Some(0), Some(AttrValue::Int(2))));
        let attr = parse_attr("padding: {'SAME', 'VALID'}").unwrap();
        assert_eq!(
            (attr.ty, attr.allowed_strings.as_slice()),
            (AttrType::String, &["SAME", "VALID"][..])
        );
        let attr = parse_attr("T: {float, half} = DT_FLOAT").unwrap();
        assert_eq!(attr.allowed_types, [DType::Float32, DType::Half]);
        assert_eq!(attr.default, Some(AttrValue::Type(DType::Float32)));
        let attr = parse_attr("ksize: list(int) >= 4").unwrap();
        assert_eq!((attr.ty, attr.minimum), (AttrType::List(&AttrType::Int), Some(4)));
        let attr = parse_attr("dilations: list(int) = [1, 1, 1, 1]").unwrap();
        assert_eq!(attr.default, Some(AttrValue::IntList(vec![1, 1, 1, 1])));
        let attr = parse_attr("T: list({int32, float})").unwrap();
        assert_eq!(attr.ty, AttrType::List(&AttrType::Type));
        let attr = parse_attr("T: {numbertype, bool} = DT_BOOL").unwrap();
        assert!(attr.allowed_types.contains(&DType::Bool) && attr.allowed_types.contains(&DType::Complex64));
        assert!(parse_attr("nonsense").is_none());
    }

    #[test]
    fn the_notation_of_arguments() {
        let arg = parse_arg("Test", "values: N * T");
        assert_eq!((arg.number, arg.ty, arg.is_ref), (Some("N"), ArgType::Attr("T"), false));
        let arg = parse_arg("Test", "ref: Ref(T)");
        assert!(arg.is_ref);
        assert_eq!(parse_arg("Test", "shape: int32").ty, ArgType::Fixed(DType::Int32));
    }
}
