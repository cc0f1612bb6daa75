//! Renewal of the certificate: when it is taken up, when it is not, and that who is in stays.

use std::path::Path;
use std::sync::Arc;

use rcgen::date_time_ymd;

use super::*;
use crate::tls::judge;
use crate::tls::tests::{Authority, Files, Paper, believing, echo, hears_back, meets, server};

/// Looks at the files until it acts on what it sees: once to see a change, once more to see that it has settled.
fn looks(watcher: &mut Watcher, server: &Server, telemetry: &Telemetry) {
    (0..2).for_each(|_| watcher.look(server, telemetry, SystemTime::now()));
}

fn shown(server: &Server) -> Vec<String> {
    server.standing().certificate.names.clone()
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_who_comes_next_and_who_is_in_stays() {
    let authority = Authority::new();
    let files = Files::with(&authority.paper(&["localhost", "first.example"]));
    let (server, telemetry) = (server(&files), Telemetry::silent());
    let mut watcher = Watcher::new(&server);
    let address = echo(Arc::clone(&server)).await;
    let client = believing(&files, &authority.pem);
    let mut living = meets(&client, address, "first.example").await.expect("let in");
    let before = server.standing().loaded_at;

    files.write(&authority.paper(&["localhost", "second.example"]));
    watcher.look(&server, &telemetry, SystemTime::now());
    assert_eq!(shown(&server), ["localhost", "first.example"], "what is just being written is left alone");
    watcher.look(&server, &telemetry, SystemTime::now());
    assert_eq!(shown(&server), ["localhost", "second.example"]);
    assert!(server.standing().loaded_at > before && server.standing().last_error.is_none());

    hears_back(&mut living).await;
    meets(&client, address, "second.example").await.expect("the new one is shown");
    // A client of its own, since that one could resume.
    let error = meets(&believing(&files, &authority.pem), address, "first.example").await.expect_err("the old one is gone");
    assert_eq!(error.kind(), "tls_wrong_name", "{error}");
}

#[tokio::test]
async fn a_bad_pair_is_kept_out_and_said_until_a_good_one_comes() {
    let authority = Authority::new();
    let good = authority.paper(&["localhost"]);
    let files = Files::with(&good);
    let (server, telemetry) = (server(&files), Telemetry::silent());
    let mut watcher = Watcher::new(&server);
    let address = echo(Arc::clone(&server)).await;
    let client = believing(&files, &authority.pem);
    for (cert, words) in
        [(authority.paper(&["other.example"]).cert, "does not belong"), ("nothing".into(), "holds no certificate")]
    {
        files.put("cert.pem", &cert);
        looks(&mut watcher, &server, &telemetry);
        let standing = server.standing();
        assert!(standing.last_error.as_deref().is_some_and(|error| error.contains(words)), "{:?}", standing.last_error);
        assert!(!standing.last_error.as_deref().is_some_and(|error| error.contains("nothing")), "the file is not repeated");
        hears_back(&mut meets(&client, address, "localhost").await.expect("the old one is shown")).await;
    }
    fs::remove_file(files.path("cert.pem")).expect("removed");
    looks(&mut watcher, &server, &telemetry);
    assert!(server.standing().last_error.as_deref().is_some_and(|error| error.contains("does not exist")));
    files.write(&authority.paper(&["localhost", "next.example"]));
    looks(&mut watcher, &server, &telemetry);
    assert_eq!((shown(&server), server.standing().last_error.clone()), (vec!["localhost".into(), "next.example".into()], None));
}

#[test]
fn a_link_that_points_elsewhere_is_a_change() {
    // As Kubernetes mounts a secret: cert.pem -> ..data/cert.pem, and ..data is exchanged.
    let authority = Authority::new();
    let dir = tempfile::tempdir().expect("a directory");
    let put = |version: &str, paper: &Paper| {
        let into = dir.path().join(version);
        fs::create_dir(&into).expect("made");
        fs::write(into.join("tls.crt"), &paper.cert).expect("written");
        fs::write(into.join("tls.key"), &paper.key).expect("written");
        let link = dir.path().join("..next");
        std::os::unix::fs::symlink(&into, &link).expect("linked");
        fs::rename(&link, dir.path().join("..data")).expect("exchanged");
    };
    put("..1", &authority.paper(&["first.example"]));
    for file in ["tls.crt", "tls.key"] {
        std::os::unix::fs::symlink(Path::new("..data").join(file), dir.path().join(file)).expect("linked");
    }
    let files = ServerTls { cert: dir.path().join("tls.crt"), key: dir.path().join("tls.key"), client_ca: None };
    let (server, telemetry) = (Server::new(&files).expect("files"), Telemetry::silent());
    let mut watcher = Watcher::new(&server);
    looks(&mut watcher, &server, &telemetry);
    assert_eq!(shown(&server), ["first.example"]);
    put("..2", &authority.paper(&["second.example"]));
    looks(&mut watcher, &server, &telemetry);
    assert_eq!(shown(&server), ["second.example"]);
}

#[test]
fn whoever_keeps_an_old_certificate_hears_of_it() {
    let authority = Authority::new();
    let files = Files::with(&authority.issues(&["localhost"], |params| params.not_after = date_time_ymd(2099, 3, 15)));
    let at = |text: &str| humantime::parse_rfc3339(text).expect("a time");
    let told = |now| {
        let objections = judge(&files.settings(), now);
        assert!(objections.iter().all(|objection| !objection.fatal && objection.key == "security.tls_cert"));
        objections.first().map(|objection| objection.text.clone()).unwrap_or_default()
    };
    assert_eq!(told(at("2099-02-01T00:00:00Z")), "");
    assert_eq!(told(at("2099-03-05T00:00:00Z")), "the certificate expires in 10 days, on 2099-03-15T00:00:00Z; renew it");
    assert!(told(at("2099-03-16T00:00:00Z")).contains("has expired"));
    assert!(told(at("1970-01-02T00:00:00Z")).contains("is this machine's clock right?"));
}
