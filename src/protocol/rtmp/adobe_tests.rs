//! The exchange as real clients write it, and hashes that were computed elsewhere.

use super::*;

fn taken(text: &str) -> (String, Option<Said>) {
    let mut bytes = text.as_bytes().to_vec();
    let said = take(&mut bytes);
    (String::from_utf8(bytes).expect("UTF-8 went in"), said)
}

fn user(name: &str) -> Option<Said> {
    Some(Said::User(name.into()))
}

fn answer(user: &str, challenge: &str, response: &str, opaque: &str) -> Option<Said> {
    Some(Said::Response(Response {
        user: user.into(),
        challenge: challenge.into(),
        response: response.into(),
        opaque: opaque.into(),
    }))
}

/// With Python's hashlib and base64.
#[test]
fn the_hash_is_what_others_compute() {
    for (user, salt, password, opaque, challenge, want) in [
        ("studio", "WB3LpQAA", "s3cret-token", "vgoAAA==", "a1b2c3d4", "VkJjEFCO6jIulH0EjX9qZQ=="),
        ("user", "SaltSalt", "pass", "", "12345678", "cDG5uu8lCsrXib0+sqBPug=="),
        ("ü", "s", "p&=+/", "o-p_q", "AbC+/w==", "UO8xauNoArKdeWVTdbME5g=="),
    ] {
        let parts = [user, salt, password, opaque, challenge].map(str::as_bytes);
        assert_eq!(response(parts[0], parts[1], parts[2], parts[3], parts[4]), want, "{user}");
    }
}

#[test]
fn what_clients_say_is_taken_out_of_their_app() {
    for (text, rest, said) in [
        ("live", "live", None),
        ("live?token=x", "live?token=x", None),
        ("live?xauthmod=adobe&user=u", "live?xauthmod=adobe&user=u", None),
        ("live?authmod=adobe&user=studio", "live", user("studio")),
        // librtmp, behind a query of its user's own.
        ("live?room=7?authmod=adobe&user=studio", "live?room=7", user("studio")),
        ("live?room=7&authmod=adobe&user=studio&x=1", "live?room=7&x=1", user("studio")),
        ("live?authmod=adobe&user=studio&room=7", "live?room=7", user("studio")),
        // ffmpeg and GStreamer.
        (
            "a/b?authmod=adobe&user=u&challenge=0a1b2c3d&response=q/+A==&opaque=o-p_",
            "a/b",
            answer("u", "0a1b2c3d", "q/+A==", "o-p_"),
        ),
        // librtmp: the padding of its own challenge.
        ("live?authmod=adobe&user=u&challenge=AbC+/w==&response=R==&opaque=", "live", answer("u", "AbC+/w==", "R==", "")),
        ("live?authmod=adobe&user=u&response=R==", "live", user("u")),
        ("live?authmod=adobe", "live", Some(Said::Other)),
        ("live?authmod=adobe&user=", "live", Some(Said::Other)),
        ("live?authmod=llnw&user=u&nonce=1&cnonce=2&nc=00000001&response=3", "live", Some(Said::Other)),
        ("rtmp://relay.test/live?authmod=adobe&user=studio", "rtmp://relay.test/live", user("studio")),
    ] {
        assert_eq!(taken(text), (rest.to_owned(), said), "{text}");
    }
    let long = format!("live?authmod=adobe&user={}", "u".repeat(MAX_USER + 1));
    assert_eq!(taken(&long).1, Some(Said::Other));
    assert_eq!(taken("live?authmod=adobe&user=a\nb").1, Some(Said::Other));
}

#[test]
fn of_several_authentications_none_stays() {
    let (rest, said) = taken("live?authmod=adobe&user=ann&x?authmod=adobe&user=bob&response=r&y=1");
    assert_eq!(said, user("bob"), "what is said last");
    assert!(!rest.contains("authmod") && rest.starts_with("live?"), "{rest}");
}

/// As long as they get.
fn challenge() -> Challenge {
    Challenge { salt: "s".repeat(8), challenge: "c".repeat(8), opaque: "o".repeat(43) }
}

#[test]
fn descriptions_fit_into_what_clients_read_of_them() {
    let longest = need_proof(&[b'u'; MAX_USER], &challenge());
    assert!(longest.len() <= 255, "{}", longest.len());
}

#[test]
fn both_sides_understand_each_other() {
    assert_eq!(asked(&need_auth("words")), Some(Asked::User));
    let question = String::from_utf8(need_proof(b"studio", &challenge())).expect("ASCII");
    assert_eq!(asked(&question), Some(Asked::Proof(challenge())));
    assert_eq!(asked(&failed("words")), Some(Asked::Nothing));
    assert_eq!(asked("[ AccessManager.Reject ] : [ code=403 need auth; authmod=llnw ] : "), Some(Asked::Other));
    assert_eq!(asked("no such app"), None);
    // Wowza and FMS, as recorded in the sources of clients.
    let fms =
        "[ AccessManager.Reject ] : [ authmod=adobe ] : ?reason=needauth&user=u&salt=WB3LpQAA&challenge=vgoAAA==&opaque=vgoAAA==";
    let both = |text: &str| Challenge { salt: "WB3LpQAA".into(), challenge: "vgoAAA==".into(), opaque: text.into() };
    assert_eq!(asked(fms), Some(Asked::Proof(both("vgoAAA=="))));
    let bare = fms.split("&opaque").next().expect("a front");
    assert_eq!(asked(bare), Some(Asked::Proof(both(""))));
}

#[test]
fn a_proof_is_one_that_the_server_side_reads_back() {
    let mut app = format!("live{}", naming("studio")).into_bytes();
    assert_eq!(take(&mut app), user("studio"));
    let question = Challenge { salt: "WB3LpQAA".into(), challenge: "c".into(), opaque: "vgoAAA==".into() };
    let mut app = format!("live?x=1{}", proving("studio", "s3cret-token", &question, "a1b2c3d4")).into_bytes();
    assert_eq!(take(&mut app), answer("studio", "a1b2c3d4", "VkJjEFCO6jIulH0EjX9qZQ==", "vgoAAA=="));
    assert_eq!(app, b"live?x=1");
    // A server without an opaque binds the answer to its challenge.
    let bare = Challenge { opaque: String::new(), challenge: "vgoAAA==".into(), ..question };
    let mut app = format!("live{}", proving("studio", "s3cret-token", &bare, "a1b2c3d4")).into_bytes();
    assert_eq!(take(&mut app), answer("studio", "a1b2c3d4", "VkJjEFCO6jIulH0EjX9qZQ==", ""));
}

#[test]
fn a_login_takes_two_answers_and_no_question_is_answered_twice() {
    let who = Some(("studio", "s3cret-token"));
    let answer = |login: &mut Login, asked: Asked| login.answer(&asked, who, "a1b2c3d4");
    let proof = Asked::Proof(challenge());
    let mut login = Login::default();
    assert_eq!(answer(&mut login, Asked::User), Ok(naming("studio")));
    assert_eq!(answer(&mut login, proof.clone()), Ok(proving("studio", "s3cret-token", &challenge(), "a1b2c3d4")));
    for asked in [proof.clone(), Asked::User, Asked::Nothing] {
        assert_eq!(answer(&mut login, asked), Err(LoginError::Wrong));
    }
    let mut named = Login::default();
    assert!(answer(&mut named, Asked::User).is_ok());
    assert_eq!(answer(&mut named, Asked::User), Err(LoginError::Wrong));
    assert_eq!(answer(&mut Login::default(), Asked::Nothing), Err(LoginError::Wrong));
    assert_eq!(answer(&mut Login::default(), Asked::Other), Err(LoginError::Other));
    assert_eq!(Login::default().answer(&proof, None, ""), Err(LoginError::Missing));
    for word in ["o".repeat(MAX_WORD + 1), "a&b".into(), "a\r\nb".into(), "a b".into()] {
        let bad = Asked::Proof(Challenge { opaque: word, ..challenge() });
        assert_eq!(answer(&mut Login::default(), bad), Err(LoginError::Unusable));
    }
}

#[test]
fn names_and_proofs_are_not_printed() {
    let said = taken("live?authmod=adobe&user=studio&challenge=0a&response=hush&opaque=hush").1;
    let text = format!("{said:?} {:?}", user("studio"));
    assert!(!text.contains("studio") && !text.contains("hush"), "{text}");
}
