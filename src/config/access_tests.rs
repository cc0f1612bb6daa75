//! Who is believed and let in: proxies.

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
