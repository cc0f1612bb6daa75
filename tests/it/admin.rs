//! What an operator may have done over /admin, who may not, and what is told of it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use serde_json::{Value, json};

use crate::client::Client;
use crate::ear::End;
use crate::origin::Origin;
use crate::private::{Authority, Tunnel, believing};
use crate::relay::{Process, configured};
use crate::wait::{SOON, wait_equal, wait_for, wait_until};

const TOKEN: &str = "hush-hush-hush-hush";

/// Where /admin of a relay answers, and what is shown there.
struct Admin {
    address: SocketAddr,
    head: String,
}

impl Admin {
    fn of(relay: &Process) -> Self {
        let told = || relay.events("admin_listening").first().and_then(|line| line["address"].as_str()?.parse().ok());
        let address = wait_for("/admin answers", told);
        Self { address, head: format!("Host: {address}\r\n") }
    }

    fn showing(self, token: &str) -> Self {
        let head = format!("{}Authorization: Bearer {token}\r\n", self.head);
        Self { head, ..self }
    }

    fn with(&self, header: &str) -> Self {
        Self { address: self.address, head: format!("{}{header}\r\n", self.head) }
    }

    /// The whole answer: its head, and its body as JSON.
    fn heard(&self, method: &str, path: &str, body: &str) -> (String, Value) {
        let mut socket = TcpStream::connect(self.address).expect("/admin takes a connection");
        socket.set_read_timeout(Some(SOON)).expect("a timeout can be set");
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        write!(socket, "{method} {path} HTTP/1.1\r\n{}{length}Connection: close\r\n\r\n{body}", self.head).expect("it reads");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("it answers");
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
        (head.to_owned(), serde_json::from_str(body).unwrap_or_else(|_| panic!("{method} {path}: no JSON: {answer}")))
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let (head, body) = self.heard(method, path, body);
        (head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status code"), body)
    }

    fn get(&self, path: &str) -> Value {
        let (code, body) = self.ask("GET", path, "");
        assert_eq!(code, 200, "{path}: {body}");
        body
    }
}

fn relay_with(origin: &Origin, mut more: Value) -> Process {
    more["admin_addr"] = json!("127.0.0.1:0");
    Process::with(&origin.url(""), more)
}

fn error(answer: &Value) -> &str {
    answer["error"].as_str().unwrap_or_else(|| panic!("{answer} does not say what is wrong"))
}

/// The action lines so far, in short.
fn actions(relay: &Process) -> Vec<(String, Value, Value)> {
    let line = |line: Value| (line["action"].as_str().unwrap_or("?").to_owned(), line["object"].clone(), line["status"].clone());
    relay.events("admin_action").into_iter().map(line).collect()
}

fn counted(relay: &Process, action: &str, result: &str) -> u64 {
    relay.metric(&format!("rtmp_relay_admin_actions_total{{action=\"{action}\",result=\"{result}\"}}"))
}

fn refusals(relay: &Process, reason: &str) -> u64 {
    relay.metric(&format!("rtmp_relay_admin_refusals_total{{reason=\"{reason}\"}}"))
}

#[test]
fn sessions_are_listed_and_one_of_them_is_closed() {
    let origin = Origin::willing();
    let relay = relay_with(&origin, json!({ "log": { "stream_names": "plain" } }));
    let admin = Admin::of(&relay);
    let clients: Vec<Client> = (0..3).map(|n| Client::publishing(&relay, "live", &format!("cam{n}"))).collect();
    relay.wait_active(3);
    let all = admin.get("/admin/sessions");
    assert_eq!((&all["total"], &all["matching"], all["sessions"].as_array().map(Vec::len)), (&json!(3), &json!(3), Some(3)));
    let chosen = clients[1].address();
    for query in ["stream=live/cam1".to_owned(), format!("client={chosen}"), "state=relaying&limit=1&offset=1".to_owned()] {
        let one = admin.get(&format!("/admin/sessions?{query}"));
        assert_eq!(one["sessions"].as_array().map(Vec::len), Some(1), "{query}: {one}");
        assert_eq!(one["sessions"][0]["client"], json!(chosen), "{query}");
    }
    assert_eq!(admin.get("/admin/sessions?state=holding")["matching"], 0);
    let (code, answer) = admin.ask("GET", "/admin/sessions?limit=many", "");
    assert_eq!(code, 400);
    assert!(error(&answer).contains("found \"limit=many\"; expected limit and offset"), "{answer}");

    let id = admin.get("/admin/sessions?stream=live/cam1")["sessions"][0]["id"].as_u64().expect("a number");
    assert_eq!(admin.ask("DELETE", &format!("/admin/sessions/{id}"), ""), (200, json!({ "closed": id })));
    assert_eq!(clients[1].ended(), End::Fin);
    assert_eq!(relay.outcome(chosen), "relay operator success");
    relay.wait_active(2);
    let (code, answer) = admin.ask("DELETE", &format!("/admin/sessions/{id}"), "");
    assert!(code == 404 && error(&answer).contains(&format!("session {id} is not there")), "{answer}");
    let (code, answer) = admin.ask("DELETE", "/admin/sessions/cam1", "");
    assert!(code == 400 && error(&answer).contains("found \"cam1\"; expected the number of a session"), "{answer}");
    wait_equal("action lines", &3, || actions(&relay).len());
    let of = |object: Value, status| ("close_session".to_owned(), object, json!(status));
    let object = json!(id.to_string());
    assert_eq!(actions(&relay), [of(object.clone(), 200), of(object, 404), of(json!("cam1"), 400)]);
    assert_eq!((counted(&relay, "close_session", "done"), counted(&relay, "close_session", "refused")), (1, 2));
    let line = relay.events("admin_action").remove(0);
    assert_eq!((&line["credential"], line["client"].is_string()), (&json!("loopback"), true), "who asked is told");
}

#[test]
fn an_upstream_that_is_drained_keeps_what_it_has_and_gets_nothing_new() {
    let (one, two) = (Origin::willing(), Origin::willing());
    let upstreams = json!([{ "url": one.url(""), "name": "one" }, { "url": two.url(""), "name": "two" }]);
    let relay = Process::several(json!({ "upstreams": upstreams, "admin_addr": "127.0.0.1:0" }));
    let admin = Admin::of(&relay);
    let _running = Client::publishing(&relay, "live", "first");
    let (at, origin, other) = if one.knows("first") { ("one", &one, &two) } else { ("two", &two, &one) };
    let targets = admin.get("/admin/targets");
    assert_eq!(targets["targets"].as_array().map(Vec::len), Some(2));
    let row = |targets: &Value| {
        targets["targets"].as_array().and_then(|rows| rows.iter().find(|row| row["name"] == at).cloned()).expect("it is there")
    };
    let of_it = row(&targets);
    assert_eq!((&of_it["sessions"], &of_it["drained"], &of_it["circuit"]["state"]), (&json!(1), &json!(false), &json!("closed")));
    let id = &of_it["id"];
    assert_eq!(admin.ask("POST", &format!("/admin/targets/{at}/drain"), ""), (200, json!({ "id": id, "drained": true })));
    let shown = || [&one, &two].map(|of| relay.metric(&format!("rtmp_relay_upstream_drained{{upstream=\"{}\"}}", of.url(""))));
    let only = if at == "one" { [1, 0] } else { [0, 1] };
    assert_eq!(shown(), only, "whoever looks later sees that somebody did this");
    for n in 0..4 {
        drop(Client::publishing(&relay, "live", &format!("new{n}")));
        assert!(other.knows(&format!("new{n}")), "streams go to the one that is left");
    }
    drop(Client::playing(&relay, "live", "first"));
    // What is live there is still played from there.
    origin.line_that_heard("play", |message| message.command().is_some_and(|(name, ..)| name == "play"));
    // A reload about something else leaves it so.
    let same = json!({ "upstreams": upstreams, "admin_addr": "127.0.0.1:0", "idle_timeout": "1m" });
    let mut config = configured("", same);
    config.as_object_mut().expect("an object").remove("upstream");
    relay.rewrite(&config.to_string());
    assert_eq!(admin.ask("POST", "/admin/reload", "").1["result"], "applied");
    assert_eq!(row(&admin.get("/admin/targets"))["drained"], true);
    let status = relay.status();
    let drained = status["upstreams"].as_array().expect("upstreams").iter().filter(|view| view["drained"] == true).count();
    assert_eq!((drained, shown()), (1, only));
    let both = if at == "one" { "two" } else { "one" };
    admin.ask("POST", &format!("/admin/targets/{both}/drain"), "");
    let (code, _) = Client::asking_to_publish(&relay, "live", "nowhere").refused();
    assert_eq!(code, "NetStream.Publish.Denied");
    assert_eq!(admin.ask("POST", &format!("/admin/targets/{id}/enable"), ""), (200, json!({ "id": id, "drained": false })));
    assert_eq!(shown(), only.map(|drained| 1 - drained));
    drop(Client::publishing(&relay, "live", "back"));
    assert!(origin.knows("back"));
    let (code, answer) = admin.ask("POST", "/admin/targets/three/drain", "");
    assert!(
        code == 404 && error(&answer) == "found \"three\", no upstream's name or number; expected one of one, two",
        "{answer}"
    );
    assert_eq!((counted(&relay, "drain_target", "done"), counted(&relay, "enable_target", "done")), (2, 1));
}

#[test]
fn a_circuit_is_closed_by_hand() {
    let gone = Origin::willing();
    let dead = format!("rtmp://{}", TcpStream::connect(gone.address).and_then(|s| s.local_addr()).expect("an address"));
    let more = json!({ "circuit_breaker": { "max_failures": 1, "reset_timeout_sec": 600 }, "retry": { "enabled": false },
        "dial_timeout": "200ms", "admin_addr": "127.0.0.1:0" });
    let relay = Process::with(&dead, more);
    let admin = Admin::of(&relay);
    let state = || admin.get("/admin/targets")["targets"][0]["circuit"]["state"].clone();
    for (path, told) in [("/admin/targets/0/reset", json!({ "reset": 0 })), ("/admin/breaker/reset", json!({ "reset": "all" }))] {
        Client::asking_to_publish(&relay, "live", "cam").refused();
        wait_equal("the circuit", &json!("open"), state);
        assert_eq!(admin.ask("POST", path, ""), (200, told));
        assert_eq!(state(), "closed");
    }
    assert_eq!(admin.ask("POST", "/admin/targets/7/reset", "").0, 404);
}

#[test]
fn a_reload_says_what_it_has_changed_and_a_bad_file_what_is_wrong() {
    let origin = Origin::willing();
    let relay = relay_with(&origin, json!({}));
    let admin = Admin::of(&relay);
    let _running = Client::publishing(&relay, "live", "cam");
    let changed = |more: Value| {
        let mut config = configured(&origin.url(""), more);
        config["admin_addr"] = json!("127.0.0.1:0");
        config.to_string()
    };
    relay.rewrite(&changed(json!({ "idle_timeout": "1m", "workers": 3 })));
    let (code, answer) = admin.ask("POST", "/admin/reload", "");
    assert_eq!((code, &answer["result"], &answer["error"]), (200, &json!("applied"), &Value::Null), "{answer}");
    let words: Vec<&str> =
        answer["changes"].as_array().expect("changes").iter().filter_map(|row| row["words"].as_str()).collect();
    assert_eq!(words, ["workers: 2 -> 3 (needs a restart)", "idle_timeout: \"30s\" -> \"1m\" (for new sessions)"]);
    let hash = admin.get("/admin/config")["hash"].clone();

    relay.rewrite(&changed(json!({ "idle_timeout": 30, "security": { "auth_tokens": ["hush"] } })));
    let (code, answer) = admin.ask("POST", "/admin/reload", "");
    assert_eq!((code, &answer["result"]), (422, &json!("invalid")), "{answer}");
    assert!(error(&answer).contains("idle_timeout") && error(&answer).contains("\"30s\""), "{answer}");
    let config = admin.get("/admin/config");
    assert_eq!((&config["hash"], &config["last_reload"]["by"]), (&hash, &json!("admin")), "nothing has changed");
    assert_eq!(config["last_error"], answer["error"]);

    relay.rewrite(&changed(json!({ "workers": 4, "reload": { "partial": false } })));
    let (code, answer) = admin.ask("POST", "/admin/reload", "");
    assert_eq!((code, &answer["result"]), (422, &json!("refused")), "{answer}");
    assert!(error(&answer).contains("workers"), "{answer}");
    relay.wait_active(1);
    assert_eq!((counted(&relay, "reload", "done"), counted(&relay, "reload", "refused")), (1, 2));
    assert!(!relay.log().join("\n").contains("hush"));
}

#[test]
fn the_level_of_the_log_changes_for_the_hour() {
    let origin = Origin::willing();
    let relay = relay_with(&origin, json!({ "log": { "level": "info" } }));
    let admin = Admin::of(&relay).with("Content-Type: application/json");
    assert_eq!((admin.get("/admin/log-level"), relay.metric("rtmp_relay_log_level")), (json!({ "level": "info" }), 2));
    assert_eq!(admin.ask("PUT", "/admin/log-level", r#"{ "level": "debug" }"#), (200, json!({ "level": "debug" })));
    relay.status();
    wait_until("requests are told", || !relay.events("http_request").is_empty());
    for bad in [r#"{ "level": "loud" }"#, r#"{ "level": "info", "for": "1h" }"#, "[", r#""debug""#] {
        let (code, answer) = admin.ask("PUT", "/admin/log-level", bad);
        assert!(code == 400 && error(&answer).contains("expected {\"level\": \"info\"}"), "{bad}: {answer}");
    }
    assert_eq!((admin.get("/admin/log-level"), relay.metric("rtmp_relay_log_level")), (json!({ "level": "debug" }), 3));
    let (code, answer) = admin.ask("PUT", "/admin/log-level", &" ".repeat(300_000));
    assert!(code == 413 && error(&answer).contains("expected at most 262144 bytes"), "{answer}");
}

#[test]
fn a_drain_ends_the_relay_and_orders_are_refused_meanwhile() {
    let origin = Origin::willing();
    let mut relay = relay_with(&origin, json!({ "drain": { "spread": "1m" }, "shutdown_timeout": "1m" }));
    let admin = Admin::of(&relay);
    let clients: Vec<Client> = (0..2).map(|n| Client::publishing(&relay, "live", &format!("cam{n}"))).collect();
    assert_eq!(relay.metric("rtmp_relay_draining"), 0);
    assert_eq!(admin.ask("POST", "/admin/drain", ""), (202, json!({ "draining": true })));
    wait_equal("it is shown", &1, || relay.metric("rtmp_relay_draining"));
    assert_eq!(clients[0].ended(), End::Fin);
    let (code, answer) = admin.ask("POST", "/admin/reload", "");
    assert!(code == 503 && error(&answer).contains("ending"), "{answer}");
    let left = wait_for("who is left", || Some(admin.get("/admin/sessions")).filter(|left| left["total"] == 1));
    let id = &left["sessions"][0]["id"];
    assert_eq!(admin.ask("DELETE", &format!("/admin/sessions/{id}"), "").0, 200, "one may be sent before its turn");
    assert_eq!(relay.exit().code(), Some(0));
    let line = relay.events("admin_action").into_iter().find(|line| line["action"] == "drain").expect("it is told");
    assert_eq!(line["status"], 202);
}

#[test]
fn an_order_is_told_also_where_whoever_gave_it_has_gone() {
    let origin = Origin::willing();
    let relay = relay_with(&origin, json!({}));
    let admin = Admin::of(&relay);
    for _ in 0..3 {
        let mut socket = TcpStream::connect(admin.address).expect("/admin takes a connection");
        write!(socket, "POST /admin/reload HTTP/1.1\r\n{}\r\n", admin.head).expect("it reads");
    }
    wait_equal("reloads", &3, || relay.events("config_reloaded").len());
    wait_equal("action lines", &3, || actions(&relay).len());
}

#[test]
fn without_the_token_nothing_is_answered() {
    let origin = Origin::willing();
    let relay = relay_with(&origin, json!({ "security": { "admin_token": TOKEN } }));
    let right = Admin::of(&relay).showing(TOKEN);
    let listed = right.get("/admin");
    assert_eq!(listed["routes"].as_array().map(Vec::len), Some(14));
    let nobody = Admin::of(&relay);
    let wrong = [
        Admin::of(&relay),
        Admin::of(&relay).showing(""),
        Admin::of(&relay).showing("hush"),
        Admin::of(&relay).showing(&format!("{TOKEN}x")),
        nobody.with(&format!("Authorization: Basic {TOKEN}")),
        nobody.with(&format!("Authorization: {TOKEN}")),
    ];
    let mut asked = 0;
    for admin in &wrong {
        for route in listed["routes"].as_array().expect("routes") {
            let (method, path) = route.as_str().and_then(|route| route.split_once(' ')).expect("a method and a path");
            let (head, answer) = admin.heard(method, &path.replace("{id}", "1"), "");
            assert!(head.starts_with("HTTP/1.1 401 ") && head.to_lowercase().contains("www-authenticate: bearer"), "{head}");
            assert!(error(&answer).contains("security.admin_token") && !answer.to_string().contains("hush"), "{answer}");
            asked += 1;
        }
        assert_eq!(admin.ask("GET", "/nothing", "").0, 401, "not even what there is");
        asked += 1;
    }
    assert_eq!(refusals(&relay, "token"), asked);
    assert!(relay.events("admin_action").is_empty());
    wait_until("the refusals are told", || relay.events("admin_refused").iter().any(|line| line["reason"] == "token"));
    // A reload takes another token, at once.
    let config = |token: &str| {
        let mut config = configured(&origin.url(""), json!({ "security": { "admin_token": token } }));
        config["admin_addr"] = json!("127.0.0.1:0");
        config.to_string()
    };
    relay.rewrite(&config("rush-rush-rush-rush"));
    let (code, answer) = right.ask("POST", "/admin/reload", "");
    assert_eq!((code, &answer["changes"][0]["text"]), (200, &json!("changed")), "{answer}");
    assert_eq!(right.ask("GET", "/admin", "").0, 401);
    Admin::of(&relay).showing("rush-rush-rush-rush").get("/admin");
    let log = relay.log().join("\n");
    assert!(!log.contains("hush") && !log.contains("rush-"), "a token is in the log");
}

#[test]
fn who_cannot_be_an_operator_is_refused_and_told_why() {
    let origin = Origin::willing();
    let relay = relay_with(&origin, json!({}));
    let admin = Admin::of(&relay);
    let named = |host: &str| Admin { address: admin.address, head: format!("Host: {host}\r\n") };
    let page = ("browser", "a page in a browser");
    for (who, code, (reason, text)) in [
        (admin.with("Origin: http://evil.example"), 403, page),
        (admin.with("Sec-Fetch-Site: cross-site"), 403, page),
        (named("evil.example:8081"), 403, ("not_here", "only this machine may ask")),
        (admin.with("Content-Type: text/plain"), 415, ("content_type", "Content-Type: application/json")),
    ] {
        let before = refusals(&relay, reason);
        let (answered, answer) = who.ask("PUT", "/admin/log-level", r#"{ "level": "debug" }"#);
        assert_eq!(answered, code, "{answer}");
        assert!(error(&answer).contains(text), "{answer}");
        assert_eq!(refusals(&relay, reason), before + 1);
    }
    let (code, answer) = admin.ask("GET", "/status", "");
    assert!(code == 404 && answer["paths"].as_array().is_some_and(|paths| paths.contains(&json!("/admin/reload"))), "{answer}");
    for (method, path, allowed) in [
        ("GET", "/admin/reload", "POST"),
        ("DELETE", "/admin/log-level", "GET, PUT"),
        ("POST", "/admin/sessions", "GET"),
        ("OPTIONS", "/admin/drain", "POST"),
    ] {
        let (head, answer) = admin.heard(method, path, "");
        assert!(
            head.starts_with("HTTP/1.1 405 ") && head.to_lowercase().contains(&format!("allow: {allowed}").to_lowercase()),
            "{head}"
        );
        assert!(error(&answer).starts_with(&format!("found \"{method}\"; expected ")), "{answer}");
    }
    assert_eq!(relay.get("/admin").expect("HTTP answers").0, 404, "/admin is on an address of its own");
    // Networks hold here too, at once.
    let mut config = configured(&origin.url(""), json!({ "http_allowed_networks": ["192.0.2.0/24"] }));
    config["admin_addr"] = json!("127.0.0.1:0");
    relay.rewrite(&config.to_string());
    assert_eq!(admin.ask("POST", "/admin/reload", "").0, 200);
    let (code, answer) = admin.ask("GET", "/admin", "");
    assert!(code == 403 && error(&answer).contains("http_allowed_networks"), "{answer}");
}

#[test]
fn a_default_address_that_is_taken_is_no_reason_not_to_start() {
    let origin = Origin::willing();
    // Whoever has it, this test or another program, has it now.
    let taken = std::net::TcpListener::bind("127.0.0.1:8081");
    let mut config = configured(&origin.url(""), json!({}));
    config.as_object_mut().expect("an object").remove("admin_addr");
    let relay = Process::of(&config);
    drop(Client::publishing(&relay, "live", "cam"));
    let warned = relay.events("config_warning");
    assert!(warned.iter().any(|line| line["path"] == "admin_addr" && line["message"].to_string().contains("8081")), "{warned:?}");
    drop(taken);
}

#[test]
fn what_a_configuration_would_change_is_asked_of_the_relay_that_runs() {
    let origin = Origin::willing();
    let relay =
        relay_with(&origin, json!({ "security": { "admin_token": TOKEN, "auth_enabled": true, "auth_tokens": ["one-hush"] } }));
    let url = format!("http://{}", Admin::of(&relay).address);
    let check = |more: Value, variables: &[(&str, &str)]| {
        let mut config = configured(&origin.url(""), more);
        config["admin_addr"] = json!("127.0.0.1:0");
        let file = relay.place("next.json");
        std::fs::write(&file, config.to_string()).expect("its directory takes a file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_relay"));
        let command = command.args(["--check", "--against", &url]).arg(&file).env_clear().envs(variables.iter().copied());
        let output = command.output().expect("it runs");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let security = |admin: &str, token: &str| json!({ "admin_token": admin, "auth_enabled": true, "auth_tokens": [token] });
    let (code, out, _) = check(json!({ "security": security(TOKEN, "one-hush") }), &[]);
    assert!(code == Some(0) && out.ends_with("nothing changes\n"), "{out}");
    let more = json!({ "security": security(TOKEN, "two-hush"), "idle_timeout": "1m" });
    let (code, out, _) = check(more, &[]);
    assert_eq!(code, Some(0), "{out}");
    let said =
        "for new sessions:\n  idle_timeout: \"30s\" -> \"1m\"\n  security.auth_tokens: changed\na reload takes all of it (2)\n";
    assert!(out.ends_with(said), "{out}");
    // With another token in it, the relay's own is needed.
    let other = json!({ "security": security("rush-rush-rush-rush", "one-hush"), "workers": 5 });
    let (code, _, err) = check(other.clone(), &[]);
    assert!(code == Some(1) && err.contains("answers 401: security.admin_token is missing or wrong"), "{err}");
    let (code, out, _) = check(other, &[("RELAY_ADMIN_TOKEN", TOKEN)]);
    assert_eq!(code, Some(2), "{out}");
    assert!(
        out.contains("at once:\n  security.admin_token: changed\nneeds a restart:\n  workers: 2 -> 5\na reload takes 1 of 2"),
        "{out}"
    );
    assert!(!out.contains("hush") && !relay.log().join("\n").contains("hush"));
    assert_eq!(relay.events("config_reloaded").len(), 0, "asking changes nothing");
}

#[test]
fn orders_are_taken_in_private_and_what_would_change_is_asked_so_too() {
    let (origin, authority) = (Origin::willing(), Authority::new());
    let dir = tempfile::tempdir().expect("a directory");
    let (cert, key) = authority.paper(&["localhost"]).put_into(dir.path());
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, &authority.pem).expect("a fresh directory takes a file");
    let keys = json!({ "admin_tls": true, "security": { "admin_token": TOKEN, "tls_cert": cert, "tls_key": key } });
    let relay = relay_with(&origin, keys.clone());
    let plain = Admin::of(&relay);
    assert_eq!(relay.events("admin_listening")[0]["tls"], true);
    let tunnel = Tunnel::to(plain.address, "localhost", believing(&authority, None));
    let admin = Admin { address: tunnel.address, head: "Host: localhost\r\n".into() };
    assert_eq!(admin.ask("POST", "/admin/reload", "").0, 401, "a certificate is no token");
    assert_eq!(admin.showing(TOKEN).ask("POST", "/admin/reload", "").1["result"], "unchanged");
    // In plain HTTP there is nobody.
    let mut socket = TcpStream::connect(plain.address).expect("accepted");
    let plainly = format!("GET /admin HTTP/1.0\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
    socket.write_all(plainly.as_bytes()).expect("written");
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    assert!(!String::from_utf8_lossy(&answer).contains("HTTP/1"));
    let mut config = configured(&origin.url(""), keys);
    config["admin_addr"] = json!("127.0.0.1:0");
    let file = relay.place("next.json");
    std::fs::write(&file, config.to_string()).expect("its directory takes a file");
    let check = |authority: &[(&str, &std::path::Path)]| {
        let url = format!("https://localhost:{}", plain.address.port());
        let mut command = Command::new(env!("CARGO_BIN_EXE_relay"));
        command.args(["--check", "--against", &url]).arg(&file).env_clear().envs(authority.iter().copied());
        let output = command.output().expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let (code, said) = check(&[("SSL_CERT_FILE", &ca)]);
    assert!(code == Some(0) && said.ends_with("nothing changes\n"), "{said}");
    let (code, said) = check(&[("SSL_CERT_FILE", &cert)]);
    assert!(code == Some(1) && !said.contains(TOKEN), "the token is shown to nobody else: {said}");
}

#[test]
fn a_new_process_takes_this_address_too() {
    let origin = Origin::willing();
    let relay = relay_with(&origin, json!({ "drain": { "spread": "0s" } }));
    let admin = Admin::of(&relay);
    relay.signal(rustix::process::Signal::USR2);
    let line = wait_for("a new process serves", || relay.events("upgrade_ready").pop());
    let pid = line["pid"].as_i64().and_then(|pid| rustix::process::Pid::from_raw(pid as i32)).expect("its number");
    wait_until("the old one has gone", || relay.events("stopped").len() == 1);
    assert_eq!(admin.ask("POST", "/admin/reload", "").1["result"], "unchanged");
    admin.ask("POST", "/admin/drain", "");
    wait_until("the new one has gone", || relay.events("stopped").len() == 2);
    // Fails, since it has ended; a test that failed before this line would leave it.
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}
