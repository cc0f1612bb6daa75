//! The relay, wired: actors on their threads, the door, HTTP.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use actix::{Actor, Addr, Arbiter, ArbiterHandle};
use anyhow::Context;
use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::doors;
use super::handover::Predecessor;
use super::outfit::{Outfit, Staff};
use super::sockets::Sockets;
use crate::admission::supervisor::{self, Ended};
use crate::admission::{RateLimiter, Supervisor, Tally};
use crate::config::{Config, Loaded};
use crate::http::admin::{self, Asked, Controls, Key, MAX_ORDERS};
use crate::http::{self, BufferFacts, ConfigFacts, ListenerFacts, Readiness, Served, Settings, Sources};
use crate::listener::{self, Listener, Workers};
use crate::session::{BufferStats, Door, WorkerHandle, WorkerSettings};
use crate::telemetry::{BufferUse, MetricsCollector, Telemetry, WorkerTraffic, events};
use crate::tls;
use crate::upstream::passage::Passages;
use crate::upstream::{Breaker, Numbering, Reachability, UpstreamBreaker, breaker};

/// A relay that runs.
pub struct Relay {
    doors: Vec<Door>,
    pub(super) listener: Addr<Listener>,
    supervisor_ended: Ended,
    listener_gone: CancellationToken,
    pub(super) http: Option<Served>,
    pub(super) admin: Option<Served>,
    pub(super) admin_key: Key,
    /// What operators ask the process for.
    pub(super) orders: Option<mpsc::Receiver<Asked>>,
    pub(super) readiness: Readiness,
    pub(super) staff: Staff,
    /// The configuration that runs.
    pub(super) outfit: Arc<ArcSwap<Outfit>>,
    pub(super) told: Arc<ArcSwap<ConfigFacts>>,
    pub(super) buffers: Arc<BufferStats>,
    pub(super) workers: Vec<WorkerHandle>,
    arbiters: Vec<Arbiter>,
    /// The process whose place this one takes.
    pub(super) predecessor: Option<Predecessor>,
    /// For tests, which stop or break one.
    #[doc(hidden)]
    pub actors: Actors,
}

/// The control actors.
#[doc(hidden)]
#[derive(Clone)]
pub struct Actors {
    pub supervisor: Addr<Supervisor>,
    pub rate_limiter: Addr<RateLimiter>,
    pub breaker: Addr<UpstreamBreaker>,
    pub collector: Addr<MetricsCollector>,
    pub listener: Addr<Listener>,
}

impl Relay {
    /// Starts everything that `loaded` asks for, within a running actix `System`.
    ///
    /// # Errors
    /// An address that cannot be listened on, named; an upstream or a token entry that a checked configuration does not have.
    pub fn start(loaded: &Loaded, telemetry: Telemetry) -> anyhow::Result<Self> {
        Self::start_on(Sockets::none(), loaded, telemetry)
    }

    /// The same, on sockets that were handed over where there is one for an address.
    ///
    /// # Errors
    /// As [`Self::start`]; a socket for an address that the configuration does not name.
    pub fn start_on(mut sockets: Sockets, loaded: &Loaded, telemetry: Telemetry) -> anyhow::Result<Self> {
        let config = &loaded.config;
        let tls = doors::private(config, &telemetry)?;
        let opened = doors::open(config, &mut sockets)?;
        let doors: Vec<Door> = opened.iter().map(|(door, _)| *door).collect();
        let for_http = config.http.map(|address| sockets.open("http_addr", address)).transpose()?;
        let for_admin = doors::for_admin(loaded, &mut sockets, &telemetry)?;
        let predecessor = sockets.all_claimed()?;
        let started = (Instant::now(), SystemTime::now());
        telemetry.emit(events::Started { workers: config.workers });
        let told = Arc::new(ArcSwap::from_pointee(facts_of(loaded, &telemetry)));
        telemetry.emit(events::ConfigLoaded { source: &loaded.source, hash: &told.load().hash });
        let mut arbiters = vec![Arbiter::new()];
        let control = arbiters[0].handle();
        let tally = Tally::default();

        let supervisor = Supervisor::new(config.connection_limit, tally.clone());
        let supervisor_ended = supervisor.ended();
        let supervisor = Supervisor::start_in_arbiter(&control, move |_| supervisor);
        let rate_limiter = rate_limiter(config, &control, tally.clone(), &telemetry);
        let (settings, telling) = (config.circuit_breaker, breaker::telling(telemetry.clone()));
        let passages = Passages::default();
        // Its targets follow as soon as they are known.
        let breaker = UpstreamBreaker::new(settings, Vec::new(), telling).with(passages.clone());
        let breaker = UpstreamBreaker::start_in_arbiter(&control, move |_| breaker);

        let buffers = BufferStats::new(config.buffers.read.max(config.buffers.write), config.buffers.max_total);
        let stats = Arc::clone(&buffers);
        telemetry.metrics().watch_buffers(move || buffer_use(&stats));
        let traffic: Vec<Arc<WorkerTraffic>> = (0..config.workers).map(|_| Arc::default()).collect();
        let started_threads = traffic.iter().enumerate().map(|(n, traffic)| worker(n, config, &buffers, traffic));
        let workers = started_threads.collect::<Result<Vec<_>, _>>().context("a worker thread")?;
        let (tell, sampled) = (telemetry.clone(), traffic);
        let collector = MetricsCollector::start_in_arbiter(&control, move |_| MetricsCollector::new(tell, sampled));

        let staff = Staff {
            control: control.clone(),
            telemetry: telemetry.clone(),
            supervisor: supervisor.clone(),
            rate_limiter: rate_limiter.clone(),
            breaker: Breaker::new(breaker.clone()).with(passages).timed(telemetry.metrics()),
            tally,
            numbering: Numbering::default(),
            own: doors.iter().map(|door| door.address).collect(),
            tls: tls.clone(),
        };
        let outfit = Arc::new(Outfit::new(config, &staff, None)?);
        breaker.try_send(breaker::Configure { settings, targets: outfit.labels() }).context("the breaker")?;
        telemetry.metrics().set_targets(outfit.targets().iter().map(|target| target.label.as_str()));
        warm(&outfit.reachability);
        let shared = Arc::clone(&outfit.shared);
        let listener = Listener::new(opened, Workers::new(workers.clone()), shared, outfit.cap());
        let (watch, listener_gone) = (listener.watch(), listener.gone());
        let outfit = Arc::new(ArcSwap::new(outfit));
        let asked = Arc::clone(&outfit);
        let readiness = Readiness::of(move || asked.load().reachability.clone());
        let (stats, running, said) = (Arc::clone(&buffers), Arc::clone(&outfit), Arc::clone(&told));
        let sources = Sources {
            telemetry: telemetry.clone(),
            supervisor: supervisor.clone().recipient(),
            rate_limiter: rate_limiter.clone().recipient(),
            breaker: breaker.clone().recipient(),
            collector: collector.clone().recipient(),
            readiness: readiness.clone(),
            listener: Arc::new({
                let tls = tls.clone();
                move || listener_facts(&watch(), tls.as_deref())
            }),
            buffers: Arc::new(move || buffer_facts(&stats)),
            upstreams: Arc::new(move || running.load().upstreams()),
            config: Arc::new(move || (**said.load()).clone()),
            started: started.0,
            started_at: started.1,
        };
        let admin_key = Key::new(config.admin.token.as_ref(), config.http_allowed_networks.clone());
        let (asking, orders) = mpsc::channel(MAX_ORDERS);
        let admin = for_admin.map(|socket| {
            let running = Arc::clone(&outfit);
            let controls = Controls {
                sources: sources.clone(),
                sessions: supervisor.clone().recipient(),
                breaker: breaker.clone().recipient(),
                drain_target: Arc::new(move |target, drained| running.load().drain_target(target, drained)),
                orders: asking,
            };
            admin::serve(socket, &admin_key, tls.as_deref().filter(|_| config.admin.tls), controls)
        });
        let admin = admin.transpose().context("admin_addr")?;
        if let Some(served) = &admin {
            let (tls, token) = (config.admin.tls, config.admin.token.is_some());
            telemetry.emit(events::AdminListening { address: served.address(), tls, token });
        }
        let tls = tls.filter(|_| config.http_tls);
        let settings = Settings { allowed: config.http_allowed_networks.clone(), tls };
        let http = for_http.map(|socket| http::serve(socket, &settings, sources)).transpose()?;
        if let Some(served) = &http {
            telemetry.emit(events::HttpListening { address: served.address(), open: settings.allowed.is_empty() });
        }
        // The door opens last: whoever comes in finds everything there.
        let listener_arbiter = Arbiter::new();
        let listener = Listener::start_in_arbiter(&listener_arbiter.handle(), move |_| listener);
        arbiters.push(listener_arbiter);
        readiness.set_accepting(true);
        doors.iter().for_each(|door| telemetry.emit(events::Listening { address: door.address, tls: door.tls.as_str() }));
        let actors = Actors { supervisor, rate_limiter, breaker, collector, listener: listener.clone() };
        Ok(Self {
            doors,
            listener,
            supervisor_ended,
            listener_gone,
            http,
            admin,
            admin_key,
            orders: Some(orders),
            readiness,
            staff,
            outfit,
            told,
            buffers,
            workers,
            arbiters,
            predecessor,
            actors,
        })
    }

    /// The address that clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.doors[0].address
    }

    /// Every address that clients connect to, that of `listen_addr` first.
    pub fn doors(&self) -> &[Door] {
        &self.doors
    }

    /// The address of /status, unless HTTP is off.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(Served::address)
    }

    /// The address of /admin, unless it is off.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Served::address)
    }

    /// Sessions now.
    pub async fn active(&self) -> usize {
        self.staff.supervisor.send(supervisor::Snapshot).await.map_or(0, |standing| standing.active as usize)
    }

    /// Whether every thread of the relay still does what it is asked: the control actors', the workers', the Listener's. Waits as long as it
    /// takes; the caller bounds it.
    pub async fn threads_answer(&self) -> bool {
        let question = || {
            let (answer, answered) = oneshot::channel();
            (move || answer.send(()).unwrap_or_default(), answered)
        };
        let control = self.arbiters.iter().map(|arbiter| {
            let (job, answered) = question();
            arbiter.spawn_fn(job).then_some(answered)
        });
        let sessions = self.workers.iter().map(|worker| {
            let (job, answered) = question();
            worker.run(job).then_some(answered)
        });
        // All at once: one that is slow takes its time beside the others, not before them.
        let asked: Vec<_> = control.chain(sessions).collect();
        for answered in asked {
            let Some(answered) = answered else { return false };
            if answered.await.is_err() {
                return false;
            }
        }
        true
    }

    /// Resolves when the relay must not go on, with the reason: Supervisor's ledger is the truth, and a door that accepts nobody would
    /// look like one that is open.
    pub async fn failed(&self) -> &'static str {
        tokio::select! {
            () = self.supervisor_ended.wait() => "the Supervisor has died: without its ledger no limit holds",
            () = self.listener_gone.cancelled() => "the Listener has died: nobody can connect any more",
        }
    }

    /// Every listening socket with the key that it stands for, for another process to accept from.
    ///
    /// # Errors
    /// The sockets cannot be shared, or are closed.
    pub(super) async fn share(&self) -> anyhow::Result<Vec<(String, TcpListener)>> {
        let sockets = self.listener.send(listener::Share).await.context("the Listener is gone")??;
        let config = &self.outfit.load().config;
        let mut shared: Vec<(String, TcpListener)> = config.doors().map(|(key, ..)| key).zip(sockets).collect();
        for (key, served) in [("http_addr", &self.http), ("admin_addr", &self.admin)] {
            if let Some(served) = served {
                shared.push((key.to_owned(), served.share()?));
            }
        }
        Ok(shared)
    }

    /// Lets another process answer HTTP in its place.
    pub(super) async fn close_http(&self) {
        for served in [&self.http, &self.admin].into_iter().flatten() {
            served.stop().await;
        }
    }

    /// Stops HTTP and the threads. Sessions that are left are dropped where they are.
    pub async fn stop(self) {
        self.close_http().await;
        for arbiter in self.arbiters {
            arbiter.stop();
        }
        for worker in self.workers {
            worker.stop();
        }
    }
}

/// A thread that runs sessions.
fn worker(
    number: usize,
    config: &Config,
    buffers: &Arc<BufferStats>,
    traffic: &Arc<WorkerTraffic>,
) -> std::io::Result<WorkerHandle> {
    let settings = WorkerSettings {
        hold: config.hold.max,
        keep_buffers: keep_buffers(config, config.workers),
        buffers: Arc::clone(buffers),
        traffic: Arc::clone(traffic),
    };
    WorkerHandle::start(number, settings)
}

/// Spare buffers for each worker.
pub(super) fn keep_buffers(config: &Config, workers: usize) -> usize {
    config.buffers.pool.div_ceil(workers.max(1))
}

fn rate_limiter(config: &Config, control: &ArbiterHandle, tally: Tally, telemetry: &Telemetry) -> Addr<RateLimiter> {
    let (rate, tell) = (config.rate_limit, telemetry.clone());
    let on_panic = Box::new(move || tell.emit(events::Panicked { place: "rate_limiter", session: None }));
    RateLimiter::start_in_arbiter(control, move |_| RateLimiter::new(rate, tally, on_panic))
}

/// What /status says of a configuration that was just loaded.
pub(super) fn facts_of(loaded: &Loaded, telemetry: &Telemetry) -> ConfigFacts {
    let (source, hash) = (loaded.source.clone(), telemetry.digest(&loaded.for_digest()));
    ConfigFacts { source, hash, loaded_at: SystemTime::now(), last_reload: None }
}

/// Probes once, so that the first /ready knows.
fn warm(reachability: &Reachability) {
    let reachability = reachability.clone();
    actix_rt::spawn(async move {
        reachability.check().await;
    });
}

fn listener_facts(standing: &listener::Standing, tls: Option<&tls::Server>) -> ListenerFacts {
    ListenerFacts {
        doors: standing.doors.iter().map(|door| (door.address, door.tls.as_str())).collect(),
        tls: tls.map(tls::Server::standing),
        accepting: standing.accepting,
        open_sockets: standing.open as u64,
        hard_cap: standing.cap as u64,
    }
}

fn buffer_facts(stats: &BufferStats) -> BufferFacts {
    BufferFacts { size_bytes: stats.size(), lent: stats.lent(), max_total_bytes: stats.max_total(), unheld: stats.unheld() }
}

fn buffer_use(stats: &BufferStats) -> BufferUse {
    BufferUse {
        lent_bytes: stats.lent().saturating_mul(stats.size()) as u64,
        max_bytes: stats.max_total() as u64,
        made: stats.made(),
        unheld: stats.unheld(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::config::Env;

    #[actix::test]
    async fn the_threads_answer_unless_one_of_them_is_stuck() {
        let text = r#"{ "upstream": "rtmp://origin.example.com", "listen_addr": "127.0.0.1:0", "http_addr": "", "workers": 2 }"#;
        let config = crate::config::parse(text, &Env::empty(), &crate::app::judge_upstream).expect("it is valid");
        let relay = Relay::start(&config, Telemetry::silent()).expect("loopback has a free port");
        assert!(relay.threads_answer().await);
        let (release, stuck) = std::sync::mpsc::channel::<()>();
        relay.workers[1].run(move || stuck.recv().unwrap_or_default());
        timeout(Duration::from_millis(200), relay.threads_answer()).await.expect_err("one of them cannot");
        drop(release);
        assert!(relay.threads_answer().await);
        relay.workers[1].stop();
        while relay.threads_answer().await {
            sleep(Duration::from_millis(20)).await;
        }
        relay.stop().await;
    }
}
