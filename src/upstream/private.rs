//! Whom do upstreams that speak TLS have to convince?

use std::collections::HashMap;
use std::sync::Arc;

use super::target::{Target, TargetId};
use super::url::UpstreamUrl;
use crate::config::{Config, Objection, Upstream};
use crate::tls::{Client, ClientError, Trust};

/// A client for each target whose scheme is private. Those that believe the same share one, and with it the sessions that can be resumed.
pub(super) fn clients(config: &Config, targets: &[Arc<Target>]) -> Result<HashMap<TargetId, Client>, ClientError> {
    let mut made: HashMap<Trust, Client> = HashMap::new();
    let mut clients = HashMap::new();
    for (target, upstream) in targets.iter().zip(&config.upstreams).filter(|(target, _)| target.url.scheme().is_private()) {
        let trust = trust(config, upstream);
        let client = match made.get(&trust) {
            Some(client) => client.clone(),
            None => made.entry(trust.clone()).or_insert(Client::new(&trust)?).clone(),
        };
        clients.insert(target.id, client);
    }
    Ok(clients)
}

fn trust(config: &Config, upstream: &Upstream) -> Trust {
    if upstream.insecure_skip_verify {
        return Trust::Anyone;
    }
    let file = upstream.ca_file.as_ref().or(config.upstream_ca_file.as_ref());
    file.map_or(Trust::System, |file| Trust::File(file.clone()))
}

/// How private what goes to `target` is, as /status says it.
pub fn privacy(target: &Target, upstream: &Upstream) -> &'static str {
    match (target.url.scheme().is_private(), upstream.insecure_skip_verify) {
        (false, _) => "off",
        (true, false) => "verified",
        (true, true) => "not_verified",
    }
}

/// What is wrong with the files of authorities that `config` names for its upstreams, and what is set without effect or without care.
pub fn judge_private(config: &Config) -> Vec<Objection> {
    let mut objections = Vec::new();
    let mut judged: Vec<Trust> = Vec::new();
    let mut any = false;
    for (index, upstream) in config.upstreams.iter().enumerate() {
        // One that cannot be read has been named already.
        let Ok(url) = UpstreamUrl::parse(&upstream.url) else { continue };
        if !url.scheme().is_private() {
            objections.extend(idle(index, upstream));
            continue;
        }
        any = true;
        if upstream.insecure_skip_verify {
            let text = format!(
                "the certificate of {} is not checked: whoever stands in between can read its streams and change them",
                url.label()
            );
            objections.push(warning(format!("upstreams[{index}].insecure_skip_verify"), text));
        }
        let trust = trust(config, upstream);
        if !judged.contains(&trust) {
            objections.extend(Client::new(&trust).err().map(|error| Objection {
                key: if upstream.ca_file.is_some() {
                    format!("upstreams[{index}].ca_file")
                } else {
                    "upstream_tls.ca_file".into()
                },
                text: error.to_string(),
                fatal: true,
            }));
            judged.push(trust);
        }
    }
    if !any && config.upstream_ca_file.is_some() {
        objections.push(warning("upstream_tls.ca_file".into(), "has no effect: no upstream begins rtmps:// or rtsps://".into()));
    }
    objections
}

/// What is set for an upstream without TLS.
fn idle(index: usize, upstream: &Upstream) -> impl Iterator<Item = Objection> {
    let set = [("ca_file", upstream.ca_file.is_some()), ("insecure_skip_verify", upstream.insecure_skip_verify)];
    set.into_iter().filter(|(_, set)| *set).map(move |(name, _)| {
        let text = "has no effect: this upstream does not begin rtmps:// or rtsps://";
        warning(format!("upstreams[{index}].{name}"), text.into())
    })
}

fn warning(key: String, text: String) -> Objection {
    Objection { key, text, fatal: false }
}
