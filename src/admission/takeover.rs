//! Pure: may a newcomer publish a stream that is being published?

use std::sync::Arc;
use std::time::Duration;

use super::IpKey;
use crate::config::Takeover;

/// Who has sent nothing for so long is taken for gone.
pub const SILENT: Duration = Duration::from_secs(5);
/// Who has sent something within this is there: encoders send sound or pictures many times a second.
const SPEAKING: Duration = Duration::from_secs(1);

/// What is compared of two publishers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Party {
    /// The name of the token that let it in; `None` while authentication is off.
    pub token_name: Option<Arc<str>>,
    /// Its address.
    pub address: IpKey,
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The old one is ended.
    TakeOver,
    /// The old one has stopped sending; if that lasts for so long, the newcomer takes over.
    Wait(Duration),
    /// The stream stays whose it is.
    Refuse,
}

/// Judges `new`, who comes while `old` publishes, and has sent nothing for `silent`. A name stands for its token: tokens of the same
/// name are one credential.
pub fn judge(policy: Takeover, old: &Party, silent: Duration, new: &Party) -> Verdict {
    match policy {
        Takeover::Never => return Verdict::Refuse,
        Takeover::Always => return Verdict::TakeOver,
        Takeover::SameCredential => {}
    }
    if old.token_name != new.token_name {
        return Verdict::Refuse;
    }
    let same_client = new.token_name.is_some() && old.address == new.address;
    if same_client || silent >= SILENT {
        Verdict::TakeOver
    } else if silent >= SPEAKING {
        Verdict::Wait(SILENT - silent)
    } else {
        Verdict::Refuse
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn party(token: &str, address: [u8; 4]) -> Party {
        Party { token_name: (!token.is_empty()).then(|| token.into()), address: IpKey::of(address.into()) }
    }

    const HERE: [u8; 4] = [192, 0, 2, 1];
    const THERE: [u8; 4] = [192, 0, 2, 2];

    #[test]
    fn the_same_token_takes_over_from_the_same_address_at_once_and_from_another_only_after_silence() {
        let old = party("studio", HERE);
        let judge = |silent, token, address| judge(Takeover::SameCredential, &old, silent, &party(token, address));
        assert_eq!(judge(Duration::ZERO, "studio", HERE), Verdict::TakeOver);
        assert_eq!(judge(Duration::ZERO, "studio", THERE), Verdict::Refuse);
        assert_eq!(judge(SILENT - SPEAKING, "studio", THERE), Verdict::Wait(SPEAKING));
        assert_eq!(judge(SILENT, "studio", THERE), Verdict::TakeOver);
        assert_eq!(judge(Duration::ZERO, "other", HERE), Verdict::Refuse);
        assert_eq!(judge(10 * SILENT, "other", HERE), Verdict::Refuse, "another credential never does");
        assert_eq!(judge(10 * SILENT, "", HERE), Verdict::Refuse);
    }

    #[test]
    fn without_authentication_an_address_proves_nothing_and_only_silence_counts() {
        let old = party("", HERE);
        let judge = |silent| judge(Takeover::SameCredential, &old, silent, &party("", HERE));
        assert_eq!(judge(Duration::ZERO), Verdict::Refuse);
        assert_eq!(judge(SPEAKING), Verdict::Wait(SILENT - SPEAKING));
        assert_eq!(judge(SILENT), Verdict::TakeOver);
    }

    #[test]
    fn never_and_always_mean_what_they_say() {
        let (old, new) = (party("studio", HERE), party("studio", HERE));
        assert_eq!(judge(Takeover::Never, &old, 10 * SILENT, &new), Verdict::Refuse);
        assert_eq!(judge(Takeover::Always, &old, Duration::ZERO, &party("other", THERE)), Verdict::TakeOver);
    }
}
