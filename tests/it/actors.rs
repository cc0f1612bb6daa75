//! What the death or panic of a control actor does: to streams nothing, to /status one field, and only without Supervisor nothing
//! goes on. Without Listener nothing new does.

use std::process::Command;

use relay::admission::{rate_limiter, supervisor};
use relay::app;
use relay::config::{self, Env};
use relay::listener;
use relay::telemetry::{State, collector};
use relay::upstream::breaker;
use serde_json::{Value, json};

use crate::client::Client;
use crate::origin::Origin;
use crate::parser::kind;
use crate::relay::{Process, Relay, ask, configured};
use crate::siege::Honest;
use crate::speech::{Say, body};
use crate::wait::{wait_equal, wait_until};

/// So wide that no test runs into it, but there is a core to panic.
fn with_a_rate() -> Value {
    json!({ "rate_limit": { "enabled": true, "requests_per_sec": 1000, "burst": 1000 } })
}

#[test]
fn a_panic_in_a_control_actor_loses_no_frame_and_is_counted_and_the_actor_goes_on() {
    let origin = Origin::willing();
    let relay = Relay::with(&origin.url(""), with_a_rate());
    let honest = Honest::begin(&relay, "honest");
    let player = Client::playing(&relay, "live", "played");
    let line = origin.line_of("played");
    let mut said = Vec::new();
    for round in 1..=3 {
        assert!(ask(&relay.actors.rate_limiter, rate_limiter::Panic).expect("it lives").is_err());
        assert!(ask(&relay.actors.collector, collector::Panic).expect("it lives").is_err());
        ask(&relay.actors.breaker, breaker::Panic);
        for place in ["rate_limiter", "collector", "breaker"] {
            let name = format!("rtmp_relay_panics_total{{where=\"{place}\"}}");
            wait_equal(&name, &round, || relay.metric(&name));
        }
        said.push(line.say(7, round as u32 * 40, kind::VIDEO, &body(round as u32, 20_000)));
        // Whoever comes now is judged and let in.
        Client::publishing(&relay, "live", &format!("after-{round}"));
        let status = relay.status();
        assert_eq!(status["errors"], json!({}));
        for field in ["rate_limit", "circuit_breaker", "traffic"] {
            assert_eq!(status[field]["panics"], round, "{field}");
        }
    }
    assert_eq!(player.ear.wait_count(&[kind::VIDEO], 3), said);
    honest.lost_nothing(&origin);
    // The bytes of before a panic were counted, and once.
    relay.wait_active(1);
    let passed = relay.row(player.address())["to_client"]["bytes"].as_u64().expect("a count");
    let bytes = || relay.metric("rtmp_relay_bytes_total{direction=\"downstream\"}");
    wait_until("the collector has counted", || bytes() >= passed);
}

#[test]
fn a_control_actor_that_ends_takes_its_field_of_status_with_it_and_nothing_else() {
    let origin = Origin::willing();
    type Stop = fn(&Relay);
    let stops: [(&str, Stop); 4] = [
        ("rate_limit", |relay| ask(&relay.actors.rate_limiter, rate_limiter::Stop).expect("it lived")),
        ("circuit_breaker", |relay| ask(&relay.actors.breaker, breaker::Stop).expect("it lived")),
        ("traffic", |relay| ask(&relay.actors.collector, collector::Stop).expect("it lived")),
        ("connections", |relay| ask(&relay.actors.supervisor, supervisor::Stop).expect("it lived")),
    ];
    for (number, (field, stop)) in stops.into_iter().enumerate() {
        let relay = Relay::with(&origin.url(""), with_a_rate());
        let stream = format!("cam{number}");
        let mut client = Client::publishing(&relay, "live", &stream);
        stop(&relay);
        let status = relay.status();
        for name in ["connections", "rate_limit", "circuit_breaker", "traffic"] {
            assert_eq!(status[name].is_null(), name == field, "{name} without {field}");
        }
        assert_eq!(status["errors"], json!({ field: "the actor has ended" }));
        for name in ["listener", "upstreams", "buffers", "uptime_seconds"] {
            assert!(!status[name].is_null(), "{name} asks nobody");
        }
        // Who is in stays in.
        let said = client.say(6, 0, kind::VIDEO, 1, &body(1, 9000));
        assert_eq!(origin.line_of(&stream).ear.wait_count(&[kind::VIDEO], 1), [said]);
        // Who comes now is not let in where nobody can judge it.
        let (code, text) = Client::asking_to_publish(&relay, "live", "late").told();
        match field {
            // Streams matter more than the breaker.
            "traffic" | "circuit_breaker" => assert_eq!(code, "NetStream.Publish.Start"),
            _ => assert_eq!(text, "the relay cannot decide on this connection now"),
        }
    }
}

/// The relay as a process whose `actor` dies with its first session.
fn whose(actor: &str, origin: &Origin) -> Process {
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    let program = format!("actors::is_a_relay_whose_{actor}_dies_with_its_first_session");
    command.args(["--exact", &program, "--ignored", "--nocapture", "--"]);
    Process::spawn(command, &configured(&origin.url(""), json!({})))
}

#[test]
fn the_death_of_supervisor_ends_the_process_with_code_1() {
    let origin = Origin::willing();
    let mut process = whose("supervisor", &origin);
    let client = Client::asking_to_publish(&process, "live", "cam");
    assert_eq!(process.exit().code(), Some(1));
    client.ended();
    assert_eq!(process.events("stopped")[0]["code"], 1);
    assert_eq!(process.events("panic_raised")[0]["words"], "injected by a test");
}

#[test]
fn the_death_of_the_listener_lets_streams_end_and_then_the_process_with_code_1() {
    let origin = Origin::willing();
    let mut process = whose("listener", &origin);
    let mut client = Client::publishing(&process, "live", "cam");
    wait_until("the relay drains", || !process.events("drain_started").is_empty());
    let picture = body(1, 500);
    client.write(&Say::full(6, 40, kind::VIDEO, 1, &picture).bytes(128));
    let heard = origin.line_of("cam").ear.wait_message("the stream goes on", |m| m.kind == kind::VIDEO);
    assert_eq!(heard.body, picture);
    client.leave();
    assert_eq!(process.exit().code(), Some(1));
    assert_eq!(process.events("drain_finished")[0]["cut"], 0);
}

/// What the programs below do beyond the relay's own `main`: they break an actor once a stream passes.
fn run_and_break<F: Future<Output = ()> + 'static>(harm: impl Fn(&app::Actors) -> F) -> ! {
    let file = std::env::args().next_back().expect("the configuration");
    let text = std::fs::read_to_string(file).expect("a file");
    let loaded = config::parse(&text, &Env::empty(), &app::judge_upstream).unwrap_or_else(|e| panic!("{e}"));
    let result = app::run_with(loaded, |relay| {
        let (supervisor, harm) = (relay.actors.supervisor.clone(), harm(&relay.actors));
        actix_rt::spawn(async move {
            while supervisor
                .send(supervisor::Snapshot)
                .await
                .is_ok_and(|standing| !standing.sessions.iter().any(|cell| cell.state() == State::Relaying))
            {
                tokio::task::yield_now().await;
            }
            harm.await;
        });
    });
    std::process::exit(i32::from(result.is_err()));
}

/// Not a test: a program that one above runs.
#[test]
#[ignore = "run by the_death_of_supervisor_ends_the_process_with_code_1"]
fn is_a_relay_whose_supervisor_dies_with_its_first_session() {
    run_and_break(|actors| {
        let supervisor = actors.supervisor.clone();
        async move {
            let _ = supervisor.send(supervisor::Panic).await;
        }
    });
}

/// Not a test: a program that one above runs.
#[test]
#[ignore = "run by the_death_of_the_listener_lets_streams_end_and_then_the_process_with_code_1"]
fn is_a_relay_whose_listener_dies_with_its_first_session() {
    run_and_break(|actors| {
        let listener = actors.listener.clone();
        async move {
            let _ = listener.send(listener::Panic).await;
        }
    });
}
