//! Casts as expressions in CUDA C.

use graph_core::DType;

/// The element `x` cast by an expression in CUDA C; of a float the bits `kept` are taken.
pub(crate) fn expression(from: DType, to: DType, kept: u64) -> String {
    let to_i64 =
        "(x >= C(-9223372036854775808.0) && x < C(9223372036854775808.0) ? i64(x) : -9223372036854775807LL - 1)";
    match to {
        DType::Bool => "x != C(0)".to_owned(),
        _ if !from.is_floating() => "x".to_owned(),
        DType::Int8 | DType::Int16 | DType::Int32 | DType::UInt8 | DType::UInt16 => {
            "double(x) > -2147483649.0 && double(x) < 2147483648.0 ? i32(x) : -2147483647 - 1".to_owned()
        }
        DType::Int64 | DType::UInt32 => to_i64.to_owned(),
        DType::UInt64 => format!(
            "x >= C(18446744073709551616.0) ? 1ULL << 63 : x >= C(9223372036854775808.0) ? u64(x) : u64({to_i64})"
        ),
        _ if kept == u64::MAX => "x".to_owned(),
        _ if from == DType::Float64 => format!("bits_double(double_bits(x) & {kept:#x}ULL)"),
        // A float has 29 bits less.
        _ => format!("bits_float(float_bits(x) & {:#x}u)", (kept >> 29) as u32),
    }
}
