//! Tests of how a client's stream is named to an upstream.

use super::*;

const ALL: ForwardQuery = ForwardQuery::All;

fn ask(url: &str, app: &str, stream: &str, forward: &ForwardQuery) -> Result<[String; 3], TargetError> {
    let target = Target::parse(TargetId(0), url).unwrap_or_else(|error| panic!("{url}: {error}"));
    let name = StreamName::parse(app.as_bytes(), stream.as_bytes())?;
    let names = target.address(&name, forward)?;
    Ok([names.app, names.stream, names.tc_url].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

fn named(app: &str, stream: &str, tc_url: &str) -> Result<[String; 3], TargetError> {
    Ok([app.into(), stream.into(), tc_url.into()])
}

#[test]
fn without_a_path_the_client_s_own_split_travels() {
    for (app, stream) in [("a/b", "c/d"), ("a/b/c", "d"), ("a/b/c/d", ""), ("live", "mp4:cam.mp4")] {
        assert_eq!(ask("rtmp://h", app, stream, &ALL), named(app, stream, &format!("rtmp://h/{app}")));
    }
    let got = ask("rtmp://h:1936", "live?x=1&y", "cam?a=%20b&x=2", &ALL);
    assert_eq!(got, named("live?x=1&y", "cam?a=%20b&x=2", "rtmp://h:1936/live?x=1&y"));
}

#[test]
fn a_fixed_app_leaves_the_stream_whatever_the_client_s_split() {
    for (app, stream) in [("a/b", "c/cam"), ("a/b/c", "cam"), ("a/b/c/cam", ""), ("", "cam")] {
        assert_eq!(ask("rtmp://h/live", app, stream, &ALL), named("live", "cam", "rtmp://h/live"), "{app}|{stream}");
    }
    assert_eq!(
        ask("rtmp://h/live2?backup=1", "x?k=v&backup=0", "cam?q=r", &ALL),
        named("live2?backup=1&k=v", "cam?q=r", "rtmp://h/live2?backup=1&k=v")
    );
}

#[test]
fn a_url_that_fixes_both_needs_nothing_and_keeps_its_query_byte_for_byte() {
    let url = "rtmp://h/live/key?x=%7e/a?b&&y=";
    assert_eq!(ask(url, "", "", &ALL), named("live", "key?x=%7e/a?b&&y=", "rtmp://h/live"));
    assert_eq!(ask(url, "a", "b?x=1&y=2&z=3", &ALL), named("live", "key?x=%7e/a?b&&y=&z=3", "rtmp://h/live"));
}

#[test]
fn placeholders_are_filled_from_the_identity() {
    let url = "rtmp://h/x/{app}/{stream}-hd?from={app}&s={stream}";
    let want = named("x/a/b", "c&-hd?from=a%2Fb&s=c%26", "rtmp://h/x/a/b");
    assert_eq!(ask(url, "a", "b/c&", &ALL), want);
    assert_eq!(ask(url, "a/b", "c&", &ALL), want);
    assert_eq!(ask("rtmp://h/{stream}?k={app}", "a", "b", &ALL), named("b?k=a", "b", "rtmp://h/b?k=a"));
    assert_eq!(ask("rtmp://h/live2?backup=1/{stream}", "a", "b", &ALL), named("live2?backup=1", "b", "rtmp://h/live2?backup=1"));
}

#[test]
fn what_is_missing_is_said() {
    use TargetError::{MissingApp, MissingStream};
    for (url, app, stream, error) in [
        ("rtmp://h", "live", "", MissingStream),
        ("rtmp://h", "", "cam", MissingApp),
        ("rtmp://h", "?x=y", "live/cam", MissingApp),
        ("rtmp://h/live", "x", "", MissingStream),
        ("rtmp://h/live", "", "", MissingStream),
        ("rtmp://h/{app}", "", "cam", MissingApp),
        ("rtmp://h/live/{stream}", "x", "", MissingStream),
        ("rtmp://h/live/key?a={app}", "", "cam", MissingApp),
    ] {
        assert_eq!(ask(url, app, stream, &ALL), Err(error), "{url} {app}|{stream}");
    }
    // A token as the app: the rest of the name is enough where the URL asks for no more.
    assert_eq!(ask("rtmp://h/{app}/{stream}", "", "live/cam", &ALL), named("live", "cam", "rtmp://h/live"));
}

#[test]
fn client_arguments_travel_as_the_setting_says() {
    let keys = ForwardQuery::Keys(vec!["a".into()]);
    assert_eq!(ask("rtmp://h", "l?a=1&b=2", "s?b=3&a=4&a=5", &keys), named("l?a=1", "s?a=4&a=5", "rtmp://h/l?a=1"));
    assert_eq!(ask("rtmp://h", "l?a=1", "s?b=3", &ForwardQuery::None), named("l", "s", "rtmp://h/l"));
    assert_eq!(ask("rtmp://h/l/k?z=1", "l?a=1", "s?b=3", &ForwardQuery::None), named("l", "k?z=1", "rtmp://h/l"));
}

#[test]
fn keys_that_the_url_fixes_win_on_both_parts_and_encoded() {
    let got = ask("rtmp://h/live/key?name=a", "x?name=b&y=1", "s?name=c&n%61me=d&%6E%61%6d%65=e&names=f&name", &ALL);
    assert_eq!(got, named("live?y=1", "key?name=a&names=f", "rtmp://h/live?y=1"));
}

#[test]
fn hostile_names_are_refused_wherever_the_path_comes_from() {
    for url in ["rtmp://h", "rtmp://h/live", "rtmp://h/live/key", "rtmp://h/{app}/{stream}"] {
        for (app, stream) in [("..", "x"), ("a", "../x"), ("a/", "b"), ("a", "."), ("/a", "b"), ("a//b", "c")] {
            assert_eq!(ask(url, app, stream, &ALL), Err(TargetError::Name(NameError::Segment)), "{url} {app}|{stream}");
        }
    }
    assert_eq!(ask("rtmp://h/.{stream}/x", "a", "b", &ALL), named(".b", "x", "rtmp://h/.b"));
    let long = "x".repeat(1000);
    let url = format!("rtmp://h/{}", "{app}".repeat(5));
    assert_eq!(ask(&url, &long, "s", &ALL), Err(TargetError::TooLong));
}

#[test]
fn a_tc_url_has_no_trailing_dot_and_brackets_addresses() {
    assert_eq!(ask("rtmp://o.example.:1935/live", "a", "s", &ALL), named("live", "s", "rtmp://o.example/live"));
    assert_eq!(ask("rtmp://[2001:db8::1]:1936", "a", "s", &ALL), named("a", "s", "rtmp://[2001:db8::1]:1936/a"));
}

#[test]
fn debug_and_errors_show_no_name() {
    let target = Target::parse(TargetId(0), "rtmp://h/live/S3CRET?k=S3CRET").expect("a URL");
    let name = StreamName::parse(b"S3CRET", b"S3CRET").expect("a name");
    let names = target.address(&name, &ALL).expect("names");
    assert!(!format!("{target:?} {names:?} {}", target.label).contains("S3CRET"));
}

#[test]
fn an_rtsp_upstream_has_one_path_and_all_arguments_behind_it() {
    let locate = |url: &str, app: &str, stream: &str| {
        let target = Target::parse(TargetId(0), url).expect("a URL");
        let name = StreamName::parse(app.as_bytes(), stream.as_bytes()).expect("a name");
        target.locate(&name, &ForwardQuery::All).map(|at| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            format!("{} {} {}", text(&at.origin), text(&at.path), text(&at.query))
        })
    };
    let ok = |text: &str| Ok(text.to_owned());
    assert_eq!(locate("rtsp://u:p@h", "a/b", "cam?x=1"), ok("rtsp://h a/b/cam x=1"));
    assert_eq!(locate("rtsp://h:8554", "", "cam"), ok("rtsp://h:8554 cam "), "a path of one segment");
    assert_eq!(locate("rtsps://h/live?k=1", "a", "cam?x=1&k=2"), ok("rtsps://h live/cam k=1&x=1"));
    assert_eq!(locate("rtsp://h/a/{app}-{stream}?s={stream}", "x", "cam"), ok("rtsp://h a/x-cam s=cam"));
    assert_eq!(locate("rtsp://h/live", "a", ""), Err(TargetError::MissingStream));
    assert_eq!(locate("rtsp://h", "", ""), Err(TargetError::MissingStream));
    assert_eq!(locate("rtsp://h", "a", ".."), Err(TargetError::Name(NameError::Segment)));
    assert_eq!(locate("rtsp://h/{app}", "", "cam"), Err(TargetError::MissingApp));
    let long = "x".repeat(1000);
    assert_eq!(locate("rtsp://h/a/{stream}{stream}{stream}{stream}{stream}", "a", &long), Err(TargetError::TooLong));
    let target = Target::parse(TargetId(0), "rtsp://u:S3CRET@h/a/KEY?k=S3CRET").expect("a URL");
    let at = target.locate(&StreamName::parse(b"a", b"b").expect("a name"), &ForwardQuery::All);
    assert!(
        !format!("{target:?} {at:?} {}", target.label).contains("S3CRET") && !format!("{at:?}{}", target.label).contains("KEY")
    );
}
