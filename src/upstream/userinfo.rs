//! Pure: the user name and password in an upstream URL.

use std::fmt;

use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret, SecretString};

/// `user:password`, percent-decoded. `Debug` shows neither.
#[derive(Clone)]
pub struct Userinfo {
    user: String,
    password: SecretString,
}

impl Userinfo {
    /// Reads what stands before the `@`. The user name ends at the first `:`. `None` where it is no text once it is decoded.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (user, password) = text.split_once(':').unwrap_or((text, ""));
        let decoded = |part: &str| percent_decode_str(part).decode_utf8().ok().map(|part| part.into_owned());
        let (user, password) = (decoded(user)?, decoded(password)?);
        let printable = !user.chars().chain(password.chars()).any(char::is_control);
        printable.then(|| Self { user, password: password.into() })
    }

    /// The user name.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The password; may be empty.
    pub fn password(&self) -> &SecretString {
        &self.password
    }
}

// Only ever compared with the operator's own other configuration: no constant time needed.
impl PartialEq for Userinfo {
    fn eq(&self, other: &Self) -> bool {
        self.user == other.user && self.password.expose_secret() == other.password.expose_secret()
    }
}

impl Eq for Userinfo {}

impl fmt::Debug for Userinfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Userinfo(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_and_nothing_is_shown() {
        let read = |text: &str| Userinfo::parse(text).map(|u| (u.user().to_owned(), u.password().expose_secret().to_owned()));
        assert_eq!(read("us%20er:p%40ss:w%2Frd"), Some(("us er".into(), "p@ss:w/rd".into())));
        assert_eq!(read("user"), Some(("user".into(), String::new())));
        assert_eq!(read("a%0d%0a:b"), None);
        assert_eq!(read("%ff:b"), None);
        assert_eq!(format!("{:?}", Userinfo::parse("user:S3CRET")), "Some(Userinfo(hidden))");
    }
}
