//! Pure: does a stream match a route?

use globset::{Candidate, Glob, GlobBuilder, GlobMatcher};

use super::target::Family;
use crate::config::Match;
use crate::protocol::name::{Action, Identity};

/// A pattern that cannot be read. The text leaves it out: it may spell out a stream key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a pattern of a route cannot be read: {0}")]
pub struct BadPattern(String);

/// What a stream must be for one route.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    app: Option<GlobMatcher>,
    stream: Option<GlobMatcher>,
    vhost: Option<GlobMatcher>,
    publish: Option<bool>,
    rtsp: Option<bool>,
}

/// What a client asks for.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// What it speaks: only upstreams that speak the same are candidates.
    pub family: Family,
    /// What it wants.
    pub action: Action,
    /// The stream, its token out.
    pub name: &'a Identity,
    /// The host that its URL names, in small letters; empty where it names none.
    pub vhost: &'a [u8],
    /// The target where it has just lost this stream: tried last.
    pub lost: Option<super::target::TargetId>,
}

impl Pattern {
    /// Reads the patterns of a checked configuration.
    ///
    /// # Errors
    /// [`BadPattern`], which a checked configuration does not have.
    pub(super) fn new(matching: &Match) -> Result<Self, BadPattern> {
        Ok(Self {
            app: matcher(&matching.app)?,
            stream: matcher(&matching.stream)?,
            vhost: matcher(&matching.vhost)?,
            publish: matching.publish,
            rtsp: matching.rtsp,
        })
    }

    /// Whether this route is the one for `ask`.
    pub(super) fn takes(&self, ask: &Ask<'_>) -> bool {
        let fits = |glob: &Option<GlobMatcher>, bytes: &[u8]| {
            glob.as_ref().is_none_or(|glob| glob.is_match_candidate(&Candidate::from_bytes(bytes)))
        };
        self.publish.is_none_or(|publish| publish == (ask.action == Action::Publish))
            && self.rtsp.is_none_or(|rtsp| rtsp == (ask.family == Family::Rtsp))
            && fits(&self.app, &ask.name.app)
            && fits(&self.stream, &ask.name.stream)
            && fits(&self.vhost, ask.vhost)
    }
}

/// None: everything matches.
fn matcher(text: &str) -> Result<Option<GlobMatcher>, BadPattern> {
    if text == "**" {
        return Ok(None);
    }
    let glob: Result<Glob, _> = GlobBuilder::new(text).literal_separator(true).build();
    glob.map(|glob| Some(glob.compile_matcher())).map_err(|error| BadPattern(error.kind().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(change: impl FnOnce(&mut Match)) -> Pattern {
        let everything = || "**".to_owned();
        let mut matching = Match { app: everything(), stream: everything(), vhost: everything(), publish: None, rtsp: None };
        change(&mut matching);
        Pattern::new(&matching).expect("patterns")
    }

    fn takes(pattern: &Pattern, app: &str, stream: &str) -> bool {
        let name = Identity { app: app.into(), stream: stream.into() };
        pattern.takes(&Ask { family: Family::Rtmp, action: Action::Publish, name: &name, vhost: b"eu.example.com", lost: None })
    }

    #[test]
    fn what_is_left_out_matches_everything() {
        let all = pattern(|_| ());
        assert!(takes(&all, "a/b", "c") && takes(&all, "", "c") && takes(&all, "live", ""));
    }

    #[test]
    fn a_star_stays_within_a_segment_and_two_do_not() {
        let one = pattern(|matching| matching.app = "live/*".into());
        assert!(takes(&one, "live/eu", "cam") && !takes(&one, "live", "cam") && !takes(&one, "live/eu/1", "cam"));
        let all = pattern(|matching| matching.app = "live/**".into());
        assert!(takes(&all, "live/eu/1", "cam") && !takes(&all, "vod/eu", "cam"));
        let either = pattern(|matching| matching.stream = "{cam,mic}-?".into());
        assert!(takes(&either, "x", "cam-1") && takes(&either, "x", "mic-2") && !takes(&either, "x", "cam-12"));
    }

    #[test]
    fn everything_that_is_given_must_hold() {
        let host = |vhost: &str| pattern(|matching| matching.vhost = vhost.into());
        assert!(takes(&host("*.example.com"), "live", "cam"), "a dot is no slash");
        assert!(!takes(&host("example.com"), "live", "cam"));
        assert!(!takes(&pattern(|matching| matching.publish = Some(false)), "live", "cam"));
        assert!(!takes(&pattern(|matching| matching.rtsp = Some(true)), "live", "cam"));
        let both = pattern(|matching| (matching.app, matching.publish) = ("live".into(), Some(true)));
        assert!(takes(&both, "live", "cam") && !takes(&both, "vod", "cam"));
    }

    #[test]
    fn a_bad_pattern_is_not_repeated() {
        let matching = Match { app: "hush[".into(), stream: "**".into(), vhost: "**".into(), publish: None, rtsp: None };
        let error = Pattern::new(&matching).expect_err("no pattern").to_string();
        assert!(error.starts_with("a pattern of a route cannot be read") && !error.contains("hush"), "{error}");
    }
}
