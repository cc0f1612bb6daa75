//! Pure: AMF0, the encoding of commands and metadata (AMF 0 specification, 2007).
//!
//! A [`Value`] keeps what a re-encoding needs to give back the same bytes: order of properties, unknown keys, strings as bytes,
//! the (often untrue) count of an ECMA array. Nothing is allocated by a length or a count read off the wire.

/// Deepest nesting of objects and arrays.
pub const MAX_DEPTH: usize = 16;
/// Most values in one message, properties included.
pub const MAX_VALUES: usize = 1024;
/// Longest string, in bytes.
pub const MAX_STRING: usize = 4096;

/// Why a payload is not AMF0 that we take. Offsets are in bytes from the start of the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Amf0Error {
    /// The payload ends inside a value.
    #[error("AMF0 ends inside a value at byte {0}")]
    Truncated(usize),
    /// A marker that section 2.1 does not list.
    #[error("AMF0 marker {marker:#04x} at byte {at} is unknown")]
    Marker {
        /// The marker.
        marker: u8,
        /// Where it stands.
        at: usize,
    },
    /// Deeper than [`MAX_DEPTH`].
    #[error("AMF0 is nested deeper than 16 at byte {0}")]
    TooDeep(usize),
    /// More than [`MAX_VALUES`].
    #[error("AMF0 holds more than 1024 values at byte {0}")]
    TooMany(usize),
    /// Longer than [`MAX_STRING`].
    #[error("AMF0 string at byte {0} is longer than 4096 bytes")]
    LongString(usize),
}

/// Properties in the order they were sent.
pub type Properties = Vec<(Vec<u8>, Value)>;

/// One AMF0 value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// 2.2.
    Number(f64),
    /// 2.3.
    Boolean(bool),
    /// 2.4; any bytes, not only UTF-8.
    String(Vec<u8>),
    /// 2.5.
    Object(Properties),
    /// 2.7.
    Null,
    /// 2.8.
    Undefined,
    /// 2.9.
    Reference(u16),
    /// 2.10; the count is kept as sent and never believed.
    EcmaArray(u32, Properties),
    /// 2.12.
    StrictArray(Vec<Value>),
    /// 2.13: milliseconds and a time zone.
    Date(f64, i16),
    /// 2.14.
    LongString(Vec<u8>),
    /// 2.15.
    Unsupported,
    /// 2.17.
    XmlDocument(Vec<u8>),
    /// 2.18: class name and properties.
    TypedObject(Vec<u8>, Properties),
    /// 3.1: the rest of the payload is AMF3 and kept as it is.
    Avmplus(Vec<u8>),
}

impl Value {
    /// A string value.
    pub fn string(text: impl AsRef<[u8]>) -> Self {
        Self::String(text.as_ref().to_vec())
    }

    /// The bytes of a string, short or long.
    pub fn as_str(&self) -> Option<&[u8]> {
        if let Self::String(s) | Self::LongString(s) = self { Some(s) } else { None }
    }

    /// The number.
    pub fn as_number(&self) -> Option<f64> {
        if let Self::Number(n) = self { Some(*n) } else { None }
    }

    /// The properties of anything that has some. MediaMTX's peers have been seen to send an ECMA array as connect object.
    pub fn properties(&self) -> Option<&Properties> {
        match self {
            Self::Object(p) | Self::EcmaArray(_, p) | Self::TypedObject(_, p) => Some(p),
            _ => None,
        }
    }

    /// The same, to change them.
    pub fn properties_mut(&mut self) -> Option<&mut Properties> {
        match self {
            Self::Object(p) | Self::EcmaArray(_, p) | Self::TypedObject(_, p) => Some(p),
            _ => None,
        }
    }

    /// The property `key`, compared without regard to ASCII case: `tcurl` exists in the wild.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.properties()?.iter().find(|(k, _)| k.eq_ignore_ascii_case(key.as_bytes())).map(|(_, v)| v)
    }

    /// Calls `visit` on every string in the value, keys not included.
    pub fn for_each_string(&mut self, visit: &mut dyn FnMut(&mut Vec<u8>)) {
        match self {
            Self::String(s) | Self::LongString(s) => visit(s),
            Self::StrictArray(items) => items.iter_mut().for_each(|v| v.for_each_string(visit)),
            other => {
                if let Some(properties) = other.properties_mut() {
                    properties.iter_mut().for_each(|(_, v)| v.for_each_string(visit));
                }
            }
        }
    }
}

/// Reads every value of a payload.
///
/// # Errors
/// [`Amf0Error`]; the bounds are [`MAX_DEPTH`], [`MAX_VALUES`] and [`MAX_STRING`].
pub fn decode_all(payload: &[u8]) -> Result<Vec<Value>, Amf0Error> {
    let mut decoder = Decoder { payload, at: 0, values: 0 };
    let mut values = Vec::new();
    while decoder.at < payload.len() {
        values.push(decoder.value(0)?);
    }
    Ok(values)
}

struct Decoder<'a> {
    payload: &'a [u8],
    at: usize,
    values: usize,
}

impl<'a> Decoder<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], Amf0Error> {
        let rest = &self.payload[self.at..];
        let taken = rest.get(..n).ok_or(Amf0Error::Truncated(self.at))?;
        self.at += n;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Amf0Error> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn number(&mut self) -> Result<f64, Amf0Error> {
        Ok(f64::from_be_bytes(self.array()?))
    }

    fn text(&mut self, length: usize) -> Result<Vec<u8>, Amf0Error> {
        if length > MAX_STRING {
            return Err(Amf0Error::LongString(self.at));
        }
        Ok(self.take(length)?.to_vec())
    }

    fn short(&mut self) -> Result<Vec<u8>, Amf0Error> {
        let length = u16::from_be_bytes(self.array()?);
        self.text(usize::from(length))
    }

    fn long(&mut self) -> Result<Vec<u8>, Amf0Error> {
        let length = u32::from_be_bytes(self.array()?);
        self.text(usize::try_from(length).unwrap_or(usize::MAX))
    }

    fn properties(&mut self, depth: usize) -> Result<Properties, Amf0Error> {
        let mut properties = Vec::new();
        loop {
            if self.payload[self.at..].starts_with(&[0, 0, 9]) {
                self.at += 3;
                return Ok(properties);
            }
            let key = self.short()?;
            properties.push((key, self.value(depth + 1)?));
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value, Amf0Error> {
        if depth > MAX_DEPTH {
            return Err(Amf0Error::TooDeep(self.at));
        }
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(Amf0Error::TooMany(self.at));
        }
        let at = self.at;
        let [marker] = self.array()?;
        Ok(match marker {
            0x00 => Value::Number(self.number()?),
            0x01 => Value::Boolean(self.array::<1>()? != [0]),
            0x02 => Value::String(self.short()?),
            0x03 => Value::Object(self.properties(depth)?),
            0x05 => Value::Null,
            0x06 => Value::Undefined,
            0x07 => Value::Reference(u16::from_be_bytes(self.array()?)),
            0x08 => {
                let count = u32::from_be_bytes(self.array()?);
                Value::EcmaArray(count, self.properties(depth)?)
            }
            0x0A => {
                let count = u32::from_be_bytes(self.array()?);
                let mut items = Vec::new();
                for _ in 0..count {
                    items.push(self.value(depth + 1)?);
                }
                Value::StrictArray(items)
            }
            0x0B => Value::Date(self.number()?, i16::from_be_bytes(self.array()?)),
            0x0C => Value::LongString(self.long()?),
            0x0D => Value::Unsupported,
            0x0F => Value::XmlDocument(self.long()?),
            0x10 => {
                let class = self.short()?;
                Value::TypedObject(class, self.properties(depth)?)
            }
            0x11 => {
                let rest = self.payload[self.at..].to_vec();
                self.at = self.payload.len();
                Value::Avmplus(rest)
            }
            _ => return Err(Amf0Error::Marker { marker, at }),
        })
    }
}

/// Appends `value` to `out`. A string too long for its marker is cut at 65,535 bytes, which no decoded value can be.
pub fn encode(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Number(n) => {
            out.push(0x00);
            out.extend_from_slice(&n.to_be_bytes());
        }
        Value::Boolean(b) => out.extend_from_slice(&[0x01, u8::from(*b)]),
        Value::String(s) => {
            out.push(0x02);
            encode_short(s, out);
        }
        Value::Object(properties) => {
            out.push(0x03);
            encode_properties(properties, out);
        }
        Value::Null => out.push(0x05),
        Value::Undefined => out.push(0x06),
        Value::Reference(index) => {
            out.push(0x07);
            out.extend_from_slice(&index.to_be_bytes());
        }
        Value::EcmaArray(count, properties) => {
            out.push(0x08);
            out.extend_from_slice(&count.to_be_bytes());
            encode_properties(properties, out);
        }
        Value::StrictArray(items) => {
            out.push(0x0A);
            out.extend_from_slice(&u32::try_from(items.len()).unwrap_or(u32::MAX).to_be_bytes());
            items.iter().for_each(|item| encode(item, out));
        }
        Value::Date(millis, zone) => {
            out.push(0x0B);
            out.extend_from_slice(&millis.to_be_bytes());
            out.extend_from_slice(&zone.to_be_bytes());
        }
        Value::LongString(s) => encode_long(0x0C, s, out),
        Value::Unsupported => out.push(0x0D),
        Value::XmlDocument(s) => encode_long(0x0F, s, out),
        Value::TypedObject(class, properties) => {
            out.push(0x10);
            encode_short(class, out);
            encode_properties(properties, out);
        }
        Value::Avmplus(rest) => {
            out.push(0x11);
            out.extend_from_slice(rest);
        }
    }
}

fn encode_short(s: &[u8], out: &mut Vec<u8>) {
    let length = u16::try_from(s.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&s[..usize::from(length)]);
}

fn encode_long(marker: u8, s: &[u8], out: &mut Vec<u8>) {
    out.push(marker);
    out.extend_from_slice(&u32::try_from(s.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(s);
}

fn encode_properties(properties: &Properties, out: &mut Vec<u8>) {
    for (key, value) in properties {
        encode_short(key, out);
        encode(value, out);
    }
    out.extend_from_slice(&[0, 0, 9]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(values: &[Value]) -> Vec<u8> {
        let mut out = Vec::new();
        values.iter().for_each(|v| encode(v, &mut out));
        out
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<f64>().prop_filter("NaN never equals itself", |n| !n.is_nan()).prop_map(Value::Number),
            any::<bool>().prop_map(Value::Boolean),
            prop::collection::vec(any::<u8>(), 0..40).prop_map(Value::String),
            prop::collection::vec(any::<u8>(), 0..40).prop_map(Value::LongString),
            prop::collection::vec(any::<u8>(), 0..40).prop_map(Value::XmlDocument),
            Just(Value::Null),
            Just(Value::Undefined),
            Just(Value::Unsupported),
            any::<u16>().prop_map(Value::Reference),
            (0.0..1e15f64, any::<i16>()).prop_map(|(m, z)| Value::Date(m, z)),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            let properties = prop::collection::vec((prop::collection::vec(any::<u8>(), 1..9), inner.clone()), 0..6);
            prop_oneof![
                properties.clone().prop_map(Value::Object),
                (any::<u32>(), properties.clone()).prop_map(|(c, p)| Value::EcmaArray(c, p)),
                (prop::collection::vec(any::<u8>(), 0..9), properties).prop_map(|(c, p)| Value::TypedObject(c, p)),
                prop::collection::vec(inner, 0..6).prop_map(Value::StrictArray),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_same(values in prop::collection::vec(any_value(), 0..4)) {
            prop_assert_eq!(decode_all(&encoded(&values)), Ok(values));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(values) = decode_all(&bytes) {
                prop_assert_eq!(decode_all(&encoded(&values)).map(|v| v.len()), Ok(values.len()));
            }
        }
    }

    #[test]
    fn a_count_of_four_billion_allocates_nothing() {
        assert!(matches!(decode_all(&[0x0A, 0xFF, 0xFF, 0xFF, 0xFF]), Err(Amf0Error::Truncated(_))));
        assert!(matches!(decode_all(&[0x08, 0xFF, 0xFF, 0xFF, 0xFF]), Err(Amf0Error::Truncated(_))));
        assert!(matches!(decode_all(&[0x0C, 0xFF, 0xFF, 0xFF, 0xFF]), Err(Amf0Error::LongString(_))));
    }

    #[test]
    fn twenty_thousand_levels_are_refused_before_the_stack_is() {
        let deep: Vec<u8> = [0x0A, 0, 0, 0, 1].repeat(20_000);
        assert!(matches!(decode_all(&deep), Err(Amf0Error::TooDeep(_))));
        let objects: Vec<u8> = [0x03, 0, 1, b'a'].repeat(20_000);
        assert!(matches!(decode_all(&objects), Err(Amf0Error::TooDeep(_))));
    }

    #[test]
    fn an_array_of_nulls_is_bounded_by_count() {
        let mut bytes = vec![0x0A, 0, 1, 0, 0];
        bytes.extend(std::iter::repeat_n(0x05, 65_536));
        assert!(matches!(decode_all(&bytes), Err(Amf0Error::TooMany(_))));
    }
}
