//! AMF0: what is read is within its bounds and writes the same bytes again; nothing but the end is missing from a beginning.

use crate::amf::{self, Amf};
use relay::protocol::rtmp::amf0::{Amf0Error, MAX_DEPTH, MAX_STRING, MAX_VALUES, Value, decode_all, encode};
use relay::protocol::rtmp::command::{Command, kind};

/// Reads `data` as the payload of a message.
pub fn run(data: &[u8]) {
    commands(data);
    let Ok(values) = decode_all(data) else { return };
    let mut count = 0;
    values.iter().for_each(|value| judge(value, 0, &mut count));
    assert!(count <= MAX_VALUES);
    let written = written(&values);
    assert_eq!(written.len(), data.len());
    let again = decode_all(&written).expect("what we write can be read");
    assert_eq!(self::written(&again), written);
    // Any byte but 0 is true; all else is as it was.
    if !holds_booleans(&values) {
        assert_eq!(written, data);
    }
    for cut in [1, 2, 3, 9, data.len() / 2].into_iter().filter(|cut| *cut <= data.len()) {
        let beginning = decode_all(&data[..data.len() - cut]);
        assert!(matches!(beginning, Ok(_) | Err(Amf0Error::Truncated(_))), "{beginning:?}");
    }
    if let Some(theirs) = amf::decode(data) {
        assert_eq!(values.len(), theirs.len());
        values.iter().zip(&theirs).for_each(|(ours, theirs)| assert_same(ours, theirs));
    }
}

fn written(values: &[Value]) -> Vec<u8> {
    let mut out = Vec::new();
    values.iter().for_each(|value| encode(value, &mut out));
    out
}

fn judge(value: &Value, depth: usize, count: &mut usize) {
    *count += 1;
    assert!(depth <= MAX_DEPTH);
    match value {
        Value::String(s) | Value::LongString(s) | Value::XmlDocument(s) => assert!(s.len() <= MAX_STRING),
        Value::StrictArray(items) => items.iter().for_each(|item| judge(item, depth + 1, count)),
        other => {
            for (key, value) in other.properties().into_iter().flatten() {
                assert!(key.len() <= MAX_STRING);
                judge(value, depth + 1, count);
            }
        }
    }
}

fn holds_booleans(values: &[Value]) -> bool {
    values.iter().any(|value| match value {
        Value::Boolean(_) => true,
        Value::StrictArray(items) => holds_booleans(items),
        other => other.properties().into_iter().flatten().any(|(_, value)| holds_booleans(std::slice::from_ref(value))),
    })
}

/// The tests' own reader knows fewer kinds of values, and text as UTF-8 alone; of what it knows it thinks the same.
fn assert_same(ours: &Value, theirs: &Amf) {
    match (ours, theirs) {
        (Value::Number(a), Amf::Num(b)) => assert_eq!(a.to_bits(), b.to_bits()),
        (Value::Boolean(a), Amf::Bool(b)) => assert_eq!(a, b),
        (Value::String(a), Amf::Str(b)) => assert_eq!(String::from_utf8_lossy(a), *b),
        (Value::Null, Amf::Null) | (Value::Undefined, Amf::Undefined) => {}
        (Value::StrictArray(a), Amf::List(b)) => {
            assert_eq!(a.len(), b.len());
            a.iter().zip(b).for_each(|(ours, theirs)| assert_same(ours, theirs));
        }
        (Value::Object(a), Amf::Obj(b)) | (Value::EcmaArray(_, a), Amf::Ecma(b)) => {
            assert_eq!(a.len(), b.len());
            for ((key, ours), (their_key, theirs)) in a.iter().zip(b) {
                assert_eq!(String::from_utf8_lossy(key), *their_key);
                assert_same(ours, theirs);
            }
        }
        other => panic!("{other:?}"),
    }
}

fn commands(data: &[u8]) {
    for kind in [kind::COMMAND, kind::COMMAND_AMF3] {
        let Ok(command) = Command::decode(kind, data) else { continue };
        assert_eq!(command.kind(), kind);
        let (name, transaction) = Command::head(kind, data).expect("it has a head");
        assert_eq!((name, transaction.to_bits()), (&command.name[..], command.transaction.to_bits()));
        let written = command.encode();
        let again = Command::decode(kind, &written).expect("what we write can be read");
        assert_eq!(again.encode(), written);
    }
}
