use crate::testing::Case;

#[test]
fn points_and_slices_are_picked_and_the_first_wrong_one_is_named() {
    use graph_core::Value;
    let table: Vec<i16> = (0..40 * 30).map(|at| at as i16).collect();
    let params = Value::from_vec([40, 30], table.clone()).unwrap();
    for count in [0usize, 1, 9000] {
        let rows: Vec<i32> = (0..count).map(|at| (at * at % 40) as i32).collect();
        let columns = (0..count).map(|at| (at * 7 % 30) as i32);
        let points: Vec<i32> = rows
            .iter()
            .copied()
            .zip(columns)
            .flat_map(|(row, column)| [row, column])
            .collect();
        let pick = |indices: Value| Case::new("GatherNd").input(params.clone()).input(indices).run();
        let picked = pick(Value::from_vec([count, 2], points.clone()).unwrap())
            .unwrap()
            .remove(0);
        let expected = points.chunks(2).map(|point| table[(point[0] * 30 + point[1]) as usize]);
        assert!(picked.as_slice::<i16>().unwrap().iter().copied().eq(expected));
        let picked = pick(Value::from_vec([count, 1], rows.clone()).unwrap())
            .unwrap()
            .remove(0);
        let expected = rows.iter().flat_map(|&row| &table[row as usize * 30..][..30]);
        assert!(picked.as_slice::<i16>().unwrap().iter().eq(expected));
        if count > 8000 {
            let mut rows = rows;
            (rows[8000], rows[8500]) = (40, -1);
            let error = pick(Value::from_vec([count, 1], rows).unwrap()).unwrap_err();
            assert!(error.to_string().contains("indices[8000] = [40]"), "{error}");
        }
    }
}

#[test]
fn indices_lie_inside() {
    for bad in [-1i32, 2] {
        let gather = Case::new("GatherNd").input([1u8, 2]).input([[bad]]);
        let scatter = Case::new("ScatterNd").input([[bad]]).input([1u8]).input([2i32]);
        for case in [gather, scatter] {
            assert_eq!(case.run().unwrap_err().class(), "InvalidArgument");
        }
    }
    assert!(Case::new("GatherNd").input([1u8]).input([[0i32, 0]]).run().is_err());
    assert!(
        Case::new("ScatterNd")
            .input([[0i32]])
            .input([1u8, 2])
            .input([2i32])
            .run()
            .is_err()
    );
}
