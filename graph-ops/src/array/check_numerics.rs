//! `CheckNumerics`: its input, if all of it is finite.

use graph_core::accelerator::{DeviceTensor, StoredTensor};
use graph_core::graph::{IntoOperand, OpBuilder};
use graph_core::op::{InferenceContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Element, Error, Result, Value};
use graph_cuda::{Source, source};

use crate::cuda;
use crate::cuda::launch::{Launch, Work};

const SOURCE: Source = source!("check_numerics.cu");

/// The op's definition.
pub(crate) fn definition() -> OpDefinition {
    OpDefinition::new(
        "CheckNumerics",
        "Its input; an error if there is a NaN or an infinity in it.",
    )
    .input("tensor: T")
    .output("output: T")
    .attr("T: {bfloat16, half, float, double}")
    .attr("message: string")
    .may_fail()
    .shape(InferenceContext::unchanged)
    .gradient(|context| {
        let message: String = context.attr("message")?;
        let text = format!("Not a number (NaN) or infinity (Inf) values detected in gradient. {message}");
        let checked = context
            .node("CheckNumerics")
            .input(context.gradient(0)?)
            .attr("message", text);
        Ok(vec![Some(checked.build()?)])
    })
    .kernel(
        KernelDefinition::cpu(kernel::<f32>)
            .types("T", &[DType::Float32])
            .in_place(0, 0),
    )
    .kernel(
        KernelDefinition::cpu(kernel::<f64>)
            .types("T", &[DType::Float64])
            .in_place(0, 0),
    )
    .kernel(
        KernelDefinition::cpu(kernel::<half::f16>)
            .types("T", &[DType::Half])
            .in_place(0, 0),
    )
    .kernel(
        KernelDefinition::cpu(kernel::<half::bf16>)
            .types("T", &[DType::BFloat16])
            .in_place(0, 0),
    )
    .kernel(
        KernelDefinition::cuda(on_device)
            .types("T", cuda::FLOATS)
            .data_dependent(),
    )
}

/// Looks on the device, and waits for the answer: an error ends the run here.
fn on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let message: String = request.attr("message")?;
    let (dtype, len) = (request.input_dtype(0), request.input_shape(0).num_elements());
    let defines = [("T", cuda::type_name(dtype)?)];
    let look = Launch::new(request, &SOURCE, "look", &defines, Work::Elements(len), &[len])?;
    let look = look.moving(len * dtype.size().unwrap_or(0));
    Ok(Planned::new(move |context| {
        if let Some(accelerator) = context.accelerator().filter(|_| len > 0) {
            let found = DeviceTensor::upload(accelerator, &Value::from([0i32, 0]))?;
            // SAFETY: the kernel takes two numbers, which are those found, and the input's `len` elements.
            unsafe { look.run([found.memory.address(), context.input_address(0)])? };
            let found = found.download()?;
            let found = found.as_slice::<i32>()?;
            if let Some(error) = error(&message, found[0] != 0, found[1] != 0) {
                return Err(error);
            }
        }
        let tensor: StoredTensor = context.stored_input(0)?;
        context.set_stored_output(0, tensor)
    }))
}

/// What there is to say of a tensor that holds NaN or infinite numbers.
fn error(message: &str, nan: bool, infinite: bool) -> Option<Error> {
    let found = match (nan, infinite) {
        (false, false) => return None,
        (true, false) => "NaN",
        (false, true) => "Inf",
        (true, true) => "Inf and NaN",
    };
    Some(Error::invalid_argument(format!(
        "{message} : Tensor had {found} values"
    )))
}

fn kernel<T: Element + num_traits::Float>(request: &KernelRequest<'_>) -> Result<Planned> {
    let message: String = request.attr("message")?;
    let len = request.input_shape(0).num_elements();
    Ok(Planned::new(move |context| {
        let (input, output) = (context.input_ptr::<T>(0)?, context.output_ptr::<T>(0)?);
        let (mut nan, mut infinite) = (false, false);
        for at in 0..len {
            // SAFETY: both hold `len` elements; where they are the same memory, each is read before it is written.
            unsafe {
                let element = *input.add(at);
                nan |= element.is_nan();
                infinite |= element.is_infinite();
                *output.add(at) = element;
            }
        }
        error(&message, nan, infinite).map_or(Ok(()), Err)
    }))
}

/// `tensor`, if all its elements are finite; else the run fails with `InvalidArgument` and `message`.
#[track_caller]
pub fn check_numerics(tensor: impl IntoOperand, message: &str) -> OpBuilder {
    crate::op("CheckNumerics").input(tensor).attr("message", message)
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    use half::{bf16, f16};
    let case = || Case::new("CheckNumerics").attr("message", "here");
    vec![
        case().input([1.0f32, -2.0]).expect([1.0f32, -2.0]),
        case().input([1.0f64]).expect([1.0f64]),
        case().input([f16::ONE]).expect([f16::ONE]),
        case().input([bf16::ONE]).expect([bf16::ONE]),
        case().input(Vec::<f32>::new()).expect(Vec::<f32>::new()),
    ]
}

#[cfg(test)]
pub(crate) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    vec![
        crate::testing::GradientCase::new("CheckNumerics")
            .attr("message", "here")
            .input([1.0f64, -2.0]),
    ]
}

#[cfg(test)]
mod tests {
    use graph_core::session::evaluate::evaluate_node_on;

    use crate::testing::{Case, gpu};

    #[test]
    fn what_is_not_finite_is_named_on_a_device() {
        let device = match gpu() {
            Ok(device) => device,
            Err(error) => return println!("skipped: {error}"),
        };
        for (elements, found) in [
            ([1.0, f32::NAN, 0.0], "NaN"),
            ([1.0, 0.0, f32::NEG_INFINITY], "Inf"),
            ([f32::INFINITY, f32::NAN, 0.0], "Inf and NaN"),
        ] {
            let case = Case::new("CheckNumerics").attr("message", "loss").input(elements);
            let node = case.node().unwrap();
            let error = evaluate_node_on(&node, &case.inputs, &device.accelerator()).unwrap_err();
            assert_eq!(error.class(), "InvalidArgument");
            assert_eq!(error.report().message, format!("loss : Tensor had {found} values"));
        }
    }

    #[test]
    fn what_is_not_finite_is_named() {
        let check = |elements: [f32; 3]| {
            let error = Case::new("CheckNumerics")
                .attr("message", "loss")
                .input(elements)
                .run()
                .unwrap_err();
            error.report().message.clone()
        };
        assert_eq!(check([1.0, f32::NAN, 0.0]), "loss : Tensor had NaN values");
        assert_eq!(check([1.0, f32::NEG_INFINITY, 0.0]), "loss : Tensor had Inf values");
        assert_eq!(
            check([f32::INFINITY, f32::NAN, 0.0]),
            "loss : Tensor had Inf and NaN values"
        );
    }
}
