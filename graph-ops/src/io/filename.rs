//! `ShardedFilename` and `ShardedFilespec`: the names of a checkpoint's shards.

use graph_core::graph::IntoOperand;
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, OpDefinition};
use graph_core::{Error, Result, Value, typed_builder};

/// The definition of `ShardedFilename`.
pub(crate) fn sharded_filename_definition() -> OpDefinition {
    OpDefinition::new("ShardedFilename", "The name of one of several files: a-00001-of-00002.")
        .input("basename: string")
        .input("shard: int32")
        .input("num_shards: int32")
        .output("filename: string")
        .shape(all_scalars)
        .not_differentiable()
        .kernel(KernelDefinition::direct(|context| {
            let (shard, shards) = (number(context, 1)?, number(context, 2)?);
            join(context, &format!("-{shard:05}-of-{shards:05}"))
        }))
}

/// The definition of `ShardedFilespec`.
pub(crate) fn sharded_filespec_definition() -> OpDefinition {
    OpDefinition::new(
        "ShardedFilespec",
        "The pattern that the names of several files have in common: a-?????-of-00002.",
    )
    .input("basename: string")
    .input("num_shards: int32")
    .output("filename: string")
    .shape(all_scalars)
    .not_differentiable()
    .kernel(KernelDefinition::direct(|context| {
        let shards = number(context, 1)?;
        join(context, &format!("-?????-of-{shards:05}"))
    }))
}

fn all_scalars(context: &mut InferenceContext<'_>) -> Result<()> {
    for input in 0..context.num_inputs() {
        context.with_rank(input, 0)?;
    }
    InferenceContext::scalars(context)
}

fn number(context: &KernelContext<'_>, input: usize) -> Result<i32> {
    match context.input::<i32>(input)? {
        &[number] => Ok(number),
        several => Err(Error::invalid_argument("a scalar is expected").got(format!("{} numbers", several.len()))),
    }
}

/// Sets the output to the first input with `suffix` behind it.
fn join(context: &mut KernelContext<'_>, suffix: &str) -> Result<()> {
    let [base] = context.input_strings(0)? else {
        return Err(Error::invalid_argument("the base of a file's name must be a scalar"));
    };
    let name = [base.as_slice(), suffix.as_bytes()].concat();
    context.set_output(0, Value::string(name));
    Ok(())
}

typed_builder! {
    /// A file's name about to be made; see [`sharded_filename`].
    pub struct ShardedFilename;
}

/// The name of file `shard` of `num_shards`, `<basename>-00000-of-00001`: a string scalar. The numbers are `int32` scalars.
#[track_caller]
pub fn sharded_filename(
    basename: impl IntoOperand,
    shard: impl IntoOperand,
    num_shards: impl IntoOperand,
) -> ShardedFilename {
    let builder = crate::op("ShardedFilename").input(basename).input(shard);
    ShardedFilename(builder.input(num_shards))
}

typed_builder! {
    /// A pattern of files' names about to be made; see [`sharded_filespec`].
    pub struct ShardedFilespec;
}

/// The pattern that matches the names of all of `num_shards` files, `<basename>-?????-of-00001`: a string scalar.
#[track_caller]
pub fn sharded_filespec(basename: impl IntoOperand, num_shards: impl IntoOperand) -> ShardedFilespec {
    let builder = crate::op("ShardedFilespec").input(basename);
    ShardedFilespec(builder.input(num_shards))
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    let filename = || Case::new("ShardedFilename").input("dir/a");
    vec![
        filename().input(0i32).input(1i32).expect("dir/a-00000-of-00001"),
        filename()
            .input(12i32)
            .input(123_456i32)
            .expect("dir/a-00012-of-123456"),
        Case::new("ShardedFilespec")
            .input("a")
            .input(5i32)
            .expect("a-?????-of-00005"),
    ]
}
