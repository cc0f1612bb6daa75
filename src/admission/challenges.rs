//! Pure: questions that need no memory: what was asked of whom, signed, so that every relay with the same key knows its question again.
//!
//! An encoder that logs in by user name and password comes back on another connection, perhaps to another relay. What it brings back says
//! when it was asked and is signed, over its name and address too.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::auth::AuthError;

/// How long an answer may take, seconds. Clocks of relays may differ by as much.
pub const ANSWER_WITHIN: u64 = 30;
/// Answers remembered, so that none is taken twice. With more logins in [`ANSWER_WITHIN`] further ones are refused.
pub const MAX_SPENT: usize = 16_384;

/// Random bytes of a question.
const NONCE: usize = 12;
/// Bytes of the signature.
const MAC: usize = 16;

/// Random bytes, by which a question is told from all others.
pub type Nonce = [u8; NONCE];

/// What is asked of a client, in letters that no URL changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Goes into the client's hash.
    pub salt: String,
    /// The random part.
    pub challenge: String,
    /// All of it, signed: comes back with the answer.
    pub opaque: String,
}

/// A question that came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The salt that was asked with.
    pub salt: String,
    nonce: Nonce,
    /// When it is too old, seconds since 1970.
    until: u64,
}

/// Asks, and knows its questions again. Times are seconds since 1970: monotonic clocks of two machines have nothing in common.
pub struct Challenges {
    key: Hmac<Sha256>,
}

impl std::fmt::Debug for Challenges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Challenges(..)")
    }
}

impl Challenges {
    /// Signs with `key`, of any length.
    pub fn new(key: &[u8]) -> Self {
        let key = Hmac::new_from_slice(key).expect("HMAC takes keys of every length");
        Self { key }
    }

    /// A question for `user` at `ip`.
    pub fn ask(&self, user: &[u8], ip: IpAddr, now: u64, nonce: Nonce) -> Question {
        // Until 2106.
        let asked = u32::try_from(now).unwrap_or(u32::MAX);
        let signature = self.sign(user, ip, asked, nonce).finalize().into_bytes();
        let opaque = [&nonce[..], &asked.to_be_bytes(), &signature[..MAC]].concat();
        let [salt, challenge] = halves(nonce);
        Question { salt, challenge, opaque: URL_SAFE_NO_PAD.encode(opaque) }
    }

    /// Reads what came back with an answer of `user` at `ip`.
    ///
    /// # Errors
    /// [`AuthError::Challenge`] where this key did not sign it for this user and address, [`AuthError::Late`].
    pub fn answered(&self, user: &[u8], ip: IpAddr, now: u64, opaque: &[u8]) -> Result<Answered, AuthError> {
        let bytes = URL_SAFE_NO_PAD.decode(opaque).map_err(|_| AuthError::Challenge)?;
        let (nonce, rest) = bytes.split_first_chunk::<NONCE>().ok_or(AuthError::Challenge)?;
        let (asked, signature) = rest.split_first_chunk::<4>().ok_or(AuthError::Challenge)?;
        let asked = u32::from_be_bytes(*asked);
        let signature: &[u8; MAC] = signature.try_into().map_err(|_| AuthError::Challenge)?;
        self.sign(user, ip, asked, *nonce).verify_truncated_left(signature).map_err(|_| AuthError::Challenge)?;
        let asked = u64::from(asked);
        if now.abs_diff(asked) > ANSWER_WITHIN {
            return Err(AuthError::Late);
        }
        let [salt, _] = halves(*nonce);
        Ok(Answered { salt, nonce: *nonce, until: asked + ANSWER_WITHIN })
    }

    fn sign(&self, user: &[u8], ip: IpAddr, asked: u32, nonce: Nonce) -> Hmac<Sha256> {
        let ip: Ipv6Addr = match ip.to_canonical() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        // All but the last have one length: no two of them sign alike.
        self.key
            .clone()
            .chain_update(b"relay adobe 1")
            .chain_update(ip.octets())
            .chain_update(asked.to_be_bytes())
            .chain_update(nonce)
            .chain_update(user)
    }
}

fn halves(nonce: Nonce) -> [String; 2] {
    let (salt, challenge) = nonce.split_at(NONCE / 2);
    [URL_SAFE_NO_PAD.encode(salt), URL_SAFE_NO_PAD.encode(challenge)]
}

/// Answers that were taken, until they are too old to be taken again.
#[derive(Debug, Default)]
pub struct Spent(HashMap<Nonce, u64>);

impl Spent {
    /// Takes an answer once.
    ///
    /// # Errors
    /// [`AuthError::Again`], and [`AuthError::Busy`] where [`MAX_SPENT`] are remembered.
    pub fn spend(&mut self, answered: &Answered, now: u64) -> Result<(), AuthError> {
        if self.0.len() >= MAX_SPENT {
            self.0.retain(|_, until| *until >= now);
        }
        match self.0.len() {
            _ if self.0.contains_key(&answered.nonce) => Err(AuthError::Again),
            MAX_SPENT.. => Err(AuthError::Busy),
            _ => {
                self.0.insert(answered.nonce, answered.until);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn nonce(n: u32) -> Nonce {
        let mut nonce = [7; NONCE];
        nonce[..4].copy_from_slice(&n.to_be_bytes());
        nonce
    }

    /// Computed with Python's hmac, hashlib and base64.
    #[test]
    fn a_question_is_signed_as_it_is_described() {
        let asked = Challenges::new(b"a secret of sixteen or more").ask(
            b"studio",
            ip("192.0.2.7"),
            NOW,
            [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
        );
        assert_eq!((asked.salt.as_str(), asked.challenge.as_str()), ("AQIDBAUG", "BwgJCgsM"));
        assert_eq!(asked.opaque, "AQIDBAUGBwgJCgsMa0nSAPy0F6MJ-bZGllWZ88dz83o");
    }

    #[test]
    fn another_relay_with_the_same_key_knows_the_question_again() {
        let asked = Challenges::new(b"key").ask(b"studio", ip("192.0.2.7"), NOW, nonce(1));
        let other = Challenges::new(b"key");
        let answered = other.answered(b"studio", ip("::ffff:192.0.2.7"), NOW + 5, asked.opaque.as_bytes()).unwrap();
        assert_eq!(answered.salt, asked.salt);
        assert_eq!(
            Challenges::new(b"another").answered(b"studio", ip("192.0.2.7"), NOW, asked.opaque.as_bytes()),
            Err(AuthError::Challenge)
        );
    }

    #[test]
    fn a_question_is_for_one_user_at_one_address_and_for_half_a_minute() {
        let challenges = Challenges::new(b"key");
        let asked = challenges.ask(b"studio", ip("192.0.2.7"), NOW, nonce(1));
        let at =
            |user: &str, from: &str, now| challenges.answered(user.as_bytes(), ip(from), now, asked.opaque.as_bytes()).map(drop);
        assert_eq!(at("studio", "192.0.2.7", NOW + ANSWER_WITHIN), Ok(()));
        assert_eq!(at("studio", "192.0.2.7", NOW - 3), Ok(()), "another relay's clock may be behind");
        assert_eq!(at("studio", "192.0.2.7", NOW + ANSWER_WITHIN + 1), Err(AuthError::Late));
        assert_eq!(at("studi", "192.0.2.7", NOW), Err(AuthError::Challenge));
        assert_eq!(at("studio", "192.0.2.8", NOW), Err(AuthError::Challenge));
    }

    #[test]
    fn what_was_not_signed_is_no_question() {
        let challenges = Challenges::new(b"key");
        let asked = challenges.ask(b"studio", ip("192.0.2.7"), NOW, nonce(1)).opaque;
        let mut changed = URL_SAFE_NO_PAD.decode(&asked).unwrap();
        for at in 0..changed.len() {
            changed[at] ^= 1;
            let opaque = URL_SAFE_NO_PAD.encode(&changed);
            assert_eq!(
                challenges.answered(b"studio", ip("192.0.2.7"), NOW, opaque.as_bytes()),
                Err(AuthError::Challenge),
                "{at}"
            );
            changed[at] ^= 1;
        }
        for opaque in ["", "vgoAAA==", "####", &asked[..20], &format!("{asked}AAAA")] {
            assert_eq!(
                challenges.answered(b"studio", ip("192.0.2.7"), NOW, opaque.as_bytes()),
                Err(AuthError::Challenge),
                "{opaque}"
            );
        }
    }

    #[test]
    fn an_answer_is_taken_once_and_memory_is_bounded() {
        let challenges = Challenges::new(b"key");
        let answered = |n, now| {
            let asked = challenges.ask(b"u", ip("192.0.2.7"), now, nonce(n));
            challenges.answered(b"u", ip("192.0.2.7"), now, asked.opaque.as_bytes()).unwrap()
        };
        let mut spent = Spent::default();
        for n in 0..u32::try_from(MAX_SPENT).unwrap() {
            assert_eq!(spent.spend(&answered(n, NOW), NOW), Ok(()));
        }
        assert_eq!(spent.spend(&answered(5, NOW), NOW), Err(AuthError::Again));
        assert_eq!(spent.spend(&answered(1 << 30, NOW), NOW), Err(AuthError::Busy));
        let later = NOW + ANSWER_WITHIN + 1;
        assert_eq!(spent.spend(&answered(1 << 30, later), later), Ok(()), "the old ones could not be taken again anyway");
        assert_eq!(spent.0.len(), 1);
    }
}
