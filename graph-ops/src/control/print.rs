//! `Print`, `PrintV2` and `StringFormat`: tensors as text, on the program's standard error stream.

use graph_core::graph::{IntoOperand, Operand, Tensor};
use graph_core::op::{
    Attributes, InferenceContext, KernelContext, KernelDefinition, KernelRequest, KernelState, OpDefinition, Planned,
};
use graph_core::{Complex, DType, Error, Result, Value};

use super::summarize::{summarize, summarize_ends};
use crate::composite::Composite;

/// The definition of `Print`.
pub(crate) fn definition() -> OpDefinition {
    OpDefinition::new(
        "Print",
        "Its input, and a line about `data` on the standard error stream.",
    )
    .input("input: T")
    .input("data: U")
    .output("output: T")
    .attr("T: type")
    .attr("U: list(type)")
    .attr("message: string = ''")
    .attr("first_n: int = -1")
    .attr("summarize: int = 3")
    .stateful()
    .shape(|context| {
        context.set_output(0, context.input(0));
        Ok(())
    })
    .gradient(|context| {
        let inputs = context.op().inputs().len();
        let mut gradients = vec![None; inputs];
        gradients[0] = Some(context.gradient(0)?);
        Ok(gradients)
    })
    .kernel(KernelDefinition::cpu(make_print).state(runs))
}

/// How often the operation has run in its session.
fn runs(_attrs: &Attributes) -> Result<Box<dyn KernelState>> {
    Ok(Box::new(0i64))
}

fn make_print(request: &KernelRequest<'_>) -> Result<Planned> {
    let message: String = request.attr("message")?;
    let (first_n, limit): (i64, i64) = (request.attr("first_n")?, request.attr("summarize")?);
    Ok(Planned::new(move |context| {
        copy(context)?;
        let runs = context.state::<i64>()?;
        if first_n >= 0 && *runs >= first_n {
            return Ok(());
        }
        *runs += 1;
        let mut line = message.clone();
        for index in 1..context.num_inputs() {
            line.push_str(&format!("[{}]", summarize(&context.input_value(index)?, limit)));
        }
        eprintln!("{line}");
        Ok(())
    }))
}

/// Input 0 to output 0.
fn copy(context: &mut KernelContext<'_>) -> Result<()> {
    macro_rules! by_dtype {
        ($($dtype:ident $type:ty),*) => {
            match context.input_dtype(0) {
                $(DType::$dtype => context.output::<$type>(0)?.copy_from_slice(context.input::<$type>(0)?),)*
                _ => {
                    let value = context.input_value(0)?;
                    context.set_output(0, value);
                }
            }
        };
    }
    by_dtype!(
        Float32 f32, Float64 f64, Half half::f16, BFloat16 half::bf16, Int8 i8, Int16 i16, Int32 i32, Int64 i64,
        UInt8 u8, UInt16 u16, UInt32 u32, UInt64 u64, Bool bool, Complex64 Complex<f32>, Complex128 Complex<f64>
    );
    Ok(())
}

/// The definition of `PrintV2`.
pub(crate) fn print_v2() -> OpDefinition {
    OpDefinition::new("PrintV2", "Writes a string to the standard error or output stream.")
        .input("input: string")
        .attr("output_stream: string = 'stderr'")
        .attr("end: string = '\n'")
        .stateful()
        .shape(|context| context.with_rank(0, 0).map(drop))
        .not_differentiable()
        .kernel(KernelDefinition::cpu(|request| {
            let (stream, end): (String, String) = (request.attr("output_stream")?, request.attr("end")?);
            let to_stdout = match stream.as_str() {
                "stdout" => true,
                "stderr" | "log(info)" | "log(warning)" | "log(error)" => false,
                _ => {
                    return Err(
                        Error::unimplemented(format!("there is no stream '{stream}' to print to"))
                            .expected("stdout or stderr"),
                    );
                }
            };
            Ok(Planned::new(move |context| {
                for text in context.input_strings(0)? {
                    let text = String::from_utf8_lossy(text);
                    if to_stdout {
                        print!("{text}{end}");
                    } else {
                        eprint!("{text}{end}");
                    }
                }
                Ok(())
            }))
        }))
}

/// The definition of `StringFormat`.
pub(crate) fn string_format() -> OpDefinition {
    OpDefinition::new(
        "StringFormat",
        "A template with each placeholder replaced by the text of the next input.",
    )
    .input("inputs: T")
    .output("output: string")
    .attr("T: list(type)")
    .attr("template: string = '%s'")
    .attr("placeholder: string = '%s'")
    .attr("summarize: int = 3")
    .shape(InferenceContext::scalars)
    .not_differentiable()
    .kernel(KernelDefinition::cpu(|request| {
        let (template, placeholder): (String, String) = (request.attr("template")?, request.attr("placeholder")?);
        let limit: i64 = request.attr("summarize")?;
        let parts: Vec<String> = template.split(&placeholder).map(str::to_owned).collect();
        if parts.len() != request.num_inputs() + 1 {
            return Err(Error::invalid_argument("placeholders and inputs differ in number")
                .expected(request.num_inputs())
                .got(parts.len() - 1));
        }
        Ok(Planned::new(move |context| {
            let mut text = parts[0].clone();
            for (index, part) in parts[1..].iter().enumerate() {
                text.push_str(&summarize_ends(&context.input_value(index)?, limit));
                text.push_str(part);
            }
            context.set_output(0, Value::string(text));
            Ok(())
        }))
    }))
}

/// A `Print` about to be made; see [`print_`].
#[must_use = "an operation is made by `build`"]
pub struct Print {
    input: Operand,
    data: Operand,
    message: String,
    first_n: i64,
    summarize: i64,
    name: String,
    site: Composite,
}

/// `input` as it is; when it is computed, a line with the message and the first elements of each tensor in `data` goes to
/// the standard error stream.
///
/// ```
/// use graph_ops::array::constant;
/// use graph_ops::control::print_;
/// let x = constant([1.0f32, 2.0]).build()?;
/// let shown = print_(&x, [&x]).message("x: ").summarize(10).build()?;
/// assert_eq!(shown.shape(), x.shape());
/// # Ok::<(), graph_core::Error>(())
/// ```
#[track_caller]
pub fn print_(input: impl IntoOperand, data: impl IntoOperand) -> Print {
    let (input, data) = (input.into_operand(), data.into_operand());
    let site = Composite::of(&[&input, &data]);
    Print {
        input,
        data,
        message: String::new(),
        first_n: -1,
        summarize: 3,
        name: "Print".to_owned(),
        site,
    }
}

impl Print {
    /// The beginning of the line.
    pub fn message(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self
    }

    /// Prints only in the first `n` runs of a session; always if negative.
    pub fn first_n(mut self, n: i64) -> Self {
        self.first_n = n;
        self
    }

    /// How many elements of each tensor are shown: 3 without, all if negative.
    pub fn summarize(mut self, elements: i64) -> Self {
        self.summarize = elements;
        self
    }

    /// Names the operation.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Makes the operation.
    ///
    /// # Errors
    /// The operands' own, and `InvalidArgument` if `data` is not a list.
    pub fn build(self) -> Result<Tensor> {
        self.site
            .node("Print")
            .input(self.input)
            .input(self.data)
            .attr("message", self.message)
            .attr("first_n", self.first_n)
            .attr("summarize", self.summarize)
            .name(self.name)
            .build()
    }
}

impl IntoOperand for Print {
    fn into_operand(self) -> Operand {
        self.build().into_operand()
    }
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    let matrix = Value::from((0..20).collect::<Vec<i32>>())
        .reshaped([4, 5])
        .expect("20 elements");
    vec![
        Case::new("Print")
            .input([1.5f32])
            .input(2i32)
            .attr("U", vec![DType::Int32])
            .attr("message", "a line of the test of Print: ")
            .expect([1.5f32]),
        Case::new("Print")
            .input("text")
            .attr("U", Vec::<DType>::new())
            .attr("first_n", 0i64)
            .expect("text"),
        Case::new("PrintV2").input("a line of the test of PrintV2"),
        Case::new("StringFormat")
            .input(matrix)
            .input(2.5f32)
            .attr("template", "a {} b {}.")
            .attr("placeholder", "{}")
            .attr("summarize", 1i64)
            .expect("a [[0 ... 4]\n ...\n [15 ... 19]] b 2.5."),
    ]
}

#[cfg(test)]
pub(crate) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    vec![
        crate::testing::GradientCase::new("Print")
            .attr("U", vec![DType::Float64])
            .attr("first_n", 0i64)
            .input([1.0f64, 2.0])
            .input([3.0f64])
            .with_respect_to(&[0]),
    ]
}

#[cfg(test)]
mod tests {
    use crate::testing::Case;

    #[test]
    fn placeholders_are_counted() {
        let case = Case::new("StringFormat").input(1i32).attr("template", "%s %s");
        assert_eq!(case.run().unwrap_err().class(), "InvalidArgument");
        let case = Case::new("PrintV2").input("x").attr("output_stream", "nowhere");
        assert_eq!(case.run().unwrap_err().class(), "Unimplemented");
    }
}
