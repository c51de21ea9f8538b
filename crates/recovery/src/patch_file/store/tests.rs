use super::*;
use crate::Patch;

fn header() -> Header {
    let bound = BoundTensor { shape: vec![2, 4], fine_tuned: "f".into(), aligned: Some("a".into()) };
    Header {
        version: VERSION,
        dtype: Dtype::Bf16,
        steps: 3,
        chosen: 2,
        method: serde_json::json!({"recover": {"rate": 0.002}}),
        notes: Value::Null,
        tensors: BTreeMap::from([("w".to_owned(), bound)]),
        content: String::new(),
    }
}

/// Weights 1 and 6 of `w`, the second flipped in two steps.
fn parts() -> Parts<'static> {
    let indices: Vec<u8> = [1_u32, 6, 6].into_iter().flat_map(u32::to_le_bytes).collect();
    let values = |values: [f32; 2]| (Type::BF16, Dtype::Bf16.encode(&values).into());
    [
        ("w", (Type::U32, indices.into())),
        ("w:step", (Type::U8, vec![2, 1, 3].into())),
        ("w:aligned", values([0.5, -0.25])),
        ("w:fine_tuned", values([1.0, 2.0])),
    ]
    .map(|(name, part)| (name.to_owned(), part))
    .into()
}

#[test]
fn a_file_is_read_and_written_again_as_it_is_and_every_flipped_bit_is_found() {
    let bytes = write(header(), &parts()).unwrap();
    let file = PatchFile::read(&bytes).unwrap();
    let of_w = |indices: &[u32]| Patch::new([("w".to_owned(), indices.to_vec())]);
    assert_eq!([0, 1, 2, 3].map(|step| file.path.at(step)), [&[][..], &[6], &[1, 6], &[1]].map(of_w));
    assert_eq!((file.path.chosen(), file.dtype), (2, Dtype::Bf16));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("patch");
    assert_eq!(file.to_bytes().unwrap(), bytes);
    files::write_whole(&path, &bytes).unwrap();
    assert_eq!(PatchFile::load(&path).unwrap(), file);
    for bit in 0..8 * bytes.len() {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(PatchFile::read(&damaged).is_err(), "bit {bit}");
    }
    for length in 0..bytes.len() {
        assert!(PatchFile::read(&bytes[..length]).is_err(), "cut at {length}");
    }
    assert!(PatchFile::load(&dir.path().join("none")).unwrap_err().to_string().contains("none"));
}

#[test]
fn steps_take_a_byte_as_long_as_they_fit() {
    for (steps, wanted) in [(255, Type::U8), (256, Type::U16)] {
        let (dtype, bytes) = narrow(&[1, 255], steps);
        assert_eq!((dtype, wide("w", dtype, &bytes).unwrap()), (wanted, vec![1, 255]));
    }
}

#[test]
fn content_that_is_wrong_under_a_right_hash_is_an_error_that_names_it() {
    let refused = |header: Header, parts: &Parts<'_>| PatchFile::read(&write(header, parts).unwrap()).unwrap_err();
    let with = |name: &str, dtype: Type, bytes: &[u8]| {
        let mut parts = parts();
        parts.insert(name.to_owned(), (dtype, bytes.to_vec().into()));
        parts
    };
    let without = |name: &str| parts().into_iter().filter(|(own, _)| own != name).collect::<Parts<'_>>();
    let shape = |shape: &[usize]| {
        let bound = BoundTensor { shape: shape.to_vec(), ..header().tensors["w"].clone() };
        Header { tensors: BTreeMap::from([("w".to_owned(), bound)]), ..header() }
    };
    let indices = |indices: [u32; 3]| with("w", Type::U32, indices.map(u32::to_le_bytes).as_flattened());
    let same = parts()["w:aligned"].1.to_vec();
    let cases = [
        (Header { version: 2, ..header() }, parts(), "of version 2"),
        (Header { steps: 2, ..header() }, parts(), "a step 3, and there are 2"),
        (Header { steps: 1, chosen: 1, ..header() }, without("w:step"), "`w` has indices that do not ascend"),
        (Header { steps: usize::MAX, ..header() }, parts(), "cannot be"),
        (Header { chosen: 4, ..header() }, parts(), "step 4 of 3 steps cannot be"),
        (Header { dtype: Dtype::F16, ..header() }, parts(), "no values `aligned` in f16"),
        (shape(&[2, 3]), parts(), "`w` has 6 weights, and index 6"),
        (shape(&[usize::MAX, 2]), parts(), "cannot have the shape"),
        (Header { tensors: BTreeMap::new(), ..header() }, parts(), "`w` has no place"),
        (header(), with("v", Type::U32, &[]), "`v` has no place"),
        (header(), indices([6, 1, 1]), "do not ascend"),
        (header(), indices([1, 6, 7]), "has 3 weights and not as many values"),
        (header(), with("w", Type::I32, &[0; 12]), "indices that are not of type U32"),
        (header(), with("w", Type::U32, &[]), "has 0 weights and not as many values"),
        (header(), with("w:step", Type::U32, &[0; 12]), "neither of type U8 nor U16"),
        (header(), with("w:step", Type::U8, &[2, 1]), "has 3 indices and 2 steps"),
        (header(), with("w:step", Type::U8, &[2, 0, 3]), "a step 0"),
        (header(), without("w:step"), "`w` has no steps"),
        (header(), without("w:aligned"), "no values `aligned` in bf16"),
        (header(), with("w:fine_tuned", Type::BF16, &same), "at index 1, which cannot be"),
        (header(), with("w:aligned", Type::BF16, &[0xff; 4]), "NaN at index 1, which cannot be"),
    ];
    for (header, parts, wanted) in cases {
        let message = refused(header, &parts);
        assert!(message.contains(wanted), "{message} and not {wanted}");
    }
    let plain = safetensors::serialize([("w", TensorView::new(Type::U8, vec![0], &[]).unwrap())], None).unwrap();
    assert!(PatchFile::read(&plain).unwrap_err().contains("no `realign` in its metadata"));
    let many = HashMap::from([(KEY.to_owned(), format!("[{}0]", "0,".repeat(2_000_000)))]);
    let tensor = TensorView::new(Type::U8, vec![0], &[]).unwrap();
    let many = safetensors::serialize([("w", tensor)], Some(many)).unwrap();
    assert!(PatchFile::read(&many).unwrap_err().contains("`realign`: it holds more values"));
    let long = [&(90_u64 << 20).to_le_bytes()[..], b"{}"].concat();
    assert!(PatchFile::read(&long).unwrap_err().contains("a header of 94371840 bytes"));
}
