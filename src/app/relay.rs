//! The relay, wired: actors on their threads, the door, HTTP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant, SystemTime};

use actix::{Actor, Addr, Arbiter};
use anyhow::Context;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::doors;
use crate::admission::supervisor::{self, Ended};
use crate::admission::{Claims, Gate, RateLimiter, Supervisor, Tally};
use crate::config::{self, Config};
use crate::http::{self, BufferFacts, ListenerFacts, Readiness, Served, Settings, Sources, UpstreamFacts};
use crate::listener::{self, Listener, Workers, bind};
use crate::session::{BufferStats, Door, Shared, WorkerSettings, prepare_worker};
use crate::telemetry::{BufferUse, MetricsCollector, Telemetry, WorkerTraffic, collector, events};
use crate::tls;
use crate::upstream::passage::Passages;
use crate::upstream::{self, Breaker, Reachability, Router, Target, UpstreamBreaker, breaker};

/// Accepted sockets above `max_total_connections`: those that are just being told why they are refused.
const HARD_CAP_EXTRA: usize = 64;
/// How often a drain looks whether everybody has left.
const LOOK: Duration = Duration::from_millis(20);
/// How long sessions that were told to end may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(8);

/// A relay that runs.
pub struct Relay {
    doors: Vec<Door>,
    listener: Addr<Listener>,
    supervisor: Addr<Supervisor>,
    supervisor_ended: Ended,
    listener_gone: CancellationToken,
    http: Option<Served>,
    readiness: Readiness,
    telemetry: Telemetry,
    shutdown_timeout: Duration,
    arbiters: Vec<Arbiter>,
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
    /// Starts everything that `config` asks for, within a running actix `System`.
    ///
    /// # Errors
    /// An address that cannot be listened on, named; an upstream or a token entry that a checked configuration does not have.
    pub fn start(config: &Config, telemetry: Telemetry) -> anyhow::Result<Self> {
        let tls = doors::private(config, &telemetry)?;
        let sockets = doors::open(config)?;
        let doors: Vec<Door> = sockets.iter().map(|(door, _)| *door).collect();
        let started = (Instant::now(), SystemTime::now());
        telemetry.emit(events::Started { workers: config.workers });
        let mut arbiters = vec![Arbiter::new()];
        let control = arbiters[0].handle();
        let tally = Tally::default();
        let targets = upstream::targets(config).context("upstream")?;
        let labels: Vec<(_, String)> = targets.iter().map(|t| (t.id, t.label.clone())).collect();
        telemetry.metrics().set_targets(targets.iter().map(|t| t.label.as_str()));

        let supervisor = Supervisor::new(config.connection_limit, tally.clone());
        let supervisor_ended = supervisor.ended();
        let supervisor = Supervisor::start_in_arbiter(&control, move |_| supervisor);
        let (rate, tell) = (config.rate_limit, telemetry.clone());
        let limiter_tally = tally.clone();
        let on_panic = Box::new(move || tell.emit(events::Panicked { place: "rate_limiter", session: None }));
        let rate_limiter = RateLimiter::start_in_arbiter(&control, move |_| RateLimiter::new(rate, limiter_tally, on_panic));
        let (settings, telling) = (config.circuit_breaker, breaker::telling(telemetry.clone()));
        let passages = Passages::default();
        let breaker = UpstreamBreaker::new(settings, labels, telling).with(passages.clone());
        let breaker = UpstreamBreaker::start_in_arbiter(&control, move |_| breaker);

        let buffers = BufferStats::new(config.buffers.read.max(config.buffers.write), config.buffers.max_total);
        let stats = Arc::clone(&buffers);
        telemetry.metrics().watch_buffers(move || buffer_use(&stats));
        let traffic: Vec<Arc<WorkerTraffic>> = (0..config.workers).map(|_| Arc::default()).collect();
        let workers: Vec<Arbiter> = traffic.iter().map(|traffic| worker(config, &buffers, traffic)).collect();
        let handles: Vec<_> = workers.iter().map(Arbiter::handle).collect();
        arbiters.extend(workers);
        let (tell, sampled) = (telemetry.clone(), traffic);
        let collector = MetricsCollector::start_in_arbiter(&control, move |_| MetricsCollector::new(tell, sampled));

        let asked = Breaker::new(breaker.clone()).with(passages).timed(telemetry.metrics());
        let own = doors.iter().map(|door| door.address).collect();
        let means = upstream::means(config, &targets, own, asked, telemetry.clone()).context("upstream_tls")?;
        let readiness = Readiness::of(means.reachability.clone());
        warm(&means.reachability);
        let gate = Gate::new(&config.security, config.rate_limit.map(|_| rate_limiter.clone()), supervisor.clone(), tally)
            .context("security.auth_tokens")?
            .timed(telemetry.metrics());
        let shared = Arc::new(Shared {
            gate,
            router: Router::new(config, targets.clone(), means).context("routes")?,
            forward: config.forward_query.clone(),
            tls: tls.clone(),
            timeouts: config.timeouts,
            buffers: config.buffers,
            claims: Claims::new(config.publish_takeover),
            publish_hold: config.publish_hold,
            held_bytes: Arc::default(),
            telemetry: telemetry.clone(),
            sessions: AtomicU64::new(0),
        });
        let cap = config.connection_limit.max_total_connections as usize + HARD_CAP_EXTRA;
        let listener = Listener::new(sockets, Workers::new(handles), shared, cap);
        let (watch, listener_gone) = (listener.watch(), listener.gone());
        let http = match config.http {
            None => None,
            Some(http_address) => {
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
                    buffers: Arc::new(move || buffer_facts(&buffers)),
                    upstreams: upstream_facts(config, &targets),
                    started: started.0,
                    started_at: started.1,
                };
                let tls = tls.filter(|_| config.http_tls);
                let settings = Settings { allowed: config.http_allowed_networks.clone(), tls };
                let served = http::serve(bind("http_addr", http_address)?, &settings, sources)?;
                telemetry.emit(events::HttpListening { address: served.address(), open: settings.allowed.is_empty() });
                Some(served)
            }
        };
        // The door opens last: whoever comes in finds everything there.
        let listener_arbiter = Arbiter::new();
        let listener = Listener::start_in_arbiter(&listener_arbiter.handle(), move |_| listener);
        arbiters.push(listener_arbiter);
        readiness.set_accepting(true);
        doors.iter().for_each(|door| telemetry.emit(events::Listening { address: door.address, tls: door.tls.as_str() }));
        let actors = Actors { supervisor: supervisor.clone(), rate_limiter, breaker, collector, listener: listener.clone() };
        let shutdown_timeout = config.timeouts.shutdown;
        Ok(Self {
            doors,
            listener,
            supervisor,
            supervisor_ended,
            listener_gone,
            http,
            readiness,
            telemetry,
            shutdown_timeout,
            arbiters,
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

    /// Sessions now.
    pub async fn active(&self) -> usize {
        self.supervisor.send(supervisor::Snapshot).await.map_or(0, |standing| standing.active as usize)
    }

    /// Resolves when the relay must not go on, with the reason: Supervisor's ledger is the truth, and a door that accepts nobody would
    /// look like one that is open.
    pub async fn failed(&self) -> &'static str {
        tokio::select! {
            () = self.supervisor_ended.wait() => "the Supervisor has died: without its ledger no limit holds",
            () = self.listener_gone.cancelled() => "the Listener has died: nobody can connect any more",
        }
    }

    /// Lets nobody in any more, lets sessions end for `shutdown_timeout`, closes those that are left.
    pub async fn drain(&self) {
        self.readiness.drain();
        let _ = self.listener.send(listener::Stop).await;
        let _ = self.supervisor.send(supervisor::Drain).await;
        let active = self.active().await;
        self.telemetry.emit(events::DrainStarted { active, timeout: self.shutdown_timeout });
        tokio::select! {
            () = self.emptied() => {}
            () = sleep(self.shutdown_timeout) => {}
        }
        let cut = self.supervisor.send(supervisor::KickAll { reason: "shutdown" }).await.unwrap_or(0);
        let _ = timeout(GOODBYE, self.emptied()).await;
        // The last bytes, and what the log's throttle still keeps back.
        let _ = self.actors.collector.send(collector::Tick).await;
        self.telemetry.emit(events::DrainFinished { ended: active.saturating_sub(cut), cut });
    }

    /// Stops HTTP and the threads. Sessions that are left are dropped where they are.
    pub async fn stop(self) {
        if let Some(http) = self.http {
            http.stop().await;
        }
        for arbiter in self.arbiters {
            arbiter.stop();
        }
    }

    async fn emptied(&self) {
        while self.active().await > 0 {
            sleep(LOOK).await;
        }
    }
}

/// A thread that runs sessions.
fn worker(config: &Config, buffers: &Arc<BufferStats>, traffic: &Arc<WorkerTraffic>) -> Arbiter {
    let arbiter = Arbiter::new();
    let settings = WorkerSettings {
        hold: config.hold.max,
        keep_buffers: config.buffers.pool.div_ceil(config.workers.max(1)),
        buffers: Arc::clone(buffers),
        traffic: Arc::clone(traffic),
    };
    arbiter.spawn_fn(move || prepare_worker(&settings));
    arbiter
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
    BufferFacts { size_bytes: stats.size, lent: stats.lent(), max_total_bytes: stats.max_total, unheld: stats.unheld() }
}

fn buffer_use(stats: &BufferStats) -> BufferUse {
    BufferUse {
        lent_bytes: stats.lent().saturating_mul(stats.size) as u64,
        max_bytes: stats.max_total as u64,
        made: stats.made(),
        unheld: stats.unheld(),
    }
}

fn upstream_facts(config: &Config, targets: &[Arc<Target>]) -> Arc<dyn Fn() -> Vec<UpstreamFacts> + Send + Sync> {
    let facts = |(target, upstream): (&Arc<Target>, &config::Upstream)| UpstreamFacts {
        target: target.label.clone(),
        weight: upstream.weight,
        tls: upstream::privacy(target, upstream),
    };
    let facts: Vec<UpstreamFacts> = targets.iter().zip(&config.upstreams).map(facts).collect();
    Arc::new(move || facts.clone())
}
