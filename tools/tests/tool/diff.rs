use super::*;

fn compare(a: &Path, b: &Path, options: &[&str]) -> Output {
    let paths = ["diff".as_ref(), a.as_os_str(), b.as_os_str()];
    graph(paths.into_iter().chain(options.iter().map(|option| option.as_ref())))
}

#[test]
fn the_same_graph_exits_with_zero() {
    let folder = network_folder();
    let [binary, text] = ["network.pb", "network.pbtxt"].map(|name| folder.path().join(name));
    assert_eq!(stdout(compare(&binary, &text, &[])), "the same 11 nodes\n");
    assert_eq!(json(compare(&binary, &text, &["--json"]))["same"], true);
    let output = graph_reading(["diff".as_ref(), binary.as_os_str(), "-".as_ref()], NETWORK.as_bytes());
    assert_eq!(stdout(output), "the same 11 nodes\n");
}

#[test]
fn what_changed_of_a_node_is_told() {
    let folder = network_folder();
    let changed = NETWORK
        .replace("name: \"tag\"", "name: \"label\"")
        .replace("input: \"tag\"", "input: \"label\"")
        .replace("input: \"layer/dot\"", "input: \"layer/dot:1\"")
        .replace("input: \"^layer/w/read\"", "input: \"^init\"")
        .replace("device: \"/device:CPU:0\"", "device: \"/device:GPU:0\"")
        .replace("float_val: 0", "float_val: 0 float_val: 1")
        .replace("producer: 134", "producer: 21")
        .replace(
            "key: \"transpose_a\" value { b: false }",
            "key: \"transpose_b\" value { b: true }",
        );
    let other = write_graph(folder.path(), "other.pb", &changed);
    let output = compare(&folder.path().join("network.pb"), &other, &[]);
    assert_eq!(output.status.code(), Some(1));
    let expected = "\
- tag (Const)
+ label (Const)
~ layer/dot (MatMul)
    attr transpose_a: false -> nothing
    attr transpose_b: nothing -> true
~ layer/relu (Relu)
    input 0: layer/dot -> layer/dot:1
~ layer/w (VariableV2)
    device: /device:CPU:0 -> /device:GPU:0
~ odd (OddOp)
    control input: nothing -> init
    control input: layer/w/read -> nothing
~ summary (HistogramSummary)
    input 0: tag -> label
~ zeros (Const)
    attr value: float [2,3] [0 0 0 0 0 0] -> float [2,3] [0 1 1 1 1 1]
~ the graph itself
    producer: 134 -> 21
1 removed, 1 added, 6 changed, 4 the same
";
    assert_eq!(text_of(&output.stdout), expected);
    assert!(output.stderr.is_empty());
}

#[test]
fn differences_can_be_left_out() {
    let folder = network_folder();
    let changed = NETWORK
        .replace("device: \"/device:CPU:0\"", "")
        .replace("attr { key: \"transpose_a\" value { b: false } }", "")
        .replace(
            "key: \"_class\" value { list { s: \"loc:@layer/w\" } }",
            "key: \"_class\" value { list { } }",
        );
    let other = write_graph(folder.path(), "other.pb", &changed);
    let network = folder.path().join("network.pb");
    let report: serde_json::Value = serde_json::from_slice(&compare(&network, &other, &["--json"]).stdout).unwrap();
    let changed: Vec<_> = report["changed"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| &c["changes"][0]["what"])
        .collect();
    assert_eq!(changed, ["attr transpose_a", "device", "attr _class"]);
    let options = ["--ignore-devices", "--ignore-attr", "_class", "--defaults"];
    assert_eq!(stdout(compare(&network, &other, &options)), "the same 11 nodes\n");
}

#[test]
fn a_constant_is_the_same_however_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let constant = |tensor: &str| {
        format!(
            "node {{ name: \"c\" op: \"Const\" attr {{ key: \"value\" value {{ tensor {{ dtype: DT_FLOAT \
             tensor_shape {{ dim {{ size: 2 }} }} {tensor} }} }} }} }}"
        )
    };
    let [short, long, other, nan] = [
        ("a.pb", constant("float_val: 1")),
        ("b.pb", constant(r#"tensor_content: "\000\000\200?\000\000\200?""#)),
        ("c.pb", constant("float_val: 1 float_val: 2")),
        ("d.pb", constant("float_val: nan")),
    ]
    .map(|(name, text)| write_graph(folder.path(), name, &text));
    assert_eq!(stdout(compare(&short, &long, &[])), "the same 1 nodes\n");
    assert_eq!(stdout(compare(&nan, &nan, &[])), "the same 1 nodes\n");
    assert_eq!(compare(&short, &other, &[]).status.code(), Some(1));
}

#[test]
fn large_constants_tell_where_they_differ() {
    let folder = tempfile::tempdir().unwrap();
    let constant = |last: &str| {
        let ones = "float_val: 1 ".repeat(99);
        format!(
            "node {{ name: \"c\" op: \"Const\" attr {{ key: \"value\" value {{ tensor {{ dtype: DT_FLOAT \
             tensor_shape {{ dim {{ size: 100 }} }} {ones} float_val: {last} }} }} }} }}"
        )
    };
    let [a, b] = [("a.pb", "1"), ("b.pb", "2")].map(|(name, last)| write_graph(folder.path(), name, &constant(last)));
    let out = text_of(&compare(&a, &b, &[]).stdout);
    assert!(
        out.contains("(1 of 100 elements differ, the first is number 99)"),
        "{out}"
    );
}

#[test]
fn a_graph_that_cannot_be_read_exits_with_two() {
    let folder = network_folder();
    let network = folder.path().join("network.pb");
    let (error, code) = failure(compare(&network, Path::new("/nowhere.pb"), &[]));
    assert!(code == 2 && error.contains("/nowhere.pb"), "{error}");
    let (error, code) = failure(graph(["diff", "-", "-"]));
    assert!(code == 2 && error.contains("standard input"), "{error}");
}
