//! The command line as people and init systems meet it: what is printed where, and with which exit code. What a configuration
//! means is tested beside `config`; nothing here opens a socket.

use assert_cmd::Command;
use assert_cmd::assert::Assert;
use tempfile::TempDir;

/// A directory of its own, and `relay` in it without any variable.
struct Place(TempDir);

impl Place {
    fn empty() -> Self {
        Self(tempfile::tempdir().expect("a directory can be made"))
    }

    fn with(name: &str, text: &str) -> Self {
        let place = Self::empty();
        std::fs::write(place.0.path().join(name), text).expect("a file can be written");
        place
    }

    fn relay(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Assert {
        let mut command = Command::cargo_bin("relay").expect("cargo builds relay for its tests");
        command.current_dir(self.0.path()).env_clear().envs(variables.iter().copied()).args(arguments).assert()
    }
}

fn out(assert: &Assert) -> String {
    String::from_utf8_lossy(&assert.get_output().stdout).into_owned()
}

fn err(assert: &Assert) -> String {
    String::from_utf8_lossy(&assert.get_output().stderr).into_owned()
}

const GOOD: &str = r#"{ "upstream": "rtmp://origin.example.com/live" } // enough"#;

#[test]
fn a_good_configuration_passes_the_check() {
    let place = Place::with("relay.json", GOOD);
    let assert = place.relay(&["--check", "relay.json"], &[]).code(0);
    assert_eq!(out(&assert), "relay.json: ok\n");
}

#[test]
fn every_problem_and_every_warning_is_reported_at_once() {
    let text = r#"{ "listen_adr": ":1935", "upstream": "rtmp://origin.example.com", "idle_timeout": 30, "rate_limit": { "enabled": true, "burst": 0 },
        "security": { "auth_tokens": ["hush"] } }"#;
    let place = Place::with("relay.json", text);
    for arguments in [&["--check", "relay.json"][..], &["relay.json"]] {
        let text = err(&place.relay(arguments, &[]).code(78));
        assert!(text.starts_with("relay.json: 3 problems\n"), "{text}");
        for part in [
            "error: listen_adr: unknown key; did you mean `listen_addr`?",
            "write \"30s\"",
            "error: rate_limit.burst: found 0",
            "warning: security.auth_enabled",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }
}

#[test]
fn warnings_alone_pass_the_check() {
    let place = Place::with("relay.json", r#"{ "upstream": "rtmp://a.example.com", "security": { "auth_tokens": ["hush"] } }"#);
    let assert = place.relay(&["--check", "relay.json"], &[]).code(0);
    assert!(err(&assert).starts_with("relay.json: warning: security.auth_enabled: "), "{}", err(&assert));
    assert!(!err(&assert).contains("hush"));
}

#[test]
fn a_named_file_that_is_missing_is_a_configuration_error() {
    let text = err(&Place::empty().relay(&["nowhere.json"], &[("UPSTREAM", "rtmp://a.example.com")]).code(78));
    assert!(text.contains("nowhere.json") && text.contains("cannot be read"), "{text}");
}

#[test]
fn without_argument_the_usual_file_is_read() {
    let assert = Place::with("config.json", GOOD).relay(&["--check"], &[]).code(0);
    assert_eq!(out(&assert), "config.json: ok\n");
}

#[test]
fn without_file_the_environment_is_enough() {
    let variables = [("LISTEN_ADDR", ":1935"), ("UPSTREAM", "rtmp://origin.example.com/live")];
    let assert = Place::empty().relay(&["--check"], &variables).code(0);
    assert_eq!(out(&assert), "the environment: ok\n");
}

#[test]
fn without_anything_it_says_what_to_do() {
    let text = err(&Place::empty().relay(&[], &[]).code(78));
    assert!(text.contains("relay config.json") && text.contains("UPSTREAM"), "{text}");
}

#[test]
fn a_problem_of_a_variable_is_named_by_the_variable() {
    let variables = [("UPSTREAM", "rtmp://a.example.com"), ("RETRY_MAX_ATTEMPTS", "three")];
    let text = err(&Place::empty().relay(&["--check"], &variables).code(78));
    assert!(text.contains("RETRY_MAX_ATTEMPTS: found \"three\"; expected a whole number"), "{text}");
}

#[test]
fn wrong_use_exits_64() {
    let place = Place::empty();
    for arguments in [
        &["--colour"][..],
        &["a.json", "b.json"],
        &["demo", "--listen", "nowhere"],
        &["fingerprint"],
        &["--print-schema", "--check"],
    ] {
        place.relay(arguments, &[]).code(64);
    }
}

#[test]
fn help_shows_examples_and_version_the_version() {
    let place = Place::empty();
    let help = out(&place.relay(&["--help"], &[]).code(0));
    for part in ["relay --check config.json", "relay demo", "Exit codes", "--print-schema"] {
        assert!(help.contains(part), "{part} is not in {help}");
    }
    assert_eq!(out(&place.relay(&["--version"], &[]).code(0)), concat!("relay ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn the_printed_schema_is_json_and_knows_every_section() {
    let assert = Place::empty().relay(&["--print-schema"], &[]).code(0);
    let schema: serde_json::Value = serde_json::from_slice(&assert.get_output().stdout).unwrap();
    assert_eq!(schema["properties"]["circuit_breaker"]["properties"]["max_failures"]["default"], 5);
}

#[test]
fn a_fingerprint_needs_a_key_that_stays() {
    let text = err(&Place::with("config.json", GOOD).relay(&["fingerprint", "live/cam"], &[]).code(78));
    assert!(text.contains("log.fingerprint_key is not set"), "{text}");
}

#[test]
fn a_relay_without_http_is_not_called_ill() {
    let place = Place::with("config.json", r#"{ "upstream": "rtmp://origin.example.com/live", "http_addr": "" }"#);
    let assert = place.relay(&["health"], &[]).code(0);
    assert_eq!(out(&assert), "http_addr is empty: there is nothing to ask\n");
    let assert = place.relay(&["health", "localhost:8080"], &[]).code(1);
    assert!(err(&assert).contains("an address like http://localhost:8080/health is wanted"), "{}", err(&assert));
}

#[test]
fn a_part_of_the_demonstration_needs_to_know_where() {
    let assert = Place::empty().relay(&["demo", "publisher", "relay/live/secret-key"], &[]).code(1);
    assert!(err(&assert).contains("rtmp://localhost/live/demo") && !err(&assert).contains("secret-key"), "{}", err(&assert));
    Place::empty().relay(&["demo", "publisher"], &[]).code(64);
    Place::empty().relay(&["demo", "--listen", ":1935", "origin"], &[]).code(64);
}

#[test]
fn files_of_tls_are_judged_with_the_rest_and_never_repeated() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let other = rcgen::KeyPair::generate().expect("a key").serialize_pem();
    let sealed = "-----BEGIN ENCRYPTED PRIVATE KEY-----\naGVsbG8=\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let text = r#"{ "upstream": "rtmps://origin.example.com/live", "upstream_tls": { "ca_file": "ca.pem" }, "idle_timeout": 30,
        "security": { "tls_enabled": true, "tls_cert": "cert.pem", "tls_key": "key.pem" } }"#;
    let place = Place::with("relay.json", text);
    let put = |name: &str, text: &str| std::fs::write(place.0.path().join(name), text).expect("a file can be written");
    put("ca.pem", &made.cert.pem());
    for (cert, key, words) in [
        (made.cert.pem(), &*other, "error: security.tls_key: the file key.pem does not belong to the certificate in tls_cert"),
        (made.cert.pem(), sealed, "error: security.tls_key: the file key.pem is encrypted with a passphrase"),
        (other.clone(), &*other, "error: security.tls_cert: the file cert.pem holds a private key and no certificate"),
    ] {
        put("cert.pem", &cert);
        put("key.pem", key);
        let text = err(&place.relay(&["--check", "relay.json"], &[]).code(78));
        assert!(text.starts_with("relay.json: 2 problems\n") && text.contains("write \"30s\""), "{text}");
        assert!(text.contains(words), "{words} is not in {text}");
        assert!(!other.lines().filter(|line| line.len() > 40).any(|line| text.contains(line)), "{text}");
    }
    put("cert.pem", &made.cert.pem());
    put("key.pem", &made.signing_key.serialize_pem());
    put("ca.pem", "nothing");
    let text = err(&place.relay(&["relay.json"], &[("IDLE_TIMEOUT", "30s")]).code(78));
    assert!(text.contains("error: upstream_tls.ca_file: the file ca.pem holds no certificate"), "{text}");
    put("ca.pem", &made.cert.pem());
    place.relay(&["--check", "relay.json"], &[("IDLE_TIMEOUT", "30s")]).code(0);
}
