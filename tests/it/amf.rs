//! As much AMF0 as the tests say and read, written apart from the relay's own.

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Amf {
    Num(f64),
    Bool(bool),
    Str(String),
    Obj(Vec<(String, Amf)>),
    Null,
    Undefined,
    Ecma(Vec<(String, Amf)>),
    List(Vec<Amf>),
}

/// A string.
pub(crate) fn s(text: &str) -> Amf {
    Amf::Str(text.to_owned())
}

/// A number.
pub(crate) fn n(number: impl Into<f64>) -> Amf {
    Amf::Num(number.into())
}

/// An object.
pub(crate) fn obj(entries: &[(&str, Amf)]) -> Amf {
    Amf::Obj(entries.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect())
}

impl Amf {
    /// The property `key` of an object.
    pub(crate) fn get(&self, key: &str) -> Option<&Amf> {
        let (Self::Obj(entries) | Self::Ecma(entries)) = self else { return None };
        entries.iter().find(|(k, _)| k == key).map(|(_, v)| v)
    }

    /// The text of a string.
    pub(crate) fn text(&self) -> Option<&str> {
        if let Self::Str(text) = self { Some(text) } else { None }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Num(n) => {
                out.push(0);
                out.extend(n.to_be_bytes());
            }
            Self::Bool(b) => out.extend([1, u8::from(*b)]),
            Self::Str(s) => {
                out.push(2);
                short(s, out);
            }
            Self::Obj(entries) => {
                out.push(3);
                properties(entries, out);
            }
            Self::Null => out.push(5),
            Self::Undefined => out.push(6),
            Self::Ecma(entries) => {
                out.push(8);
                out.extend((entries.len() as u32).to_be_bytes());
                properties(entries, out);
            }
            Self::List(items) => {
                out.push(10);
                out.extend((items.len() as u32).to_be_bytes());
                items.iter().for_each(|item| item.encode(out));
            }
        }
    }
}

fn short(text: &str, out: &mut Vec<u8>) {
    out.extend((text.len() as u16).to_be_bytes());
    out.extend(text.as_bytes());
}

fn properties(entries: &[(String, Amf)], out: &mut Vec<u8>) {
    for (key, value) in entries {
        short(key, out);
        value.encode(out);
    }
    out.extend([0, 0, 9]);
}

/// Values one behind the other, as in a data message.
pub(crate) fn values(values: &[Amf]) -> Vec<u8> {
    let mut out = Vec::new();
    values.iter().for_each(|value| value.encode(&mut out));
    out
}

/// The payload of a command.
pub(crate) fn command(name: &str, transaction: f64, args: &[Amf]) -> Vec<u8> {
    let mut out = Vec::new();
    s(name).encode(&mut out);
    n(transaction).encode(&mut out);
    args.iter().for_each(|arg| arg.encode(&mut out));
    out
}

/// Every value of a payload; `None` where it is none that we know.
pub(crate) fn decode(mut bytes: &[u8]) -> Option<Vec<Amf>> {
    let mut values = Vec::new();
    while !bytes.is_empty() {
        values.push(value(&mut bytes)?);
    }
    Some(values)
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

fn text(bytes: &mut &[u8]) -> Option<String> {
    let length = take(bytes, 2)?;
    let length = usize::from(length[0]) << 8 | usize::from(length[1]);
    Some(String::from_utf8_lossy(take(bytes, length)?).into_owned())
}

fn entries(bytes: &mut &[u8]) -> Option<Vec<(String, Amf)>> {
    let mut entries = Vec::new();
    while !bytes.starts_with(&[0, 0, 9]) {
        entries.push((text(bytes)?, value(bytes)?));
    }
    take(bytes, 3)?;
    Some(entries)
}

fn value(bytes: &mut &[u8]) -> Option<Amf> {
    Some(match take(bytes, 1)?[0] {
        0 => Amf::Num(f64::from_be_bytes(take(bytes, 8)?.try_into().ok()?)),
        1 => Amf::Bool(take(bytes, 1)?[0] != 0),
        2 => Amf::Str(text(bytes)?),
        3 => Amf::Obj(entries(bytes)?),
        5 => Amf::Null,
        6 => Amf::Undefined,
        8 => {
            take(bytes, 4)?;
            Amf::Ecma(entries(bytes)?)
        }
        10 => {
            let count = u32::from_be_bytes(take(bytes, 4)?.try_into().ok()?);
            Amf::List((0..count).map(|_| value(bytes)).collect::<Option<_>>()?)
        }
        _ => return None,
    })
}

#[test]
fn what_is_encoded_decodes_to_the_same() {
    let args = [
        Amf::Null,
        obj(&[
            ("app", s("live")),
            ("list", Amf::List(vec![s("hvc1"), n(2)])),
            ("map", Amf::Ecma(vec![("a".into(), Amf::Bool(true))])),
        ]),
        Amf::Undefined,
    ];
    let payload = command("connect", 1.0, &args);
    assert_eq!(decode(&payload), Some([&[s("connect"), n(1)][..], &args].concat()));
}
