//! Pure: do upstreams and routes make sense together? Each key alone has been judged by `shape` before.

use std::cell::OnceCell;

use globset::{Glob, GlobBuilder, GlobMatcher};

use super::file::{File, RawAction, RawMatch, RawProtocol, RawRoute, RawStrategy, RawUpstream};
use super::schema::nearest;
use super::settings::{Match, ProxyProtocol, Route, Strategy, Upstream};

/// Most upstreams.
const MAX_UPSTREAMS: usize = 256;
/// Most routes.
const MAX_ROUTES: usize = 256;
/// Longest name of an upstream, in characters.
const MAX_UPSTREAM_NAME: usize = 64;

/// What came of it: findings stand at paths of the file.
#[derive(Default)]
pub(super) struct Routing {
    pub(super) upstreams: Vec<Upstream>,
    pub(super) routes: Vec<Route>,
    pub(super) errors: Vec<(String, String)>,
    pub(super) warnings: Vec<(String, String)>,
}

impl Routing {
    /// Judges both. `judge` says what is wrong with a URL; not `intact`: the list of upstreams was wrong already and is not
    /// here, so that no route can be judged.
    pub(super) fn judge(file: &File, intact: bool, judge: impl Fn(&str) -> Result<(), String>) -> Self {
        let mut routing = Self::default();
        for (path, upstream) in listed(file) {
            routing.upstream(&path, upstream, &judge);
        }
        let several = file.upstreams.is_some();
        if several && routing.upstreams.is_empty() {
            routing.error("upstreams", "is empty: where should streams go? expected [{\"url\": \"rtmp://host[:port][/app]\"}]");
        } else if file.routes.is_empty() {
            let all: Vec<usize> = (0..routing.upstreams.len()).collect();
            routing.group("upstreams", &all);
        }
        if intact {
            routing.routes(file);
        }
        if !(file.upstream_hash_load_factor == 0.0 || file.upstream_hash_load_factor >= 1.0) {
            let text = format!("found {}; expected 0 for no bound, or 1 and more", file.upstream_hash_load_factor);
            routing.error("upstream_hash_load_factor", text);
        }
        routing
    }

    fn error(&mut self, path: &str, text: impl Into<String>) {
        self.errors.push((path.to_owned(), text.into()));
    }

    fn warn(&mut self, path: &str, text: impl Into<String>) {
        self.warnings.push((path.to_owned(), text.into()));
    }

    fn upstream(&mut self, path: &str, raw: RawUpstream, judge: impl Fn(&str) -> Result<(), String>) {
        let url = raw.url.expose().trim();
        let at = if path == "upstream" { path.to_owned() } else { format!("{path}.url") };
        let verdict = if url.is_empty() { Err("is empty; expected \"rtmp://host[:port][/app]\"".into()) } else { judge(url) };
        if let Err(reason) = verdict {
            self.error(&at, reason);
        } else if self.upstreams.iter().any(|other| other.url == url) {
            self.error(&at, "is an upstream that stands further up already; give that one a higher weight");
        }
        let name = Some(raw.name).filter(|name| !name.is_empty());
        self.name(&format!("{path}.name"), name.as_deref());
        if self.upstreams.len() == MAX_UPSTREAMS {
            self.error("upstreams", format!("holds more than {MAX_UPSTREAMS} upstreams"));
        }
        let narrow = |number| u32::try_from(number).unwrap_or(u32::MAX);
        self.upstreams.push(Upstream {
            url: url.to_owned(),
            name,
            weight: narrow(raw.weight),
            backup: raw.backup,
            max_connections: Some(narrow(raw.max_connections)).filter(|&most| most > 0),
            ca_file: Some(raw.ca_file).filter(|path| !path.is_empty()).map(Into::into),
            insecure_skip_verify: raw.insecure_skip_verify,
            proxy_protocol: raw.proxy_protocol,
            pool: None,
        });
    }

    fn name(&mut self, path: &str, name: Option<&str>) {
        let Some(name) = name else { return };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.len() > MAX_UPSTREAM_NAME || !name.chars().all(plain) {
            self.error(path, format!("expected up to {MAX_UPSTREAM_NAME} letters, digits, '-', '_' and '.'"));
        } else if self.upstreams.iter().any(|other| other.name.as_deref() == Some(name)) {
            self.error(path, format!("{name:?} is the name of an upstream further up already"));
        }
    }

    /// Upstreams among which one is to be chosen: somebody must take new streams.
    fn group(&mut self, path: &str, members: &[usize]) {
        let of = |index: &usize| self.upstreams.get(*index);
        if !members.is_empty() && members.iter().filter_map(of).all(|upstream| upstream.backup) {
            self.error(path, "are all backups: of what? expected one without \"backup\": true");
        } else if !members.is_empty() && members.iter().filter_map(of).all(|upstream| upstream.weight == 0) {
            self.error(path, "have weight 0 everywhere: nobody would take a new stream; expected one with a weight of 1 or more");
        }
    }

    fn routes(&mut self, file: &File) {
        if file.routes.len() > MAX_ROUTES {
            self.error("routes", format!("holds more than {MAX_ROUTES} routes"));
        }
        let mut earlier: Vec<Pattern> = Vec::new();
        for (index, raw) in file.routes.iter().enumerate() {
            let path = format!("routes[{index}]");
            let members = self.members(&path, raw);
            if !raw.upstreams.is_empty() && members.is_empty() {
                // Their names are wrong, which has been said.
            } else {
                self.group(&format!("{path}.upstreams"), &members);
            }
            self.family(&path, raw, &members);
            if let Some(pattern) = self.pattern(&path, &raw.matching) {
                if let Some(shadow) = earlier.iter().position(|other| other.covers(&pattern)) {
                    let text = format!("can never match: routes[{shadow}] takes all of it; put this one in front of it");
                    self.error(&path, text);
                }
                earlier.push(pattern);
            } else {
                // Keeps numbers true: what cannot be read covers nothing.
                earlier.push(Pattern::nothing());
            }
            let strategy = strategy(raw.strategy.unwrap_or(file.upstream_strategy));
            self.routes.push(Route { matching: matching(&raw.matching), upstreams: members, strategy });
        }
        self.unused(file);
    }

    fn members(&mut self, path: &str, raw: &RawRoute) -> Vec<usize> {
        if raw.upstreams.is_empty() {
            self.error(&format!("{path}.upstreams"), "is empty; expected names of upstreams");
        }
        let mut members = Vec::new();
        for (at, name) in raw.upstreams.iter().enumerate() {
            let at = format!("{path}.upstreams[{at}]");
            match self.upstreams.iter().position(|upstream| upstream.name.as_deref() == Some(name)) {
                Some(index) if members.contains(&index) => self.error(&at, format!("{name:?} stands here already")),
                Some(index) => members.push(index),
                None => {
                    let text = self.unknown(name);
                    self.error(&at, text);
                }
            }
        }
        members
    }

    fn unknown(&self, name: &str) -> String {
        let known: Vec<&str> = self.upstreams.iter().filter_map(|upstream| upstream.name.as_deref()).collect();
        // A URL may stand here by mistake, with a key in it.
        let found = super::finding::quoted(name);
        match nearest(name, known.iter().copied()) {
            Some(near) => format!("found {found}, the name of no upstream; did you mean {near:?}?"),
            None if known.is_empty() => format!("found {found}, but no upstream has a name; give them a \"name\" in `upstreams`"),
            None => format!("found {found}, the name of no upstream; known here: {}", known.join(", ")),
        }
    }

    /// A route for one protocol needs an upstream of it: the relay translates none.
    fn family(&mut self, path: &str, raw: &RawRoute, members: &[usize]) {
        let rtsp = match raw.matching.protocol {
            RawProtocol::Any => return,
            RawProtocol::Rtmp => false,
            RawProtocol::Rtsp => true,
        };
        let speaks = |index: &usize| self.upstreams.get(*index).is_some_and(|upstream| is_rtsp(&upstream.url) == rtsp);
        if !members.is_empty() && !members.iter().any(speaks) {
            let (word, scheme) = if rtsp { ("rtsp", "rtsp://") } else { ("rtmp", "rtmp://") };
            let text = format!("match.protocol is \"{word}\", but none of its upstreams is: expected one with {scheme}");
            self.error(path, text);
        }
    }

    fn pattern(&mut self, path: &str, raw: &RawMatch) -> Option<Pattern> {
        let vhost = raw.vhost.to_ascii_lowercase();
        let texts = [("app", &raw.app), ("stream", &raw.stream), ("vhost", &vhost)];
        let mut globs = Vec::new();
        for (name, text) in texts {
            // The pattern is not repeated: it may spell out a stream key.
            match Shape::new(text) {
                Ok(shape) => globs.push(shape),
                Err(error) => self.error(&format!("{path}.match.{name}"), format!("is no pattern: {}", error.kind())),
            }
        }
        let [app, stream, vhost] = <[Shape; 3]>::try_from(globs).ok()?;
        let (publish, rtsp) = (publish(raw.action), rtsp(raw.protocol));
        Some(Pattern { app: Some(app), stream: Some(stream), vhost: Some(vhost), publish, rtsp })
    }

    fn unused(&mut self, file: &File) {
        if file.routes.is_empty() {
            return;
        }
        for index in 0..self.upstreams.len() {
            if !self.routes.iter().any(|route| route.upstreams.contains(&index)) {
                let path = if file.upstreams.is_some() { format!("upstreams[{index}]") } else { "upstream".to_owned() };
                self.warn(&path, "is in no route: no stream goes there");
            }
        }
    }
}

/// What a route takes, in a form in which two can be compared.
struct Pattern {
    app: Option<Shape>,
    stream: Option<Shape>,
    vhost: Option<Shape>,
    publish: Option<bool>,
    rtsp: Option<bool>,
}

impl Pattern {
    fn nothing() -> Self {
        Self { app: None, stream: None, vhost: None, publish: None, rtsp: None }
    }

    /// Whether all that `other` takes is taken by this. Where that is hard to say the answer is no.
    fn covers(&self, other: &Self) -> bool {
        let each = |mine: Option<bool>, theirs: Option<bool>| mine.is_none() || mine == theirs;
        glob_covers(self.app.as_ref(), other.app.as_ref(), false)
            && glob_covers(self.stream.as_ref(), other.stream.as_ref(), true)
            && glob_covers(self.vhost.as_ref(), other.vhost.as_ref(), true)
            && each(self.publish, other.publish)
            && each(self.rtsp, other.rtsp)
    }
}

/// A pattern, compiled when it is first needed and then no more: each route is compared with all before it.
struct Shape {
    glob: Glob,
    /// There is no sign in it that stands for anything but itself.
    literal: bool,
    matcher: OnceCell<GlobMatcher>,
}

impl Shape {
    fn new(text: &str) -> Result<Self, globset::Error> {
        let glob = GlobBuilder::new(text).literal_separator(true).build()?;
        let literal = !text.contains(['*', '?', '[', '{', '\\']);
        Ok(Self { glob, literal, matcher: OnceCell::new() })
    }

    fn matches(&self, text: &str) -> bool {
        self.matcher.get_or_init(|| self.glob.compile_matcher()).is_match(text)
    }
}

/// `flat`: there is no slash in what is matched, so that `*` matches all of it.
fn glob_covers(mine: Option<&Shape>, theirs: Option<&Shape>, flat: bool) -> bool {
    let (Some(mine), Some(theirs)) = (mine, theirs) else { return false };
    let (pattern, text) = (mine.glob.glob(), theirs.glob.glob());
    pattern == "**" || (flat && pattern == "*") || pattern == text || (theirs.literal && !mine.literal && mine.matches(text))
}

fn listed(file: &File) -> Vec<(String, RawUpstream)> {
    let lone = |url: &super::secret::Hidden| RawUpstream {
        url: url.clone(),
        name: String::new(),
        weight: 1,
        backup: false,
        max_connections: 0,
        ca_file: String::new(),
        insecure_skip_verify: false,
        proxy_protocol: ProxyProtocol::Off,
        pool: None,
    };
    let one = file.upstream.iter().map(|url| ("upstream".to_owned(), lone(url)));
    let several = file.upstreams.iter().flatten().enumerate();
    one.chain(several.map(|(index, raw)| (format!("upstreams[{index}]"), raw.clone()))).collect()
}

fn matching(raw: &RawMatch) -> Match {
    Match {
        app: raw.app.clone(),
        stream: raw.stream.clone(),
        vhost: raw.vhost.to_ascii_lowercase(),
        publish: publish(raw.action),
        rtsp: rtsp(raw.protocol),
    }
}

fn publish(action: RawAction) -> Option<bool> {
    match action {
        RawAction::Any => None,
        RawAction::Publish => Some(true),
        RawAction::Play => Some(false),
    }
}

fn rtsp(protocol: RawProtocol) -> Option<bool> {
    match protocol {
        RawProtocol::Any => None,
        RawProtocol::Rtmp => Some(false),
        RawProtocol::Rtsp => Some(true),
    }
}

pub(super) fn strategy(raw: RawStrategy) -> Strategy {
    match raw {
        RawStrategy::RoundRobin => Strategy::RoundRobin,
        RawStrategy::Random => Strategy::Random,
        RawStrategy::LeastConnections => Strategy::LeastConnections,
        RawStrategy::ConsistentHash => Strategy::ConsistentHash,
        RawStrategy::Failover => Strategy::Failover,
    }
}

fn is_rtsp(url: &str) -> bool {
    url.get(..4).is_some_and(|scheme| scheme.eq_ignore_ascii_case("rtsp"))
}

#[cfg(test)]
#[path = "routing_tests.rs"]
mod tests;
