//! Each way in which files make no certificate that can be served has its sentence, and none of them repeats a key.

use super::*;
use crate::tls::tests::Authority;

fn problems(chain: &str, key: &str) -> Vec<PairProblem> {
    let problems = pair(chain.as_bytes(), key.as_bytes()).expect_err("it cannot be served");
    let secret: Vec<&str> = key.lines().filter(|line| line.len() > 30 && !line.contains("-----")).collect();
    for problem in &problems {
        let text = format!("{problem:?}");
        assert!(!secret.iter().any(|line| text.contains(line)), "{text}");
    }
    problems
}

fn certificate_problem(chain: &str, key: &str) -> String {
    match problems(chain, key).as_slice() {
        [PairProblem::Certificate(text)] => text.clone(),
        others => panic!("{others:?}"),
    }
}

fn key_problem(chain: &str, key: &str) -> String {
    match problems(chain, key).as_slice() {
        [PairProblem::Key(text)] => text.clone(),
        others => panic!("{others:?}"),
    }
}

#[test]
fn a_certificate_with_its_chain_and_key_can_be_served() {
    let authority = Authority::new();
    let paper = authority.paper(&["relay.example.com", "192.0.2.1", "2001:db8::1"]);
    let pair =
        pair(format!("text in front\n{}\n{}", paper.cert, authority.pem).as_bytes(), paper.key.as_bytes()).expect("a pair");
    assert_eq!(pair.key.cert.len(), 2);
    assert_eq!(pair.certificate.names, ["relay.example.com", "192.0.2.1", "2001:db8::1"]);
}

#[test]
fn a_key_of_another_certificate_is_told_from_a_chain_in_the_wrong_order() {
    let authority = Authority::new();
    let (paper, other) = (authority.paper(&["relay.example.com"]), authority.paper(&["relay.example.com"]));
    assert!(key_problem(&paper.cert, &other.key).contains("does not belong to the certificate"));
    let reversed = format!("{}{}", authority.pem, paper.cert);
    assert!(certificate_problem(&reversed, &paper.key).contains("expected the server's own certificate first"));
}

#[test]
fn what_stands_in_place_of_a_certificate_is_named() {
    let paper = Authority::new().paper(&["relay.example.com"]);
    let cut = &paper.cert[..paper.cert.len() - 30];
    let bent = paper.cert.replace("MII", "M!I");
    let no_x509 = "-----BEGIN CERTIFICATE-----\naGVsbG8gd29ybGQ=\n-----END CERTIFICATE-----\n";
    for (chain, words) in [
        ("", "it is empty"),
        ("0\u{2}\u{1}", "DER or PKCS #12"),
        ("what?", "something else"),
        ("-----BEGIN PUBLIC KEY-----\naGVsbG8=\n-----END PUBLIC KEY-----\n", "PEM of another kind"),
        (cut, "without its END line"),
        (&bent, "not base64"),
        (no_x509, "no X.509 certificate"),
    ] {
        let text = certificate_problem(chain, &paper.key);
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn what_stands_in_place_of_a_key_is_named() {
    let paper = Authority::new().paper(&["relay.example.com"]);
    let sealed = "-----BEGIN ENCRYPTED PRIVATE KEY-----\naGVsbG8=\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let sealed_long_ago = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\naGVsbG8=\n-----END RSA PRIVATE KEY-----\n";
    let no_key = "-----BEGIN PRIVATE KEY-----\naGVsbG8gd29ybGQgaGVsbG8gd29ybGQgaGVsbG8gd29ybGQ=\n-----END PRIVATE KEY-----\n";
    for (key, words) in [
        ("", "it is empty"),
        (sealed, "encrypted with a passphrase"),
        (sealed_long_ago, "encrypted with a passphrase"),
        (no_key, "cannot be used"),
        (&paper.key[..paper.key.len() - 30], "without its END line"),
    ] {
        let text = key_problem(&paper.cert, key);
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn two_files_that_are_exchanged_are_both_named() {
    let paper = Authority::new().paper(&["relay.example.com"]);
    let problems = problems(&paper.key, &paper.cert);
    assert_eq!(problems.len(), 2);
    assert!(problems.iter().all(|problem| format!("{problem:?}").contains("exchanged?")), "{problems:?}");
}
