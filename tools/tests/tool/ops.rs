use super::*;

#[test]
fn an_op_is_told_with_its_signature() {
    let out = stdout(graph(["ops", "MatMul"]));
    assert_eq!(out.lines().next(), Some("MatMul(a: T, b: T) -> (product: T)"));
    assert_eq!(line(&out, "transpose_a"), "transpose_a bool false");
    assert!(
        line(&out, "T type").starts_with("T type bfloat16, half, float"),
        "{out}"
    );
    assert_eq!(line(&out, "gradient"), "gradient: function");
    assert!(line(&out, "CPU").starts_with("CPU T: float"), "{out}");
}

#[test]
fn all_ops_are_a_table() {
    let ops = json(graph(["ops", "--json"]));
    let ops = ops.as_array().unwrap();
    let names: Vec<&str> = ops.iter().map(|op| op["name"].as_str().unwrap()).collect();
    assert!(names.is_sorted() && names.len() > 300, "{}", names.len());
    let table = stdout(graph(["ops"]));
    assert!(table.ends_with(&format!("\n{} ops\n", names.len())), "{table}");
    assert_eq!(table.lines().count(), names.len() + 3);
    let concat = ops.iter().find(|op| op["name"] == "ConcatV2").unwrap();
    assert_eq!(concat["inputs"][0]["type"], "N * T");
    let n = concat["attrs"]
        .as_array()
        .unwrap()
        .iter()
        .find(|attr| attr["name"] == "N")
        .unwrap();
    assert_eq!(n["minimum"], 2);
}

#[test]
fn a_part_of_a_name_lists_the_ops_that_have_it() {
    let out = stdout(graph(["ops", "conv2d"]));
    assert!(out.contains("Conv2DBackpropFilter") && !out.contains("MatMul"), "{out}");
    let (error, code) = failure(graph(["ops", "Matmull"]));
    assert!(code == 1 && error.contains("did you mean MatMul?"), "{error}");
}
