//! `RegexFullMatch` and `StaticRegexFullMatch`: which texts a regular expression matches from end to end. TensorFlow's sharded
//! savers ask so whether a checkpoint goes to a file system that cannot rename.

use graph_core::graph::{IntoOperand, OpBuilder};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, OpDefinition, Planned};
use graph_core::{Error, Result};
use regex_lite::Regex;

/// The definition of `StaticRegexFullMatch`.
pub(crate) fn static_definition() -> OpDefinition {
    OpDefinition::new(
        "StaticRegexFullMatch",
        "Which elements the regular expression `pattern` matches from end to end.",
    )
    .input("input: string")
    .output("output: bool")
    .attr("pattern: string")
    .shape(InferenceContext::unchanged)
    .not_differentiable()
    .kernel(KernelDefinition::cpu(|request| {
        let pattern: String = request.attr("pattern")?;
        let regex = whole(&pattern)?;
        Ok(Planned::new(move |context| run(context, &regex)))
    }))
}

/// The definition of `RegexFullMatch`.
pub(crate) fn definition() -> OpDefinition {
    OpDefinition::new(
        "RegexFullMatch",
        "Which elements the regular expression `pattern`, a scalar, matches from end to end.",
    )
    .input("input: string")
    .input("pattern: string")
    .output("output: bool")
    .shape(|context| {
        context.with_rank(1, 0)?;
        context.set_output(0, context.input(0));
        Ok(())
    })
    .not_differentiable()
    .may_fail()
    .kernel(KernelDefinition::direct(|context| {
        let [pattern] = context.input_strings(1)? else {
            return Err(Error::invalid_argument("the pattern must be a scalar").got(context.input_shape(1)));
        };
        run(context, &whole(&String::from_utf8_lossy(pattern))?)
    }))
}

/// The expression for a whole text.
fn whole(pattern: &str) -> Result<Regex> {
    Regex::new(&format!("^(?:{pattern})$")).map_err(|error| {
        Error::invalid_argument(format!("'{pattern}' is not a regular expression: {error}")).caused_by(error)
    })
}

fn run(context: &mut KernelContext<'_>, regex: &Regex) -> Result<()> {
    let matches = context.output::<bool>(0)?;
    for (matches, text) in matches.iter_mut().zip(context.input_strings(0)?) {
        *matches = regex.is_match(&String::from_utf8_lossy(text));
    }
    Ok(())
}

/// Which elements of `input` (`string`, of any shape) the regular expression `pattern`, a scalar, matches from end to end:
/// `bool`, of the same shape.
///
/// # Errors
/// `InvalidArgument` on `build` if the pattern is no scalar, in a run if it is not a regular expression.
#[track_caller]
pub fn regex_full_match(input: impl IntoOperand, pattern: impl IntoOperand) -> OpBuilder {
    crate::op("RegexFullMatch").input(input).input(pattern)
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    use graph_core::Value;
    let paths = ["s3://bucket", "/s3://", "s3://", "gs3://a"].map(|text| text.as_bytes().to_vec());
    let paths = Value::from_strings([2, 2], paths.to_vec()).expect("four strings");
    let expected = Value::from([[true, false], [true, false]]);
    vec![
        Case::new("StaticRegexFullMatch")
            .input(paths.clone())
            .attr("pattern", "^s3://.*")
            .expect(expected.clone()),
        // Only whole matches count, alternatives included.
        Case::new("StaticRegexFullMatch")
            .input("ab")
            .attr("pattern", "a|abc")
            .expect(false),
        Case::new("RegexFullMatch").input(paths).input("s3.*").expect(expected),
    ]
}
