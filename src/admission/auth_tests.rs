//! Tokens wherever clients put them, and users with passwords.

use secrecy::SecretString;

use super::*;
use crate::admission::asks_nothing;
use crate::config::UserEntry;

const TOKEN: &str = "s3cret-of-studio";
const OTHER: &str = "an0ther-secret";

fn entry(token: &str, name: &str) -> TokenEntry {
    let token = SecretString::from(token);
    TokenEntry { token, name: name.into(), publish: true, play: true, streams: Vec::new() }
}

fn authenticator(auth_tokens: Vec<TokenEntry>) -> Authenticator {
    Authenticator::new(&Security { auth_enabled: true, auth_tokens, ..asks_nothing() }).unwrap()
}

fn studio() -> Authenticator {
    authenticator(vec![entry(OTHER, "other"), entry(TOKEN, "studio")])
}

/// What `app` and `stream` become, and the judgement.
fn publish(auth: &Authenticator, app: &str, stream: &str, connect: &[&str]) -> (String, Result<Granted, AuthError>) {
    let mut name = StreamName::parse(app.as_bytes(), stream.as_bytes()).unwrap();
    let connect: Vec<Vec<u8>> = connect.iter().map(|token| token.as_bytes().to_vec()).collect();
    let answer = auth.authenticate(Action::Publish, &mut name, &connect, None).map(|granted| Granted { token: None, ..granted });
    let text = |part: Vec<u8>| String::from_utf8(part).unwrap();
    (format!("{} {}", text(name.app.to_bytes()), text(name.stream.to_bytes())), answer)
}

fn granted(name: &str, app_was_token: bool) -> Result<Granted, AuthError> {
    Ok(Granted { token: None, token_name: Some(name.into()), app_was_token })
}

#[test]
fn a_token_that_stays_keeps_its_number_and_one_that_goes_is_told() {
    let security = |tokens: &[(&str, &str)]| {
        let auth_tokens = tokens.iter().map(|(token, name)| entry(token, name)).collect();
        Security { auth_enabled: true, auth_tokens, ..asks_nothing() }
    };
    let number = |auth: &Authenticator, token: &str| {
        let mut name = StreamName::parse(b"live", b"cam").unwrap();
        auth.authenticate(Action::Play, &mut name, &[token.into()], None).unwrap().token.unwrap()
    };
    let first = Authenticator::new(&security(&[("one", "token-1"), ("two", "token-2")])).unwrap();
    let second = first.changed(&security(&[("two", "token-1"), ("three", "token-2")])).unwrap();
    assert_eq!(number(&first, "two"), number(&second, "two"), "whatever its name and place");
    assert_eq!(first.removed(&second), [number(&first, "one")]);
    let third = second.changed(&security(&[("one", "token-1")])).unwrap();
    assert_ne!(number(&third, "one"), number(&first, "one"), "a token that comes back is a new one");
    assert_eq!(second.removed(&third).len(), 2);
}

#[test]
fn a_token_is_found_wherever_a_client_may_put_it() {
    let auth = studio();
    let ok = granted("studio", false);
    let in_stream = format!("cam?a=1&token={TOKEN}&b=2");
    assert_eq!(publish(&auth, "live", &in_stream, &[]), ("live cam?a=1&b=2".into(), ok.clone()));
    let in_app = format!("live?token={TOKEN}");
    assert_eq!(publish(&auth, &in_app, "cam", &[]), ("live cam".into(), ok.clone()));
    assert_eq!(publish(&auth, "live", "cam", &[TOKEN]), ("live cam".into(), ok));
    assert_eq!(publish(&auth, TOKEN, "cam?x=1", &[]), (" cam?x=1".into(), granted("studio", true)));
}

#[test]
fn every_token_is_taken_out_also_where_the_client_is_refused() {
    let auth = studio();
    let (app, stream) = ("live?token=wrong1&k=v&token=wrong2", "cam?token=wrong3&token=");
    assert_eq!(publish(&auth, app, stream, &[]), ("live?k=v cam".into(), Err(AuthError::Unknown)));
    let several = format!("cam?token=wrong&token={TOKEN}");
    assert_eq!(publish(&auth, "live", &several, &["stale"]), ("live cam".into(), granted("studio", false)));
    let as_app_too = format!("cam?token={TOKEN}");
    assert_eq!(publish(&auth, OTHER, &as_app_too, &[]).0, " cam");
}

#[test]
fn without_a_token_or_with_a_wrong_one_nobody_comes_in() {
    let auth = studio();
    assert_eq!(publish(&auth, "live", "cam", &[]).1, Err(AuthError::Missing));
    assert_eq!(publish(&auth, "live", "cam?token=", &[""]).1, Err(AuthError::Missing));
    assert_eq!(publish(&auth, "live", "cam?token=s3cret", &[]).1, Err(AuthError::Unknown));
    assert_eq!(publish(&auth, "live", "cam?TOKEN=x", &[]).1, Err(AuthError::Missing));
    let inside = format!("{TOKEN}/live");
    assert_eq!(publish(&auth, &inside, "cam", &[]).1, Err(AuthError::Missing), "the app must be the token wholly");
    let empty = authenticator(vec![entry("", "empty")]);
    assert_eq!(publish(&empty, "", "cam?token=", &[""]).1, Err(AuthError::Missing));
}

#[test]
fn guessing_many_tokens_at_once_is_refused_even_with_the_right_one_among_them() {
    let mut connect = vec!["guess"; MAX_SHOWN];
    connect.insert(0, TOKEN);
    assert_eq!(publish(&studio(), "live", "cam", &connect).1, Err(AuthError::TooMany));
}

#[test]
fn a_proof_opens_what_its_token_opens() {
    let only = TokenEntry { streams: vec!["live/a".into()], ..entry(TOKEN, "studio") };
    let auth = authenticator(vec![entry(OTHER, "other"), only]);
    let judge = |stream: &str, known: &'static str| {
        let mut name = StreamName::parse(b"live", stream.as_bytes()).unwrap();
        let proof = Proof::Of { user: b"whoever", knows: &|secret| secret == known.as_bytes() };
        auth.authenticate(Action::Play, &mut name, &[], Some(proof)).map(|granted| Granted { token: None, ..granted })
    };
    assert_eq!(judge("a", TOKEN), granted("studio", false));
    assert_eq!(judge("b", TOKEN), Err(AuthError::Stream));
    assert_eq!(judge("a", "unknown"), Err(AuthError::Unknown));
}

#[test]
fn a_proof_of_a_user_s_password_is_one_under_its_name_alone() {
    let auth = house(AdobeAuth::None);
    let judge = |user: &str, known: &'static str| {
        let mut name = StreamName::parse(b"live", b"cam").unwrap();
        let proof = Proof::Of { user: user.as_bytes(), knows: &|secret| secret == known.as_bytes() };
        auth.authenticate(Action::Play, &mut name, &[], Some(proof)).map(|granted| Granted { token: None, ..granted })
    };
    assert_eq!(judge("bob", "bob-secret"), granted("bob", false));
    assert_eq!(judge("ann", "bob-secret"), Err(AuthError::Unknown));
    assert_eq!(judge("ann", TOKEN), granted("studio", false));
}

#[test]
fn with_authentication_off_nothing_is_touched() {
    let security = Security { auth_tokens: vec![entry(TOKEN, "studio")], ..asks_nothing() };
    let auth = Authenticator::new(&security).unwrap();
    let stream = format!("cam?token={TOKEN}");
    assert_eq!(publish(&auth, TOKEN, &stream, &[]), (format!("{TOKEN} {stream}"), Ok(Granted::default())));
}

#[test]
fn an_escaped_token_is_the_token() {
    let auth = authenticator(vec![entry("a&b+c", "odd")]);
    assert_eq!(publish(&auth, "live", "cam?token=a%26b%2Bc", &[]).1, granted("odd", false));
    let verbatim = authenticator(vec![entry("a%26b", "odd")]);
    assert_eq!(publish(&verbatim, "live", "cam?token=a%26b", &[]).1, granted("odd", false));
}

#[test]
fn an_entry_opens_only_its_actions_and_streams() {
    let viewer = TokenEntry { publish: false, ..entry(TOKEN, "viewer") };
    assert_eq!(publish(&authenticator(vec![viewer]), "live", "cam", &[TOKEN]).1, Err(AuthError::Action(Action::Publish)));
    let studio = TokenEntry { streams: vec!["live/cam*".into(), "a/**".into()], ..entry(TOKEN, "studio") };
    let auth = authenticator(vec![studio]);
    for (app, stream, opens) in [
        ("live", "cam1", true),
        ("live/cam1", "", true),
        ("live", "other", false),
        ("live", "cam/1", false),
        ("a/b", "c/d", true),
        ("a/b/c", "../x", false),
    ] {
        let want = if opens { granted("studio", false) } else { Err(AuthError::Stream) };
        assert_eq!(publish(&auth, app, stream, &[TOKEN]).1, want, "{app} {stream}");
    }
    let mut bytes = StreamName::parse(b"live", b"cam\xff").unwrap();
    assert!(auth.authenticate(Action::Play, &mut bytes, &[TOKEN.into()], None).is_ok(), "a name need not be UTF-8");
}

#[test]
fn one_of_several_entries_or_tokens_that_opens_the_stream_is_enough() {
    let only = |stream: &str, name| TokenEntry { streams: vec![stream.into()], ..entry(TOKEN, name) };
    let auth = authenticator(vec![only("live/a", "a"), only("live/b", "b"), entry(OTHER, "all")]);
    assert_eq!(publish(&auth, "live", "b", &[TOKEN]).1, granted("b", false));
    assert_eq!(publish(&auth, "live", "c", &[TOKEN]).1, Err(AuthError::Stream));
    assert_eq!(publish(&auth, "live", "c", &[TOKEN, OTHER]).1, granted("all", false));
}

#[test]
fn the_glob_sees_the_name_without_the_app_that_was_a_token() {
    let auth = authenticator(vec![TokenEntry { streams: vec!["cam".into()], ..entry(TOKEN, "studio") }]);
    assert_eq!(publish(&auth, TOKEN, "cam", &[]), (" cam".into(), granted("studio", true)));
}

#[test]
fn every_entry_is_compared_with_every_token_wherever_the_match_is() {
    let tokens = ["first", "second", "third", "fourth"];
    let auth = authenticator(tokens.iter().map(|token| entry(token, token)).collect());
    for shown in ["first", "fourth", "unknown", "x"] {
        let mut compared = 0;
        let found = auth.find(&[shown.into(), b"wrong".to_vec()], |a, b| {
            compared += 1;
            a.ct_eq(b)
        });
        assert_eq!(compared, 2 * tokens.len());
        assert_eq!(found, tokens.map(|token| token == shown));
    }
}

#[test]
fn no_token_is_in_any_text() {
    let auth = studio();
    let mut texts = vec![format!("{auth:?}")];
    for shown in [TOKEN, "wr0ng-secret"] {
        let mut name = StreamName::parse(shown.as_bytes(), format!("cam?token={shown}").as_bytes()).unwrap();
        let answer = auth.authenticate(Action::Play, &mut name, &[shown.into()], None);
        texts.push(format!("{answer:?} {name:?}"));
        texts.extend(answer.err().map(|error| format!("{error} {}", error.reason())));
    }
    let globs = TokenEntry { streams: vec!["s3cret-key[".into()], ..entry(TOKEN, "studio") };
    let security = Security { auth_enabled: true, auth_tokens: vec![globs], ..asks_nothing() };
    let bad = Authenticator::new(&security).unwrap_err();
    assert!(bad.to_string().contains("studio"), "the entry is named");
    texts.push(format!("{bad} {bad:?}"));
    assert!(texts.iter().all(|text| !text.contains("s3cret") && !text.contains("wr0ng")), "{texts:?}");
}

fn user(user: &str, password: &str, name: &str) -> UserEntry {
    UserEntry { user: user.into(), entry: entry(password, name) }
}

/// One token, and two users; one of them has two passwords.
fn house(adobe_auth: AdobeAuth) -> Authenticator {
    let users = vec![user("ann", "ann-secret", "ann"), user("ann", "ann-other", "ann at home"), user("bob", "bob-secret", "bob")];
    let auth_tokens = vec![entry(TOKEN, "studio")];
    Authenticator::new(&Security { auth_enabled: true, auth_tokens, users, adobe_auth, ..asks_nothing() }).unwrap()
}

fn logged_in(auth: &Authenticator, user: &str, password: &str) -> Result<Arc<str>, AuthError> {
    let login = auth.login(user.as_bytes(), format!("proof of {password}").as_bytes(), |known| format!("proof of {known}"))?;
    let mut name = StreamName::parse(b"live", b"cam").unwrap();
    Ok(auth.authenticate(Action::Publish, &mut name, &[], Some(Proof::Login(&login)))?.token_name.unwrap())
}

#[test]
fn a_login_opens_what_its_user_may_and_a_token_is_everybody_s_password() {
    let auth = house(AdobeAuth::None);
    for (user, password, name) in [
        ("ann", "ann-secret", Ok("ann")),
        ("ann", "ann-other", Ok("ann at home")),
        ("bob", "bob-secret", Ok("bob")),
        ("whoever", TOKEN, Ok("studio")),
        ("ann", "bob-secret", Err(AuthError::Password)),
        ("carl", "bob-secret", Err(AuthError::Password)),
        ("bob", "bob-secre", Err(AuthError::Password)),
        ("bob", "", Err(AuthError::Password)),
    ] {
        assert_eq!(logged_in(&auth, user, password), name.map(Into::into), "{user} {password}");
    }
}

#[test]
fn a_password_without_its_user_is_no_token() {
    let auth = house(AdobeAuth::None);
    for shown in ["bob-secret", "bob\0bob-secret", "bob%00bob-secre"] {
        let mut name = StreamName::parse(b"live", b"cam").unwrap();
        let answer = auth.authenticate(Action::Play, &mut name, &[shown.into()], None).map(|granted| granted.token_name);
        let whole = shown.contains('\0');
        // Who shows both has shown what a login would.
        assert_eq!(answer, if whole { Ok(Some("bob".into())) } else { Err(AuthError::Unknown) }, "{shown}");
    }
}

#[test]
fn a_login_is_no_longer_one_when_its_user_is_gone() {
    let login = house(AdobeAuth::None).login(b"bob", b"bob-secret", str::to_owned).unwrap();
    let mut name = StreamName::parse(b"live", b"cam").unwrap();
    assert_eq!(studio().authenticate(Action::Publish, &mut name, &[], Some(Proof::Login(&login))), Err(AuthError::Unknown));
}

#[test]
fn a_connect_is_asked_about_only_where_it_shows_nothing_and_where_the_operator_wants_it() {
    let apps = || AdobeAuth::Apps(vec!["studio".into(), "in/*".into()]);
    let token_app = format!("live?x=1&token={TOKEN}");
    for (adobe, app, tokens, asked) in [
        (AdobeAuth::All, "live", &[][..], true),
        (AdobeAuth::None, "live", &[], false),
        (apps(), "studio", &[], true),
        (apps(), "studio?x=1", &[], true),
        (apps(), "in/a", &[], true),
        (apps(), "in/a/b", &[], false),
        (apps(), "live", &[], false),
        (AdobeAuth::All, &token_app, &[], false),
        (AdobeAuth::All, "live?token=wrong", &[], false),
        (AdobeAuth::All, "live", &["wrong"], false),
        (AdobeAuth::All, TOKEN, &[], false),
    ] {
        let tokens: Vec<Vec<u8>> = tokens.iter().map(|token: &&str| (*token).into()).collect();
        assert_eq!(house(adobe.clone()).asks(app.as_bytes(), &tokens), asked, "{adobe:?} {app}");
    }
    let security = Security { adobe_auth: AdobeAuth::All, ..asks_nothing() };
    assert!(!Authenticator::new(&security).unwrap().asks(b"live", &[]), "authentication is off");
}
