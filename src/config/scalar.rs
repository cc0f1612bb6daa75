//! Pure: values that JSON has no type for: durations in words, tokens in two forms, which query arguments travel on.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::secret::Hidden;
use super::settings::ForwardQuery;

/// The `format` of a duration in the schema. (JSON Schema's own "duration" is ISO 8601, which nobody writes by hand.)
pub(super) const DURATION_FORMAT: &str = "human-duration";

/// What a duration looks like, for every error about one.
pub(super) const DURATION_FORM: &str = "a duration in words, such as \"20ms\", \"30s\", \"5m\" or \"1h30m\"";

/// A duration in words: "30s", "5m", "1h30m".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span(pub(super) Duration);

impl Span {
    /// Reads one; `None` when it is none.
    pub(super) fn parse(text: &str) -> Option<Self> {
        humantime::parse_duration(text.trim()).ok().map(Self)
    }

    /// `seconds` whole seconds.
    pub(super) const fn secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Span;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(DURATION_FORM)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                Span::parse(text).ok_or_else(|| E::custom(format_args!("not {DURATION_FORM}")))
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

impl JsonSchema for Span {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": DURATION_FORMAT, "examples": ["30s", "5m", "1h30m"] })
    }
}

/// One token: its text alone, or an object that says what it opens.
#[derive(Debug, Clone)]
pub(super) enum RawToken {
    /// Opens everything.
    Plain(Hidden),
    /// Opens what it says.
    Detailed(TokenObject),
}

/// What a token may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum TokenAction {
    Publish,
    Play,
}

/// A token with what it opens.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenObject {
    /// What the client shows.
    pub(super) token: Hidden,
    /// What logs call this token.
    #[serde(default)]
    pub(super) name: String,
    /// What it may be used for.
    #[serde(default = "both_actions")]
    pub(super) actions: Vec<TokenAction>,
    /// Patterns on "app/stream", such as "live/*" (`*` does not cross a slash, `**` does). Empty: every stream.
    #[serde(default)]
    pub(super) streams: Vec<String>,
}

fn both_actions() -> Vec<TokenAction> {
    vec![TokenAction::Publish, TokenAction::Play]
}

impl From<Hidden> for TokenObject {
    fn from(token: Hidden) -> Self {
        Self { token, name: String::new(), actions: both_actions(), streams: Vec::new() }
    }
}

impl RawToken {
    /// The same as an object.
    pub(super) fn detailed(self) -> TokenObject {
        match self {
            Self::Plain(token) => token.into(),
            Self::Detailed(object) => object,
        }
    }
}

// The default list is empty: this is called only if somebody prints a file that was read.
impl Serialize for RawToken {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("(hidden)")
    }
}

impl<'de> Deserialize<'de> for RawToken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = RawToken;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an object")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<RawToken, E> {
                Ok(RawToken::Plain(text.into()))
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<RawToken, A::Error> {
                TokenObject::deserialize(de::value::MapAccessDeserializer::new(map)).map(RawToken::Detailed)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for RawToken {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Token".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (plain, detailed) = (generator.subschema_for::<Hidden>(), generator.subschema_for::<TokenObject>());
        json_schema!({ "anyOf": [plain, detailed] })
    }
}

impl Serialize for ForwardQuery {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_str("all"),
            Self::None => serializer.serialize_str("none"),
            Self::Keys(keys) => keys.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ForwardQuery {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = ForwardQuery;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"all\", \"none\" or a list of strings")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<ForwardQuery, E> {
                match text {
                    "all" => Ok(ForwardQuery::All),
                    "none" => Ok(ForwardQuery::None),
                    _ => Err(E::custom("not \"all\", \"none\" or a list of strings")),
                }
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, seq: A) -> Result<ForwardQuery, A::Error> {
                Vec::deserialize(de::value::SeqAccessDeserializer::new(seq)).map(ForwardQuery::Keys)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for ForwardQuery {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "ForwardQuery".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": "string", "enum": ["all", "none"] },
            { "type": "array", "items": { "type": "string" } },
        ]})
    }
}
