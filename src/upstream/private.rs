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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::{self, Env};
    use crate::tls::tests::{Authority, Files};

    fn config(json: &serde_json::Value) -> Config {
        let loaded = config::parse(&json.to_string(), &Env::empty(), &|_, _| Ok(()));
        loaded.unwrap_or_else(|problems| panic!("{problems}")).config
    }

    fn said(json: &serde_json::Value) -> Vec<String> {
        let line = |o: &Objection| format!("{} {}: {}", if o.fatal { "error" } else { "warning" }, o.key, o.text);
        judge_private(&config(json)).iter().map(line).collect()
    }

    #[test]
    fn what_is_careless_or_without_effect_is_said_and_no_key_is_repeated() {
        let said = said(&json!({
            "upstreams": [
                { "url": "rtmps://a.example/live/S3CRET", "insecure_skip_verify": true },
                { "url": "rtmp://b.example/live/S3CRET", "insecure_skip_verify": true, "ca_file": "b.pem" },
            ],
        }));
        assert_eq!(
            said,
            [
                "warning upstreams[0].insecure_skip_verify: the certificate of rtmps://a.example:443/live is not checked: \
                 whoever stands in between can read its streams and change them",
                "warning upstreams[1].ca_file: has no effect: this upstream does not begin rtmps:// or rtsps://",
                "warning upstreams[1].insecure_skip_verify: has no effect: this upstream does not begin rtmps:// or rtsps://",
            ]
        );
        let idle = said_of_one("rtmp://a.example/live", "ca.pem");
        assert_eq!(idle, ["warning upstream_tls.ca_file: has no effect: no upstream begins rtmps:// or rtsps://"]);
    }

    fn said_of_one(url: &str, ca_file: &str) -> Vec<String> {
        said(&json!({ "upstream": url, "upstream_tls": { "ca_file": ca_file } }))
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named_by_its_key_once() {
        let files = Files::with(&Authority::new().paper(&["localhost"]));
        let key = files.settings().key.display().to_string();
        let said = said(&json!({
            "upstream_tls": { "ca_file": "/nowhere/ca.pem" },
            "upstreams": [{ "url": "rtmps://a.example" }, { "url": "rtmps://b.example" }, { "url": "rtmps://c.example", "ca_file": key }],
        }));
        assert_eq!(said[0], "error upstream_tls.ca_file: the file /nowhere/ca.pem does not exist");
        assert!(said[1].starts_with(&format!("error upstreams[2].ca_file: the file {key} holds a private key")), "{}", said[1]);
        assert_eq!(said.len(), 2);
    }

    #[test]
    fn those_who_believe_the_same_share_a_client() {
        let files = Files::with(&Authority::new().paper(&["localhost"]));
        let ca = files.put("ca.pem", &Authority::new().pem);
        let config = config(&json!({
            "upstream_tls": { "ca_file": ca },
            "upstreams": [
                { "url": "rtmps://a.example" },
                { "url": "rtmp://b.example" },
                { "url": "rtsps://c.example" },
                { "url": "rtmps://d.example", "insecure_skip_verify": true },
            ],
        }));
        let targets = crate::upstream::targets(&config, &crate::upstream::Numbering::default(), &[]).expect("targets");
        let clients = clients(&config, &targets).expect("clients");
        let mut ids: Vec<u32> = clients.keys().map(|id| id.0).collect();
        ids.sort_unstable();
        assert_eq!(ids, [0, 2, 3]);
        let same = |a, b| clients[&TargetId(a)].shares_with(&clients[&TargetId(b)]);
        assert!(same(0, 2) && !same(0, 3));
        let words = targets.iter().zip(&config.upstreams).map(|(target, upstream)| privacy(target, upstream));
        assert_eq!(words.collect::<Vec<_>>(), ["verified", "off", "verified", "not_verified"]);
    }
}
