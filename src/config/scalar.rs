//! Pure: values that JSON has no type for: durations in words, tokens in two forms, which query arguments travel on.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::secret::Hidden;
use super::settings::{AdobeAuth, ForwardQuery};

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

/// A user with its password, and what it opens.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawUser {
    /// What the client says it is.
    pub(super) user: String,
    /// What it proves to know.
    pub(super) password: Hidden,
    /// What logs call it. "": the user name.
    #[serde(default)]
    pub(super) name: String,
    /// What it may be used for.
    #[serde(default = "both_actions")]
    pub(super) actions: Vec<TokenAction>,
    /// Patterns on "app/stream", as of a token. Empty: every stream.
    #[serde(default)]
    pub(super) streams: Vec<String>,
}

// The default list is empty: this is called only if somebody prints a file that was read.
impl Serialize for RawUser {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("(hidden)")
    }
}

/// "all", "none", or a list of strings.
trait Choice: Sized {
    const ALL: Self;
    const NONE: Self;
    fn some(list: Vec<String>) -> Self;
    /// `Err` is the list.
    fn word(&self) -> Result<&'static str, &[String]>;
}

impl Choice for ForwardQuery {
    const ALL: Self = Self::All;
    const NONE: Self = Self::None;
    fn some(list: Vec<String>) -> Self {
        Self::Keys(list)
    }
    fn word(&self) -> Result<&'static str, &[String]> {
        match self {
            Self::All => Ok("all"),
            Self::None => Ok("none"),
            Self::Keys(keys) => Err(keys),
        }
    }
}

impl Choice for AdobeAuth {
    const ALL: Self = Self::All;
    const NONE: Self = Self::None;
    fn some(list: Vec<String>) -> Self {
        Self::Apps(list)
    }
    fn word(&self) -> Result<&'static str, &[String]> {
        match self {
            Self::All => Ok("all"),
            Self::None => Ok("none"),
            Self::Apps(apps) => Err(apps),
        }
    }
}

fn serialize_choice<C: Choice, S: Serializer>(choice: &C, serializer: S) -> Result<S::Ok, S::Error> {
    match choice.word() {
        Ok(word) => serializer.serialize_str(word),
        Err(list) => list.serialize(serializer),
    }
}

fn deserialize_choice<'de, C: Choice, D: Deserializer<'de>>(deserializer: D) -> Result<C, D::Error> {
    struct Visitor<C>(std::marker::PhantomData<C>);
    impl<'de, C: Choice> de::Visitor<'de> for Visitor<C> {
        type Value = C;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("\"all\", \"none\" or a list of strings")
        }
        fn visit_str<E: de::Error>(self, text: &str) -> Result<C, E> {
            match text {
                "all" => Ok(C::ALL),
                "none" => Ok(C::NONE),
                _ => Err(E::custom("not \"all\", \"none\" or a list of strings")),
            }
        }
        fn visit_seq<A: de::SeqAccess<'de>>(self, seq: A) -> Result<C, A::Error> {
            Vec::deserialize(de::value::SeqAccessDeserializer::new(seq)).map(C::some)
        }
    }
    deserializer.deserialize_any(Visitor(std::marker::PhantomData))
}

fn choice_schema() -> Schema {
    json_schema!({ "anyOf": [
        { "type": "string", "enum": ["all", "none"] },
        { "type": "array", "items": { "type": "string" } },
    ]})
}

impl Serialize for ForwardQuery {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_choice(self, serializer)
    }
}

impl<'de> Deserialize<'de> for ForwardQuery {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize_choice(deserializer)
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
        choice_schema()
    }
}

impl Serialize for AdobeAuth {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_choice(self, serializer)
    }
}

impl<'de> Deserialize<'de> for AdobeAuth {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize_choice(deserializer)
    }
}

impl JsonSchema for AdobeAuth {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "AdobeAuth".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        choice_schema()
    }
}
