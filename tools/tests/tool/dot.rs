use super::*;

#[test]
fn scopes_are_boxes_and_control_edges_dashed() {
    let out = stdout(graph_reading(["dot", "-"], NETWORK.as_bytes()));
    assert!(out.starts_with("digraph {\n") && out.ends_with("}\n"), "{out}");
    assert_eq!(out.matches('{').count(), out.matches('}').count());
    assert_eq!(out.matches("subgraph").count(), 2, "{out}");
    assert!(out.contains(r#"subgraph "cluster layer" { label="layer";"#), "{out}");
    assert!(out.contains(r#"subgraph "cluster layer/w" { label="w";"#), "{out}");
    assert!(out.contains(r#""layer/relu" [label="relu\nRelu"];"#), "{out}");
    assert!(out.contains(r#""x" -> "layer/dot" [label="[?,2]"];"#), "{out}");
    assert!(out.contains(r#""layer/w/read" -> "odd" [style=dashed];"#), "{out}");
    assert!(out.contains(r#""layer/relu" -> "odd";"#), "{out}");
}

#[test]
fn deep_scopes_are_one_node() {
    let drawing = json(graph_reading(
        ["dot", "-", "--depth", "0", "--json"],
        NETWORK.as_bytes(),
    ));
    let nodes = drawing["nodes"].as_array().unwrap();
    let layer = nodes.iter().find(|node| node["name"] == "layer/").unwrap();
    assert_eq!(
        (layer["nodes"].as_u64(), &layer["op"]),
        (Some(5), &serde_json::Value::Null)
    );
    let edges = drawing["edges"].as_array().unwrap();
    assert!(
        edges
            .iter()
            .any(|e| e["from"] == "layer/" && e["to"] == "odd" && e["control"] == false)
    );
    assert!(edges.iter().all(|edge| edge["from"] != edge["to"]));
    let whole = stdout(graph_reading(["dot", "-", "--depth", "1"], NETWORK.as_bytes()));
    assert!(
        whole.contains(r#""layer/w/" [label="w/\n2 nodes", style="rounded,filled""#),
        "{whole}"
    );
}

#[test]
fn only_what_outputs_need_is_drawn() {
    let drawing = json(graph_reading(
        ["dot", "-", "--outputs", "layer/dot:0", "--json"],
        NETWORK.as_bytes(),
    ));
    let names: Vec<_> = drawing["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| &node["name"])
        .collect();
    assert_eq!(names, ["layer/dot", "layer/w", "layer/w/read", "x"]);
    let (error, code) = failure(graph_reading(["dot", "-", "--outputs", "gone"], NETWORK.as_bytes()));
    assert!(code == 1 && error.contains("no node 'gone'"), "{error}");
}

#[test]
fn names_are_quoted() {
    let hostile = r#"node { name: "a\"b\\c" op: "X\ny" }"#;
    let out = stdout(graph_reading(["dot", "-"], hostile.as_bytes()));
    assert!(out.contains(r#""a\"b\\c" [label="a\"b\\c\nX\ny"];"#), "{out}");
}
