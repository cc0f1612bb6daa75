//! What does it look like? The demonstration: an origin, the relay in front of it, and a test stream through both.

mod clip;
mod part;
mod publisher;
mod scene;
mod screen;

use std::fmt::Write;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use clip::Clip;
use publisher::Destination;
use scene::Scene;
use screen::{Rates, Screen};

pub use part::{demo_origin, demo_publisher};

use super::Relay;
use crate::config::{self, Env, ListenAddr, Loaded};

use crate::listener::BindError;
use crate::origin::Origin;
use crate::telemetry::{Telemetry, logging};

/// Eight seconds of a moving picture with a clock, 640x360, H.264 and AAC, a key frame each second.
const CLIP: &[u8] = include_bytes!("../../assets/demo.flv");
/// Where the test stream is published.
const APP: &str = "live";
const STREAM: &str = "demo";
/// How often the live figures are taken.
const TICK: Duration = Duration::from_secs(1);

/// Runs the demonstration until Ctrl-C (or SIGTERM, or a closed standard output).
///
/// # Errors
/// An address that is taken, with the option that chooses another; what else keeps the relay from starting.
pub fn demo(listen: ListenAddr, http: Option<ListenAddr>) -> anyhow::Result<()> {
    let clip = Clip::parse(CLIP).context("the test clip")?;
    let origin = Origin::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).context("starting the origin")?;
    let token = token();
    let mut loaded = configuration(listen, http, origin.addr(), &token)?;
    let telemetry = Telemetry::new(&loaded.config.log);
    let _log = logging::init(&loaded.config.log, &telemetry)?;
    super::raise_descriptor_limit()?;
    super::descriptor_budget(&mut loaded.config)?;
    let shown = actix_rt::System::new().block_on(show(&loaded, telemetry, &origin, clip, token));
    match shown {
        // `relay demo | head`: nobody is looking any more.
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe) => Ok(()),
        shown => shown,
    }
}

async fn show(loaded: &Loaded, telemetry: Telemetry, origin: &Origin, clip: Clip, token: String) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let relay = start_relay(loaded, telemetry)?;
    let address = relay.address();
    let mut screen = Screen::stdout();
    let scene = Scene { relay: address, http: relay.http_address(), origin: origin.addr(), token: &token };
    screen.say(&scene.to_string())?;

    let to = Destination { at: reachable(address).to_string(), app: APP.into(), stream: format!("{STREAM}?token={token}") };
    let (trouble, troubles) = watch::channel(None);
    let publisher = actix_rt::spawn(publisher::run(clip, to, trouble));
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut rates = Rates::new(origin.figures(), Instant::now());
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            why = relay.failed() => anyhow::bail!(why),
            _ = ticks.tick() => {
                let line = rates.line(origin.figures(), Instant::now(), troubles.borrow().as_deref());
                screen.refresh(&line)?;
            }
        }
    }
    screen.end()?;
    publisher.abort();
    tokio::select! {
        () = relay.drain(super::Leaving::Told) => relay.stop().await,
        // A second signal ends at once.
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Starts the relay; says which option changes an address that cannot be had.
fn start_relay(loaded: &Loaded, telemetry: Telemetry) -> anyhow::Result<Relay> {
    Relay::start(loaded, telemetry).map_err(|error| match error.downcast_ref::<BindError>() {
        Some(taken) => anyhow!("{}", unavailable(taken)),
        None => error,
    })
}

fn unavailable(taken: &BindError) -> String {
    let option = if taken.key == "http_addr" { "--http" } else { "--listen" };
    let (address, reason) = (taken.address, taken.reason());
    // The next one is as good as any; behind the last comes one that needs no privilege.
    let other = ListenAddr { port: address.port.checked_add(1).unwrap_or(1936), host: None };
    format!("cannot listen on {address}: {reason}. {option} takes another address: relay demo {option} {other}")
}

fn configuration(listen: ListenAddr, http: Option<ListenAddr>, origin: SocketAddr, token: &str) -> anyhow::Result<Loaded> {
    let text = json!({
        "listen_addr": listen.to_string(),
        "http_addr": http.map_or(String::new(), |http| http.to_string()),
        "upstream": format!("rtmp://{origin}"),
        "admin_addr": "",
        "shutdown_timeout": "0s",
        "security": {
            "auth_enabled": true,
            "auth_tokens": [{ "token": token, "name": "demo" }],
            "upstream_allowed_networks": ["127.0.0.0/8"],
        },
        "log": { "format": "text", "level": "warn" },
    });
    let loaded = config::parse(&text.to_string(), &Env::empty(), &super::judge_upstream);
    loaded.map_err(|problems| anyhow!("{problems}"))
}

/// 16 hexadecimal digits: enough for a demonstration, and no client mangles them.
fn token() -> String {
    rand::random::<[u8; 8]>().iter().fold(String::new(), |mut token, byte| {
        // Writing into a String cannot fail.
        let _ = write!(token, "{byte:02x}");
        token
    })
}

/// Where this machine reaches something that listens on `address`.
fn reachable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() { (IpAddr::V4(Ipv4Addr::LOCALHOST), address.port()).into() } else { address }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> ListenAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn its_configuration_is_a_good_one() {
        let origin = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
        let config = configuration(addr(":0"), Some(addr("127.0.0.1:0")), origin, &token()).expect("it is judged good").config;
        assert!(config.security.auth_enabled);
        assert_eq!(config.security.auth_tokens.len(), 1);
        assert_eq!(configuration(addr(":0"), None, origin, &token()).expect("it is judged good").config.http, None);
    }

    #[test]
    fn a_taken_port_is_said_with_the_option_that_changes_it() {
        let taken = crate::listener::bind("listen_addr", addr("127.0.0.1:0")).expect("a free port");
        let taken = ListenAddr { port: taken.local_addr().expect("bound").port(), ..addr("127.0.0.1:0") };
        let _held = crate::listener::bind("listen_addr", taken).expect_err("it is taken");
        let origin = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
        let said = |listen, http| {
            let loaded = configuration(listen, http, origin, &token()).expect("it is judged good");
            let started =
                actix_rt::System::new().block_on(async { start_relay(&loaded, Telemetry::new(&loaded.config.log)).map(|_| ()) });
            started.expect_err("it is taken").to_string()
        };
        let text = said(taken, None);
        assert!(text.contains("--listen") && text.contains("another program has it"), "{text}");
        let text = said(addr("127.0.0.1:0"), Some(taken));
        assert!(text.contains("--http") && text.contains(&taken.port.to_string()), "{text}");
    }

    #[test]
    fn no_two_tokens_are_the_same() {
        let (one, two) = (token(), token());
        assert_eq!(one.len(), 16);
        assert_ne!(one, two);
    }
}
