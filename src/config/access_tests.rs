//! Who is believed and let in: proxies, users.

use serde_json::json;

use super::tests::{config, error, read, warnings};
use super::*;

#[test]
fn trusted_proxies_are_networks_and_must_send_a_header_unless_told_otherwise() {
    let security = config(json!({ "security": { "trusted_proxies": ["10.0.3.0/24", "2001:db8::1"] } })).security;
    let shown: Vec<_> = security.trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!((shown, security.proxy_protocol), (vec!["10.0.3.0/24".into(), "2001:db8::1/128".into()], ProxyMode::Required));
    let optional = json!({ "security": { "trusted_proxies": ["10.0.3.0/24"], "proxy_protocol": "optional" } });
    assert_eq!(config(optional.clone()).security.proxy_protocol, ProxyMode::Optional);
    assert_eq!(warnings(optional), Vec::<String>::new());
    let text = error(json!({ "security": { "trusted_proxies": ["10.0.3.1/24"] } }));
    assert!(text.starts_with("security.trusted_proxies[0]: found \"10.0.3.1/24\"") && text.contains("10.0.3.0/24"), "{text}");
    let text = error(json!({ "security": { "proxy_protocol": "v2" } }));
    assert_eq!(text, "security.proxy_protocol: found \"v2\"; expected \"optional\" or \"required\"");
}

#[test]
fn trust_in_nobody_and_in_everybody_is_warned_about() {
    let text = warnings(json!({ "security": { "proxy_protocol": "optional" } })).concat();
    assert!(text.contains("no effect without trusted_proxies"), "{text}");
    let text = warnings(json!({ "security": { "trusted_proxies": ["0.0.0.0/0"] } })).concat();
    assert!(text.contains("any client may then claim any address"), "{text}");
}

#[test]
fn an_upstream_may_ask_for_a_proxy_header() {
    let url = "rtmp://a.example.com/live";
    let of = |upstream| read(&json!({ "upstreams": [upstream] }), &[]).map(|loaded| loaded.config.upstreams[0].proxy_protocol);
    assert_eq!(of(json!({ "url": url })).unwrap(), ProxyProtocol::Off);
    assert_eq!(of(json!({ "url": url, "proxy_protocol": "v1" })).unwrap(), ProxyProtocol::V1);
    assert_eq!(of(json!({ "url": url, "proxy_protocol": "v2" })).unwrap(), ProxyProtocol::V2);
    let text = of(json!({ "url": url, "proxy_protocol": true })).unwrap_err().to_string();
    assert!(text.contains("upstreams[0].proxy_protocol") && text.contains("\"off\" or \"v1\" or \"v2\""), "{text}");
}

#[test]
fn users_are_pairs_with_names_and_scopes_of_their_own() {
    let text = json!({ "security": { "auth_enabled": true, "adobe_auth": ["studio", "in/*"], "auth_secret": "sixteen or more of it", "users": [
        { "user": "ann", "password": "p w", "actions": ["publish"], "streams": ["live/*"] },
        { "user": "bob", "password": "hush", "name": "Bob's truck" },
    ] } });
    assert_eq!(warnings(text.clone()), Vec::<String>::new());
    let security = config(text).security;
    assert_eq!(security.adobe_auth, AdobeAuth::Apps(vec!["studio".into(), "in/*".into()]));
    let users: Vec<_> =
        security.users.iter().map(|one| (&*one.user, &*one.entry.name, one.entry.publish, one.entry.play)).collect();
    assert_eq!(users, [("ann", "ann", true, false), ("bob", "Bob's truck", true, true)]);
    assert_eq!((&*security.users[0].entry.streams, security.auth_secret.is_some()), (&["live/*".to_owned()][..], true));
    for (word, want) in [("all", AdobeAuth::All), ("none", AdobeAuth::None)] {
        assert_eq!(config(json!({ "security": { "adobe_auth": word } })).security.adobe_auth, want);
    }
}

#[test]
fn users_that_cannot_work_are_refused_and_no_password_is_said() {
    let one = |user: &str, password: &str| json!([{ "user": user, "password": password }]);
    let long = "u".repeat(97);
    for (users, word) in [
        (one("", "hush"), "`user` is empty"),
        (one(&long, "hush"), "longer than 96 bytes"),
        (one("a&b", "hush"), "'&'"),
        (one("ann", ""), "`password` is empty"),
        (one("ann", "hu\u{7}sh"), "control character"),
        (one("ann-hush", "hush"), "repeats the password"),
        (json!([{ "user": "ann", "password": "hush", "name": "hush!" }]), "repeats the password"),
        (json!([{ "user": "ann", "password": "hush", "actions": [] }]), "opens nothing"),
        (json!([{ "user": "ann", "password": "hush", "streams": ["[a"] }]), "is no pattern"),
    ] {
        let text = error(json!({ "security": { "auth_enabled": true, "adobe_auth": "all", "users": users } }));
        assert!(text.starts_with("security.users[0]") && text.contains(word) && !text.contains("hush"), "{text}");
    }
    let text = error(json!({ "security": { "auth_enabled": true, "auth_tokens": ["t"], "adobe_auth": ["[a"] } }));
    assert!(text.starts_with("security.adobe_auth[0]: is no pattern"), "{text}");
}

#[test]
fn what_of_a_login_would_have_no_effect_is_warned_about() {
    let users = json!([{ "user": "ann", "password": "hush" }, { "user": "ann", "password": "hush" }]);
    let text = warnings(json!({ "security": { "auth_enabled": true, "users": users } })).join("\n");
    assert!(
        text.contains("security.users[1]") && text.contains("never asked for their passwords") && !text.contains("hush"),
        "{text}"
    );
    let text = warnings(json!({ "security": { "adobe_auth": "all", "users": users } })).join("\n");
    assert!(text.contains("1 user(s)") && text.contains("security.adobe_auth: has no effect"), "{text}");
    let text = warnings(json!({ "security": { "auth_secret": "short" } })).concat();
    assert!(text.contains("security.auth_secret: is shorter than 16"), "{text}");
    let text = error(json!({ "security": { "auth_enabled": true } }));
    assert!(text.contains("without any token") && text.contains("users"), "{text}");
}
