//! Tests of upstream URLs.

use super::*;

fn parse(text: &str) -> Result<UpstreamUrl, UrlError> {
    UpstreamUrl::parse(text)
}

/// host, port, app path, app query, stream path, stream query, as templates were written.
fn taken_apart(text: &str) -> (String, u16, Vec<String>) {
    let url = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let written = |part: &FixedPart| [part.path.written(), part.query.written()];
    let parts = match &url.fixed {
        Fixed::Nothing => Vec::new(),
        Fixed::App(app) => written(app).to_vec(),
        Fixed::Both { app, stream } => [written(app), written(stream)].concat(),
    };
    (url.host().to_string(), url.port(), parts)
}

#[test]
fn one_segment_is_the_app_and_with_more_the_last_is_the_stream() {
    let cases: [(&str, &[&str]); 9] = [
        ("rtmp://h:1936", &[]),
        ("rtmp://h:1936/", &[]),
        ("rtmp://h:1936/live", &["live", ""]),
        ("rtmp://h:1936/live/", &["live", ""]),
        ("rtmp://h:1936/live/key", &["live", "", "key", ""]),
        ("rtmp://h:1936/a/b/{stream}", &["a/b", "", "{stream}", ""]),
        ("rtmp://h:1936/{app}/{stream}", &["{app}", "", "{stream}", ""]),
        ("rtmp://h:1936/a/b/c-{app}-d", &["a/b", "", "c-{app}-d", ""]),
        ("rtmp://h:1936/live/mp4:cam@1", &["live", "", "mp4:cam@1", ""]),
    ];
    for (text, parts) in cases {
        let parts = parts.iter().map(ToString::to_string).collect();
        assert_eq!(taken_apart(text), ("h".into(), 1936, parts), "{text}");
    }
}

#[test]
fn a_query_belongs_to_the_part_it_follows() {
    let cases: [(&str, &[&str]); 8] = [
        ("rtmp://h/live2?backup=1", &["live2", "backup=1"]),
        ("rtmp://h/live2?backup=1/", &["live2", "backup=1"]),
        ("rtmp://h/live2?backup=1/{stream}", &["live2", "backup=1", "{stream}", ""]),
        ("rtmp://h/live2?backup=1/key?a=b/c?d", &["live2", "backup=1", "key", "a=b/c?d"]),
        ("rtmp://h/live/key?x=y", &["live", "", "key", "x=y"]),
        ("rtmp://h/live/key?x=a/b&&y=%20{stream}?", &["live", "", "key", "x=a/b&&y=%20{stream}?"]),
        ("rtmp://h/live?", &["live", ""]),
        ("rtmp://h/live/key?", &["live", "", "key", ""]),
    ];
    for (text, parts) in cases {
        assert_eq!(taken_apart(text).2, parts, "{text}");
    }
    for text in ["rtmp://h?x=y", "rtmp://h/?x=y", "rtmp://h:1?x"] {
        assert_eq!(parse(text), Err(UrlError::LoneQuery), "{text}");
    }
}

#[test]
fn hosts_are_names_and_addresses_without_tricks() {
    for (text, host, port) in [
        ("RTMP://Origin-1.example_x.net", "Origin-1.example_x.net", 1935),
        ("rtmp://origin.example.:80/live", "origin.example", 80),
        ("rtmp://192.0.2.7:65535", "192.0.2.7", 65535),
        ("rtmp://[2001:DB8::1]", "[2001:db8::1]", 1935),
        ("rtmp://[::ffff:10.0.0.1]:1/x", "[::ffff:10.0.0.1]", 1),
        ("rtmp://1host.2x", "1host.2x", 1935),
    ] {
        let (got_host, got_port, _) = taken_apart(text);
        assert_eq!((got_host.as_str(), got_port), (host, port), "{text}");
    }
    assert_eq!(parse("rtmp://origin.example.").expect("a URL").host(), &Host::Name("origin.example.".into()), "kept for DNS");
    for text in ["127.1", "2130706433", "0x7f000001", "10.0x1", "256.1.1.1", "1.2.3.4.5", "0177.0.0.1"] {
        assert!(matches!(parse(&format!("rtmp://{text}/live")), Err(UrlError::Host(_))), "{text}");
    }
    for text in ["a..b", ".", "a b", "-_*", "a,b", "hö.example", "[1.2.3.4]", "[::1", "[::1]x", "::1", "2001:db8::1:1935", "[]"]
    {
        assert!(parse(&format!("rtmp://{text}/live")).is_err(), "{text}");
    }
    assert!(matches!(parse(&format!("rtmp://{}", "a".repeat(64))), Err(UrlError::Host(_))));
    assert!(matches!(parse(&format!("rtmp://{}a", "a.".repeat(127))), Err(UrlError::Host(_))));
}

#[test]
fn a_scheme_brings_its_port_and_stands_in_the_label() {
    for (text, port, label, origin) in [
        ("rtmp://h/live/k", 1935, "rtmp://h:1935/live", "rtmp://h"),
        ("RTMPS://h./live/k", 443, "rtmps://h:443/live", "rtmps://h"),
        ("rtmps://h:1935/live", 1935, "rtmps://h:1935/live", "rtmps://h:1935"),
        ("rtsp://[::1]/live", 554, "rtsp://[::1]:554/live", "rtsp://[::1]"),
        ("rtsps://10.0.0.1", 322, "rtsps://10.0.0.1:322", "rtsps://10.0.0.1"),
    ] {
        let url = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!((url.port(), url.label().as_str(), url.origin().as_str()), (port, label, origin), "{text}");
    }
    let family = |text: &str| parse(text).map(|url| (url.scheme().family(), url.scheme().is_private()));
    assert_eq!(family("rtmps://h"), Ok((Family::Rtmp, true)));
    assert_eq!(family("rtsp://h"), Ok((Family::Rtsp, false)));
}

#[test]
fn a_certificate_is_for_the_name_without_its_dot_or_for_the_address() {
    let name = |text: &str| parse(text).ok().and_then(|url| url.host().server_name()).map(|name| name.to_str().into_owned());
    assert_eq!(name("rtmps://Origin_1.example./live").as_deref(), Some("Origin_1.example"));
    assert_eq!(name("rtmps://[2001:db8::1]").as_deref(), Some("2001:db8::1"));
    let text = parse("rtmps://-a.example").expect_err("no certificate can have it").to_string();
    assert!(text.contains("no certificate can be for it"), "{text}");
    assert!(parse("rtmp://-a.example").is_ok(), "DNS itself is less strict");
}

#[test]
fn what_is_refused_is_refused_by_name() {
    use UrlError::*;
    for (text, error) in [
        ("", NoScheme),
        ("origin.example:1935/live", NoScheme),
        ("rtmpe://h/live", Flash("rtmpe")),
        ("RTMPTE://h/live", Flash("rtmpte")),
        ("rtmpt://h/live", Flash("rtmpt")),
        ("http://h/live", Scheme),
        ("://h", Scheme),
        ("rtmp://", NoHost),
        ("rtmp:///live", NoHost),
        ("rtmp://:1935/live", NoHost),
        ("rtmp://h:/live", Port),
        ("rtmp://h:0/live", Port),
        ("rtmp://h:65536/live", Port),
        ("rtmp://h:+1/live", Port),
        ("rtmp://h:99999999999999999999/live", Port),
        ("rtmp://[fe80::1%eth0]:1935/live", Zone),
        ("rtmp://fe80::1%eth0/live", Zone),
        ("rtmp://:pass@h/live", User),
        ("rtmps://a%26b:pass@h/live", User),
        ("rtmp://user:pa/ss@h/live", Slash),
        ("rtsp://user:pa?ss@h/live", Slash),
        ("rtmp://user:pa%0ass@h/live", Userinfo),
        ("rtmp://h/live#x", Fragment),
        ("rtmp://h/a b", Blank),
        (" rtmp://h/live", Blank),
        ("rtmp://h/live\n", Blank),
        ("rtmp://h/li\0ve", Blank),
        ("rtmp://h/li\u{a0}ve", Blank),
        ("rtmp://h/live/{name}", Placeholder),
        ("rtmp://h/live/{stream", Placeholder),
        ("rtmp://h/live/key?x={token}", Placeholder),
        ("rtmp://{app}/live", PlaceholderPlace),
        ("rtmp://h:{stream}/live", PlaceholderPlace),
        ("rtmp://{app}@h/live", PlaceholderPlace),
        ("{app}://h/live", PlaceholderPlace),
        ("rtmp://h//live", Segment),
        ("rtmp://h/a/../b", Segment),
        ("rtmp://h/a/.", Segment),
        ("rtmp://h//", Segment),
        ("rtmp://h/live?cb=http://x/y", Segment),
        ("rtmp://h/live/?x=y", Segment),
        ("rtmp://h/a/b/", TrailingSlash),
    ] {
        assert_eq!(parse(text), Err(error), "{text:?}");
    }
    assert_eq!(parse(&format!("rtmp://h/{}", "x".repeat(MAX_URL))), Err(TooLong));
}

#[test]
fn errors_and_debug_never_repeat_a_secret() {
    for text in [
        "rtmp://S3CRET&:S3CRET@h/live",
        "rtmp://user:S3CRET/x@h/live",
        "rtmp://S3CRET%00:S3CRET@h/live",
        "rtmp://h:1/live/S3CRET S3CRET",
        "rtmp://h/live/{S3CRET}",
        "rtmp://h/S3CRET/../S3CRET",
        "S3CRET",
        "S3CRET://h",
        "rtmp://h/live?S3CRET#S3CRET",
        "rtmp://S3CRET!/live",
    ] {
        let error = parse(text).expect_err(text);
        assert!(!format!("{error} {error:?}").contains("S3CRET"), "{text}: {error}");
    }
    let url = parse("rtmp://h/live?k=S3CRET/S3CRET?k=S3CRET").expect("a URL");
    assert_eq!(url.label(), "rtmp://h:1935/live");
    assert!(!format!("{url:?}").contains("S3CRET"));
}

#[test]
fn texts_name_what_is_allowed() {
    let text = parse("rtmp://h/live/{name}").expect_err("a placeholder").to_string();
    assert!(text.contains("{app} and {stream}"), "{text}");
    let text = parse("rtmp://{app}/live").expect_err("a placeholder").to_string();
    assert!(text.contains("path and query only"), "{text}");
    let text = parse("srt://h").expect_err("a scheme").to_string();
    assert!(text.contains("rtmp://, rtmps://, rtsp:// or rtsps://"), "{text}");
    let text = parse("rtmp://u:p/w@h").expect_err("a password that ends early").to_string();
    assert!(text.contains("written %2F"), "{text}");
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,60}", tail in "[a-z0-9:/?@#{}\\[\\].%&=-]{0,60}") {
        let _ = parse(&text);
        let _ = parse(&format!("rtmp://{tail}"));
        let _ = parse(&format!("rtmp://h/{tail}"));
    }
}

#[test]
fn a_url_may_hold_a_login_that_nothing_shows() {
    for scheme in ["rtmp", "rtmps", "rtsp", "rtsps"] {
        let url = parse(&format!("{scheme}://us%40er:p@ss:w@h:8554/live")).expect("a URL");
        let login = url.login().expect("a login");
        assert_eq!((login.user(), secrecy::ExposeSecret::expose_secret(login.password())), ("us@er", "p@ss:w"));
        assert_eq!((url.label(), url.origin()), (format!("{scheme}://h:8554/live"), format!("{scheme}://h:8554")));
        assert!(!format!("{url:?}").contains("ss:w"));
    }
    assert_eq!(parse("rtsp://h").expect("a URL").login(), None);
    assert_eq!(parse("rtsp://a%ff:b@h"), Err(UrlError::Userinfo));
}
