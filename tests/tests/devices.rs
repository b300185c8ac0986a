//! Devices: names, scopes, colocation, and what a session does with them.

use graph_core::graph::scope::{colocate_with, device};
use graph_core::session::SessionOptions;
use graph_core::{Graph, Session, Variable};
use graph_ops::{array, control, math, state};

fn device_of_a_new_operation() -> String {
    control::no_op("").unwrap().device()
}

#[test]
fn device_scopes_merge_and_colocation_overrules_them() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let job = device("/job:ps").unwrap();
    let gpu = device("/gpu:0").unwrap();
    let on_gpu = control::no_op("on_gpu").unwrap();
    assert_eq!(on_gpu.device(), "/job:ps/device:GPU:0");
    {
        let _nothing = device(None).unwrap();
        assert_eq!(device_of_a_new_operation(), "");
        let _cpu = device("/cpu:1").unwrap();
        assert_eq!(device_of_a_new_operation(), "/device:CPU:1");
        let _beside = colocate_with(&on_gpu);
        let _other = device("/cpu:2").unwrap();
        assert_eq!(device_of_a_new_operation(), "/job:ps/device:GPU:0");
    }
    drop(job);
    assert_eq!(device_of_a_new_operation(), "/device:GPU:0");
    drop(gpu);
    let nowhere = control::no_op("nowhere").unwrap();
    let _cpu = device("/cpu:1").unwrap();
    let _beside = colocate_with(&nowhere);
    assert_eq!(device_of_a_new_operation(), "");
    assert_eq!(device("toaster").err().unwrap().class(), "InvalidArgument");
}

/// As TensorFlow 1.15 places them.
#[test]
fn what_belongs_to_a_variable_is_on_its_device() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let v = {
        let _device = device("/cpu:1").unwrap();
        let v = state::get_variable("v", [2])
            .initializer(state::zeros_initializer())
            .build()
            .unwrap();
        Variable::new([1.0f32, 2.0]).name("w").build().unwrap();
        v
    };
    {
        let _device = device("/cpu:2").unwrap();
        state::assign_add(&v, [1.0f32, 2.0]).name("add").build().unwrap();
        math::add(&v, 1.0f32).name("sum").build().unwrap();
    }
    let placed = [
        ("v/Initializer/zeros", ""),
        ("v", "/device:CPU:1"),
        ("v/Assign", "/device:CPU:1"),
        ("v/read", "/device:CPU:1"),
        ("w/initial_value", "/device:CPU:1"),
        ("w", "/device:CPU:1"),
        ("add/value", "/device:CPU:2"),
        ("add", "/device:CPU:1"),
        ("sum/y", "/device:CPU:2"),
        ("sum", "/device:CPU:2"),
    ];
    for (name, device) in placed {
        assert_eq!(graph.operation(name).unwrap().device(), device, "{name}");
    }
}

#[test]
fn gradients_stand_beside_their_operations_if_asked() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = array::placeholder::<f32>([2]).name("x").build().unwrap();
    let y = {
        let _device = device("/cpu:3").unwrap();
        math::add(math::multiply(&x, &x).name("mul"), &x)
            .name("add")
            .build()
            .unwrap()
    };
    let _device = device("/cpu:4").unwrap();
    let gradients = |name: &str, colocate: bool| {
        let gradients = graph_core::gradients([&y], [&x]).unwrap();
        gradients.name(name).colocate_with_ops(colocate).build().unwrap();
    };
    gradients("apart", false);
    gradients("beside", true);
    for operation in graph.operations() {
        let (name, device) = (operation.name(), operation.device());
        if name.starts_with("apart/") {
            assert_eq!(device, "/device:CPU:4", "{name}");
        }
        if name.starts_with("beside/") {
            assert_eq!(device, "/device:CPU:3", "{name}");
            let group: &[u8] = if name.contains("mul_grad") {
                b"loc:@mul"
            } else {
                b"loc:@add"
            };
            assert_eq!(operation.colocation_groups(), [group], "{name}");
        }
    }
}

#[test]
fn operations_fall_back_to_the_cpu_unless_they_must_not() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = {
        let _device = device("/device:TPU:7").unwrap();
        array::constant([3.0f32]).name("far").build().unwrap()
    };
    let y = math::reduce_sum(math::square(&x)).build().unwrap();
    assert_eq!(Session::new(&graph).unwrap().run::<f32>(&y, ()).unwrap(), 9.0);
    let strict = SessionOptions::new().allow_soft_placement(false);
    let session = Session::with_options(&graph, strict).unwrap();
    let error = session.run::<f32>(&y, ()).unwrap_err();
    assert_eq!(error.class(), "InvalidArgument");
    for part in ["'far'", "/device:TPU:7", "device:CPU:0", "devices.rs"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    let near = array::constant([2.0f32]).build().unwrap();
    let near = math::reduce_sum(near).build().unwrap();
    assert_eq!(session.run::<f32>(&near, ()).unwrap(), 2.0);
}
