//! Graphs that hold most of what a graph can hold.

use graph_core::format::graph_def::ExportOptions;
use graph_core::format::{Message, Name, text};
use graph_core::{DType, Graph, PartialShape, Result, Tensor, Variable};
use graph_ops::train::{AdamOptimizer, Optimizer};
use graph_ops::{array, control, math, nn, state};

/// A graph with most of what a graph can hold: variables, slots, branches, strings, constants of several dtypes.
pub fn sample_graph() -> Graph {
    let build = || -> Result<Graph> {
        let graph = Graph::new();
        graph.set_random_seed(7);
        let _default = graph.as_default();
        let x = array::placeholder::<f32>([None, Some(3)]).name("x").build()?;
        let flag = array::placeholder::<bool>(PartialShape::scalar())
            .name("flag")
            .build()?;
        let w = Variable::new([[0.5f32, -0.5], [1.0, 2.0], [0.0, 0.25]])
            .name("w")
            .build()?;
        let dropped = nn::dropout(math::matmul(&x, &w), 0.5f32).build()?;
        let y = control::cond(
            &flag,
            || math::square(&dropped).build(),
            || math::negative(&dropped).build(),
        )
        .build()?;
        array::constant(["a", "text"]).name("strings").build()?;
        array::constant([1i64, -2, 3]).name("numbers").build()?;
        array::constant([half::f16::ONE; 5]).name("halves").build()?;
        let loss = math::reduce_mean(y).name("loss").build()?;
        AdamOptimizer::new(0.1f32).minimize(&loss, &[w])?;
        state::global_variables_initializer()?;
        Ok(graph)
    };
    build().expect("the sample graph builds")
}

/// A graph of ops that take axes, sizes, indices and windows, which damage makes wrong: all summed up in `loss`.
pub fn sample_ops() -> Graph {
    let build = || -> Result<Graph> {
        let graph = Graph::new();
        let _default = graph.as_default();
        let x = array::placeholder::<f32>([None, Some(3)]).name("x").build()?;
        let images = array::reshape(array::tile(&x, [4, 4]), [1, 4, 4, 3]).build()?;
        let filter = array::constant([[[[0.5f32, -1.0]; 3]; 2]; 2]).build()?;
        let ids = array::constant([2i32, 0, 1]).build()?;
        let table = array::transpose(array::pad(&x, [[1, 1], [0, 2]])).build()?;
        let (top, places) = nn::top_k(&table, 2).build()?;
        let pieces = array::split(&images, 3).axis(3).build()?;
        let results = [
            nn::conv2d(&images, &filter)
                .strides([1, 2, 1, 1])
                .padding("VALID")
                .build()?,
            nn::max_pool(&images)
                .ksize([1, 2, 2, 1])
                .strides([1, 2, 2, 1])
                .padding("SAME")
                .build()?,
            nn::avg_pool(&images)
                .ksize([1, 3, 3, 1])
                .strides([1, 1, 1, 1])
                .padding("SAME")
                .build()?,
            nn::local_response_normalization(&images).build()?,
            nn::softmax(&x).build()?,
            array::gather(&table, &ids, 0).build()?,
            array::slice(&table, [1, 0], [2, -1]).build()?,
            array::concat(vec![pieces[2].clone(), pieces[0].clone()], 3).build()?,
            array::one_hot(&ids, 4).build()?,
            array::reverse(&table, [0]).build()?,
            array::space_to_depth(&images, 2).build()?,
            array::expand_dims(math::cumsum(&x, 1), 0).build()?,
            array::squeeze(array::stack(vec![x.clone(), x.clone()])).build()?,
            math::reduce_max(&images).axis([1, 2]).build()?,
            math::cast(math::argmax(&table, 1), DType::Float32).build()?,
            math::cast(math::range(0, 5), DType::Float32).build()?,
            array::gather_nd(&table, [[0, 0], [1, 0]]).build()?,
            array::scatter_nd([[3], [1]], [1.0f32, 2.0], [5]).build()?,
            math::cast(places, DType::Float32).build()?,
            top,
        ];
        let sums: Vec<Tensor> = results
            .iter()
            .map(|result| math::reduce_sum(result).build())
            .collect::<Result<_>>()?;
        math::add_n(sums).name("loss").build()?;
        Ok(graph)
    };
    build().expect("the sample ops build")
}

pub fn graph_seeds() -> Vec<Vec<u8>> {
    let bytes = |graph: Graph, output_shapes| graph.to_graph_def(ExportOptions { output_shapes }).encode_to_vec();
    vec![bytes(sample_graph(), true), bytes(sample_ops(), false)]
}

pub fn as_text<M: Message + Name>(message: &M) -> Vec<u8> {
    text::to_text(message)
        .expect("a message of ours has a text")
        .into_bytes()
}

pub fn graph_text_seeds() -> Vec<Vec<u8>> {
    vec![as_text(&sample_graph().to_graph_def(ExportOptions::default()))]
}
