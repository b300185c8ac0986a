//! A program may begin with a function of the core. One test, since the first call of a process is the subject.

use graph_core::format::import::ImportOptions;
use graph_core::format::proto::GraphDef;
use graph_core::{Graph, Result, Session, Variable};
use graph_ops as _;

#[test]
fn a_program_may_begin_with_a_variable() -> Result<()> {
    let v = Variable::new(1.5f32).name("v").build()?;
    let session = Session::new(v.graph())?;
    session.run(v.initializer(), ())?;
    assert_eq!(session.run::<f32>(&v, ())?, 1.5);

    let message: GraphDef = v.graph().to_graph_def(Default::default());
    let copy = Graph::new();
    copy.import(&message, &ImportOptions::verbatim())?;
    assert_eq!(copy.num_operations(), 4);
    Ok(())
}
