//! Addresses that are listened on, and TLS there.

use super::*;

#[test]
fn tls_is_spoken_where_it_is_asked_for() {
    let pair = |mut json: Value| {
        json["security"]["tls_cert"] = "/etc/relay/cert.pem".into();
        json["security"]["tls_key"] = "/etc/relay/key.pem".into();
        json
    };
    let on = config(pair(json!({ "security": { "tls_enabled": true } })));
    let files = ServerTls { cert: "/etc/relay/cert.pem".into(), key: "/etc/relay/key.pem".into(), client_ca: None };
    assert_eq!((on.listen_tls, on.http_tls, on.security.tls), (Tls::Only, false, Some(files)));
    let both = config(pair(json!({ "security": { "tls_enabled": true, "tls_allow_plain": true }, "http_tls": true })));
    assert_eq!((both.listen_tls, both.http_tls), (Tls::Optional, true));
    let several = config(pair(json!({ "listeners": [{ "addr": ":443" }, { "addr": "127.0.0.1:1936", "tls": "off" }] })));
    let doors: Vec<_> = several.doors().map(|(key, address, tls)| (key, address.to_string(), tls)).collect();
    let door = |key: &str, address: &str, tls| (key.to_owned(), address.to_owned(), tls);
    let expected = [
        door("listen_addr", ":1935", Tls::Off),
        door("listeners[0].addr", ":443", Tls::Only),
        door("listeners[1].addr", "127.0.0.1:1936", Tls::Off),
    ];
    assert_eq!(doors, expected);
    let by_variable = read(&json!({}), &[("UPSTREAM", "rtmp://a"), ("LISTENERS", r#"[{"addr": ":1936", "tls": "off"}]"#)]);
    assert_eq!(by_variable.unwrap().config.listeners.len(), 1);
}

#[test]
fn tls_without_its_files_is_refused_and_files_without_tls_are_said() {
    let missing = "asks for TLS; expected the path of a PEM file with the";
    for (json, asker) in [
        (json!({ "security": { "tls_enabled": true } }), "security.tls_enabled"),
        (json!({ "listeners": [{ "addr": ":1", "tls": "off" }, { "addr": ":443", "tls": "optional" }] }), "listeners[1]"),
        (json!({ "http_tls": true }), "http_tls"),
        (json!({ "admin_tls": true }), "admin_tls"),
    ] {
        let expected = [("cert", "certificate"), ("key", "private key")]
            .map(|(key, what)| format!("security.tls_{key}: is missing, and {asker} {missing} {what}"));
        assert_eq!(errors(json), expected);
    }
    let one = json!({ "security": { "tls_enabled": true, "tls_cert": "cert.pem" } });
    assert!(error(one).starts_with("security.tls_key: is missing"));
    let unused = warnings(json!({ "security": { "tls_cert": "cert.pem", "tls_key": "key.pem", "tls_client_ca": "ca.pem" } }));
    assert_eq!(unused.len(), 3);
    assert!(unused[0].starts_with("security.tls_cert: is not used"));
    assert_eq!(
        warnings(json!({ "security": { "tls_allow_plain": true } })),
        ["security.tls_allow_plain: has no effect without tls_enabled"]
    );
    let nowhere = json!({ "admin_tls": true, "admin_addr": "", "security": { "tls_cert": "c", "tls_key": "k" } });
    assert_eq!(warnings(nowhere), ["admin_tls: has no effect: admin_addr is \"\", so there is no /admin"]);
    let far = |tls: bool| {
        let security = json!({ "admin_token": "hush-hush-hush-hush", "tls_cert": "c", "tls_key": "k", "tls_enabled": true });
        warnings(json!({ "admin_addr": ":8081", "admin_tls": tls, "security": security }))
    };
    assert!(far(false)[0].contains("the token goes over the network in the clear without admin_tls"));
    assert!(far(true).is_empty(), "{:?}", far(true));
    let for_http = json!({ "http_tls": true, "security": { "tls_cert": "c", "tls_key": "k", "tls_client_ca": "ca" } });
    assert!(warnings(for_http)[0].starts_with("security.tls_client_ca: has no effect"));
    assert!(
        error(json!({ "listeners": [{ "addr": ":1936", "tls": "maybe" }] }))
            .contains(r#"expected "off" or "only" or "optional""#)
    );
}

#[test]
fn a_certificate_that_plain_clients_need_not_show_is_said() {
    let with = |tls_enabled: bool, allow_plain: bool, listener: &str| {
        let files = json!({ "tls_enabled": tls_enabled, "tls_allow_plain": allow_plain, "tls_cert": "c", "tls_key": "k", "tls_client_ca": "ca" });
        warnings(json!({ "security": files, "listeners": [{ "addr": ":443", "tls": listener }] }))
    };
    assert!(with(true, false, "only").is_empty());
    for (tls_enabled, allow_plain, listener, key) in [
        (false, false, "only", "listen_addr"),
        (true, true, "only", "security.tls_allow_plain"),
        (true, false, "optional", "listeners[0]"),
        (true, false, "off", "listeners[0]"),
    ] {
        let want = format!("security.tls_client_ca: holds off nobody who comes without TLS, which {key} allows");
        assert_eq!(with(tls_enabled, allow_plain, listener), [want]);
    }
}

#[test]
fn no_two_addresses_are_the_same() {
    let text = error(json!({ "listeners": [{ "addr": ":1935", "tls": "off" }] }));
    assert_eq!(text, "listeners[0].addr: takes the same port as listen_addr (:1935); expected another port");
    let text = error(json!({ "listeners": [{ "addr": ":1936", "tls": "off" }, { "addr": "127.0.0.1:1936", "tls": "off" }] }));
    assert!(text.starts_with("listeners[1].addr: takes the same port as listeners[0].addr (:1936)"), "{text}");
    let text = error(json!({ "listeners": [{ "addr": ":8080", "tls": "off" }] }));
    assert!(text.starts_with("http_addr: takes the same port as listeners[0].addr (:8080)"), "{text}");
    assert!(
        error(json!({ "listeners": [{ "addr": "example.com:1936", "tls": "off" }] })).starts_with("listeners[0].addr: found")
    );
}

#[test]
fn files_are_judged_with_the_rest_and_named_by_their_keys() {
    let judge = |config: &Config| {
        let files = config.security.tls.as_ref().expect("TLS is on");
        let objection = |key: &str, text: String, fatal| Objection { key: key.into(), text, fatal };
        vec![
            objection("security.tls_key", format!("{} is bad", files.key.display()), true),
            objection("security.tls_cert", "is old".into(), false),
        ]
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    let text = json!({ "upstream": "rtmp://a", "security": { "tls_enabled": true, "tls_cert": "cert.pem" }, "log": { "level": "loud" } });
    std::fs::write(&path, text.to_string()).unwrap();
    let env: Env = [("SECURITY_TLS_KEY", "keys/key.pem")].into_iter().collect();
    let problems = load(Some(&path), &env, Judges { upstream: &every_url, files: &judge }).unwrap_err();
    let said: Vec<_> = problems.errors.iter().chain(&problems.warnings).map(Finding::to_string).collect();
    assert_eq!(said.len(), 3, "{said:?}");
    assert!(said[0].starts_with("log.level: found"));
    assert_eq!(said[1..], ["SECURITY_TLS_KEY: keys/key.pem is bad", "security.tls_cert: is old"]);
}
