//! The fault campaign: clients and origins that do what no peer should, at points that are drawn from a seed, while honest streams go on.
//!
//! `RELAY_SEED` is the first plan's seed, `RELAY_CAMPAIGN` how many plans there are, each with the next seed. A failure names the seed of
//! its plan: `RELAY_SEED=that RELAY_CAMPAIGN=1` is the same plan again. `make campaign` runs hundreds.

mod chance;
mod honest;
mod host;
mod judge;
mod mouth;
mod plan;
mod visitor;

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;
use tokio_rustls::rustls::{ClientConfig, ClientConnection};

use honest::Everybody;
use host::{Host, Mood};
use judge::Judge;
use mouth::{Mouth, Over, Phase};
use plan::{Act, SLOTS, Way};

use crate::origin::Origin;
use crate::private::{Authority, Tunnel, believing};
use crate::relay::{Process, configured_for_several};
use crate::rtsp_peer::Door;
use crate::wait::wait_until;

/// Whom the relay takes for a load balancer.
const BALANCER: [u8; 4] = [127, 0, 0, 9];
/// Plans that one relay lives through: those whose seeds differ in the last digit alone.
const SEASON: u64 = 10;

/// One relay, its origins, and what it was like before anybody came.
struct Season {
    judge: Judge,
    relay: Process,
    private: SocketAddr,
    trust: Arc<ClientConfig>,
    origin: Origin,
    door: Door,
    hosts: Vec<[Host; 2]>,
    /// TLS before every third of them.
    _fronts: Vec<Tunnel>,
    _dir: TempDir,
}

impl Season {
    /// The one that the plan of `seed` belongs to.
    fn of(seed: u64) -> Self {
        let (authority, dir) = (Authority::new(), tempfile::tempdir().expect("a directory"));
        let paper = authority.paper(&["localhost", "127.0.0.1"]);
        let (cert, key) = paper.put_into(dir.path());
        let (origin, door) = (Origin::willing(), Door::open());
        let hosts: Vec<[Host; 2]> = (0..SLOTS).map(|_| [Host::open(false), Host::open(true)]).collect();
        let mut fronts = Vec::new();
        let mut upstreams =
            vec![json!({ "name": "good", "url": origin.url("") }), json!({ "name": "goods", "url": door.url("") })];
        let mut routes = Vec::new();
        for (slot, pair) in hosts.iter().enumerate() {
            let mut names = Vec::new();
            for (host, scheme) in pair.iter().zip(["rtmp", "rtsp"]) {
                let mut url = format!("{scheme}://{}", host.address);
                if slot % 3 == 2 {
                    let front = Tunnel::before(host.address, &paper);
                    url = format!("{scheme}s://{}", front.address);
                    fronts.push(front);
                }
                names.push(format!("{scheme}{slot}"));
                upstreams.push(json!({ "name": names.last(), "url": url, "insecure_skip_verify": slot % 3 == 2 }));
            }
            routes.push(json!({ "match": { "app": format!("slot{slot}") }, "upstreams": names }));
        }
        routes.push(json!({ "upstreams": ["good", "goods"] }));
        let more = json!({ "upstreams": upstreams, "routes": routes, "security": { "tls_cert": cert, "tls_key": key } });
        let relay = Process::of(&configured_for_several(with(with(patience(), weather(seed)), more)));
        let private = relay.optional_door();
        let judge = Judge::before(&relay);
        let trust = Arc::new(believing(&authority, None));
        Self { judge, relay, private, trust, origin, door, hosts, _fronts: fronts, _dir: dir }
    }

    /// Runs the plan of `seed`.
    fn run(&mut self, seed: u64) {
        let over = Arc::<AtomicBool>::default();
        let name = format!("honest-{seed}");
        let everybody = Everybody::begin(&self.relay, &name, &self.origin, &self.door);
        let acts: Vec<_> = plan::drawn(seed).into_iter().map(|act| self.act(act, &over)).collect();
        // Who does wrong on purpose does so until the relay has had enough of it.
        wait_until("all have come", || acts.iter().all(|act| act.came.load(SeqCst)));
        self.relay.wait_active(Everybody::SESSIONS);
        over.store(true, SeqCst);
        for act in acts {
            act.thread.join().expect("an act that is over");
        }
        everybody.lost_nothing(&self.origin);
        self.hosts.iter().flatten().for_each(|host| host.behave(Mood::willing()));
        self.judge.after(&self.relay);
    }

    /// Is told to end while the plan of `seed` goes on.
    fn ends_amid(self, seed: u64) {
        let over = Arc::<AtomicBool>::default();
        let acts: Vec<_> = plan::drawn(seed).into_iter().map(|act| self.act(act, &over)).collect();
        wait_until("all have come", || acts.iter().all(|act| act.came.load(SeqCst)));
        let Self { judge, relay, .. } = self;
        judge.at_the_end(relay);
        over.store(true, SeqCst);
        for act in acts {
            act.thread.join().expect("an act that is over");
        }
    }

    fn act(&self, act: Act, over: &Arc<AtomicBool>) -> Playing {
        let Act { origin, once, ref chance, .. } = act;
        let mood = Mood { cut: origin, once, chance: chance.clone(), plan_over: Arc::clone(over) };
        self.hosts[act.slot][usize::from(act.rtsp)].behave(mood);
        let address = if act.way == Way::Private { self.private } else { self.relay.address };
        let (trust, over, came) = (Arc::clone(&self.trust), Arc::clone(over), Arc::<AtomicBool>::default());
        let there = Arc::clone(&came);
        let thread = std::thread::spawn(move || {
            let socket = connected(address, act.way);
            there.store(true, SeqCst);
            let mouth = Mouth::new(socket, act.client, act.chance.clone(), &over);
            drop(visit(mouth, &act, trust));
        });
        Playing { came, thread }
    }
}

struct Playing {
    came: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

/// Deadlines of a moment, so that who is slow is seen to be.
fn patience() -> Value {
    json!({
        "listeners": [{ "addr": "127.0.0.1:0", "tls": "optional" }],
        "handshake_timeout": "1s", "idle_timeout": "1s", "player_idle_timeout": "1s", "write_timeout": "1s", "dial_timeout": "500ms",
        "upstream_stall_timeout": "1s",
        "publish_hold": { "max_time": "500ms" },
        "circuit_breaker": { "enabled": false },
        "retry": { "max_attempts": 2, "initial_delay_sec": 0.05, "total_timeout": "2s" },
        "tcp": { "send_buffer": 65536 },
        "security": { "trusted_proxies": [format!("{}/32", std::net::Ipv4Addr::from(BALANCER))] },
        "shutdown_timeout": "2s",
    })
}

/// What an operator may have chosen, in its turn.
fn weather(seed: u64) -> Value {
    match seed / SEASON % 4 {
        0 => json!({}),
        1 => json!({ "hold": { "max": "0s" }, "publish_hold": { "enabled": false } }),
        2 => json!({ "read_buffer": 4096, "write_buffer": 4096, "buffers": { "pool": 0, "max_total": 1_048_576 } }),
        _ => {
            json!({ "upstream_health_check": { "enabled": true, "interval_sec": 1, "timeout_sec": 1, "kind": "tcp" }, "workers": 1 })
        }
    }
}

fn with(mut one: Value, other: Value) -> Value {
    for (key, value) in other.as_object().cloned().unwrap_or_default() {
        match (one.get_mut(&key).and_then(Value::as_object_mut), value) {
            (Some(one), Value::Object(value)) => one.extend(value),
            (_, value) => one[&key] = value,
        }
    }
    one
}

/// A socket to the relay, from the balancer's address where it is one's.
fn connected(to: SocketAddr, way: Way) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    if way == Way::Proxied {
        socket.bind(&SocketAddr::from((BALANCER, 0)).into()).expect("all of 127.0.0.0/8 is ours");
    }
    socket.connect(&to.into()).expect("the relay accepts");
    socket.into()
}

fn visit(mut mouth: Mouth, act: &Act, trust: Arc<ClientConfig>) -> Result<(), Over> {
    match act.way {
        Way::Plain => {}
        Way::Proxied => mouth.say(Phase::Preface, b"PROXY TCP4 192.0.2.7 198.51.100.9 4001 1935\r\n")?,
        Way::Private => {
            let name = "localhost".try_into().expect("a name");
            mouth = mouth.private(ClientConnection::new(trust, name).expect("a configuration"))?;
        }
    }
    if act.rtsp { visitor::rtsp(&mut mouth, act, "cam") } else { visitor::rtmp(&mut mouth, act, "cam") }
}

/// A number from the environment.
fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}

/// Says which plan it was, where one fails.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self(seed) = self;
            let acts: Vec<String> = plan::drawn(*seed).iter().map(|act| format!("{act:?}")).collect();
            eprintln!("--- the plan of seed {seed} failed; again: RELAY_SEED={seed} RELAY_CAMPAIGN=1\n{}\n---", acts.join("\n"));
        }
    }
}

#[test]
fn campaign_whatever_peers_do_wrong_honest_streams_lose_nothing_and_nothing_is_left_behind() {
    let (first, plans) = (number("RELAY_SEED", 1), number("RELAY_CAMPAIGN", 2));
    let mut season = None;
    for plan in 0..plans {
        let seed = first.wrapping_add(plan);
        let _named = Named(seed);
        let running: &mut Season = season.get_or_insert_with(|| Season::of(seed));
        running.run(seed);
        if seed % SEASON == SEASON - 1 || plan == plans - 1 {
            let Some(over) = season.take() else { continue };
            println!("{} plans of {plans} are over, the last of seed {seed}: {}", plan + 1, over.judge.summary(&over.relay));
            over.ends_amid(seed);
        }
    }
}
