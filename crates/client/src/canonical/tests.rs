//! The vectors of keys that every client makes.

use super::*;

const VECTORS: &str = include_str!("../../../../clients/vectors.json");

/// What a value of the vectors stands for, if Rust has it.
fn value(written: &Value) -> Option<Field> {
    let Some(members) = written.as_object() else {
        let Some(all) = written.as_array() else { return Field::try_from(written.clone()).ok() };
        return Some(Field::List(all.iter().map(value).collect::<Option<Vec<_>>>()?));
    };
    if let Some(it) = members.get("$int") {
        return Some(Field::Int(it.as_str()?.parse().unwrap()));
    }
    if let Some(it) = members.get("$bytes") {
        let it = it.as_str()?;
        let byte = |at| u8::from_str_radix(&it[at..at + 2], 16).unwrap();
        return Some(Field::Bytes((0..it.len()).step_by(2).map(byte).collect()));
    }
    if let Some(pairs) = members.get("$pairs") {
        let pair = |it: &Value| Some((it[0].as_str()?.to_owned(), value(&it[1])?));
        return Some(Field::Map(pairs.as_array()?.iter().map(pair).collect::<Option<_>>()?));
    }
    if let Some(levels) = members.get("$deep") {
        let nested = |inner, _| Field::List(vec![inner]);
        return Some((0..levels.as_u64()?).fold(Field::List(Vec::new()), nested));
    }
    // Rust has no half characters, and fields no fractions and no times.
    if ["$float", "$half", "$date"].iter().any(|it| members.contains_key(*it)) {
        return None;
    }
    let member = |(name, it): (&String, &Value)| Some((name.clone(), value(it)?));
    Some(Field::Map(members.iter().map(member).collect::<Option<_>>()?))
}

#[test]
fn fields_make_the_keys_that_every_client_makes() {
    let vectors: Value = serde_json::from_str(VECTORS).unwrap();
    let made = vectors["keys"]["made"].as_array().unwrap();
    assert!(20 < made.len());
    for vector in made {
        let fields: Vec<_> = vector["fields"].as_array().unwrap().iter().map(value).collect();
        let fields: Vec<_> = fields.into_iter().map(Option::unwrap).collect();
        if let Some(spelled) = vector["spelled"].as_str() {
            let mut bytes = Vec::new();
            spell(&Field::List(fields.clone()), 0, &mut bytes).unwrap();
            assert_eq!(bytes, spelled.as_bytes());
        }
        let key = vector["key"].as_str().unwrap();
        // A fingerprint spells its inputs as a key spells its fields.
        assert_eq!(fingerprint(&Field::List(fields.clone())).unwrap()[3..], key[3..]);
        let Field::Text(namespace) = fields[0].clone() else { panic!("{vector}") };
        assert_eq!(key_from(&namespace, fields.into_iter().skip(1)).unwrap(), key);
    }
}

#[test]
fn equal_values_are_spelled_alike_and_what_has_no_one_spelling_is_refused() {
    let vectors: Value = serde_json::from_str(VECTORS).unwrap();
    for pair in vectors["keys"]["same"].as_array().unwrap() {
        let spelled = |at: usize| fingerprint(&value(&pair[at]).unwrap()).unwrap();
        assert_eq!(spelled(0), spelled(1));
    }
    for fields in vectors["keys"]["refused"].as_array().unwrap() {
        let all: Option<Vec<_>> = fields.as_array().unwrap().iter().map(value).collect();
        let Some(all) = all else { continue };
        let Field::Text(namespace) = all[0].clone() else { panic!("{fields}") };
        assert!(key_from(&namespace, all.into_iter().skip(1)).is_err(), "{fields}");
    }
    for fraction in [serde_json::json!(0.5), serde_json::json!([1.0])] {
        assert_eq!(Field::try_from(fraction), Err(FieldError::Fraction));
    }
}
