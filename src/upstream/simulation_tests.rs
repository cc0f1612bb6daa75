//! Choice, circuits, retry and health together, under a clock and a chance of their own: thousands of clients, origins that come and go, and what
//! must hold after each step.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use proptest::prelude::{ProptestConfig, any, prop, proptest};
use proptest::strategy::Strategy as Generator;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::circuit::{Circuit, CircuitState, Report, Ticket};
use super::retry::Next;
use super::select::{Fitness, Group, Member, Moment, Seed};
use super::target::TargetId;
use super::vital::{Depth, Rules, Trouble, Vital};
use super::walk::Walk;
use crate::config::{CircuitBreaker, Retry, Strategy};

const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
const RULES: Rules = Rules { rise: 2, fall: 3 };
const CHECK_EVERY: Duration = Duration::from_secs(2);
/// How long origins misbehave; afterwards all are well.
const TROUBLE: Duration = Duration::from_secs(240);
const PEACE: Duration = Duration::from_secs(240);

/// How an origin behaves to a dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Well,
    /// Says no by command: well, as far as anybody is concerned.
    Refuses,
    Down,
    /// No answer at all.
    Silent,
    /// A connection, and then no answer.
    Hangs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Mood(usize),
    Check(usize),
    Arrives,
    /// The client goes on.
    Turn(usize),
    /// The dial of a client ends: (client, serial of its dial).
    Dialled(usize, u32),
    /// The client leaves, whatever it is doing.
    Leaves(usize),
}

#[derive(Debug)]
struct Origin {
    mood: Mood,
    circuit: Circuit,
    vital: Vital,
    /// What the last turn of its health said.
    told_healthy: bool,
    sessions: u32,
    dials: u32,
    /// Since when anybody could have had a session here.
    open_since: Option<Instant>,
    /// Successes since the circuit closed behind an outage, while the number of dials at a time is still bounded.
    ramp: Option<u32>,
}

#[derive(Debug)]
struct Client {
    came: Instant,
    walk: Walk,
    candidates: Vec<TargetId>,
    /// The dial in progress, or the session.
    at: Option<At>,
    dials: u32,
    /// When each candidate was dialled, in order.
    dialled: Vec<(TargetId, Instant)>,
    over: bool,
}

#[derive(Debug, Clone, Copy)]
struct At {
    target: usize,
    dial: Option<Ticket>,
}

#[derive(Debug, Clone)]
struct Plan {
    strategy: Strategy,
    /// Weight and bound on sessions of each.
    origins: Vec<(u32, Option<u32>)>,
    breaker: CircuitBreaker,
    retry: Option<Retry>,
    checks: bool,
    seed: u64,
}

struct World {
    plan: Plan,
    chance: StdRng,
    start: Instant,
    now: Instant,
    events: BinaryHeap<Reverse<(Instant, u64, Event)>>,
    serial: u64,
    group: Group,
    origins: Vec<Origin>,
    clients: Vec<Client>,
    served: u32,
    turned_away: u32,
}

impl World {
    fn new(plan: Plan) -> Self {
        let start = Instant::now();
        let member = |(id, (weight, _)): (u32, &(u32, Option<u32>))| Member {
            id: TargetId(id),
            weight: *weight,
            backup: false,
            seed: Seed::of(&id.to_string()),
        };
        let members = (0..).zip(&plan.origins).map(member).collect();
        let origin = |_: &(u32, Option<u32>)| Origin {
            mood: Mood::Well,
            circuit: Circuit::new(plan.breaker, 0),
            vital: Vital::new(start),
            told_healthy: true,
            sessions: 0,
            dials: 0,
            open_since: Some(start),
            ramp: None,
        };
        let mut world = Self {
            chance: StdRng::seed_from_u64(plan.seed),
            start,
            now: start,
            events: BinaryHeap::new(),
            serial: 0,
            group: Group::new(plan.strategy, None, members),
            origins: plan.origins.iter().map(origin).collect(),
            clients: Vec::new(),
            served: 0,
            turned_away: 0,
            plan,
        };
        for at in 0..world.origins.len() {
            world.later(0..60_000, Event::Mood(at));
            if world.plan.checks {
                world.later(0..2000, Event::Check(at));
            }
        }
        world.later(0..1000, Event::Arrives);
        world
    }

    fn at(&mut self, then: Instant, event: Event) {
        self.serial += 1;
        self.events.push(Reverse((then, self.serial, event)));
    }

    fn later(&mut self, milliseconds: std::ops::Range<u64>, event: Event) {
        let after = Duration::from_millis(self.chance.random_range(milliseconds));
        self.at(self.now + after, event);
    }

    /// Runs to the end; true where the whole of it was peaceful at last.
    fn run(&mut self) {
        while let Some(Reverse((then, _, event))) = self.events.pop() {
            self.now = self.now.max(then);
            if self.now > self.start + TROUBLE + PEACE {
                break;
            }
            match event {
                Event::Mood(at) => self.mood(at),
                Event::Check(at) => self.check(at),
                Event::Arrives => self.arrives(),
                Event::Turn(client) => self.turn(client),
                Event::Dialled(client, dial) => self.dialled(client, dial),
                Event::Leaves(client) => self.leaves(client),
            }
            self.judge();
        }
        self.judge_the_end();
    }

    fn is_peace(&self) -> bool {
        self.now >= self.start + TROUBLE
    }

    fn mood(&mut self, at: usize) {
        if self.is_peace() {
            self.origins[at].mood = Mood::Well;
            return;
        }
        let moods = [Mood::Well, Mood::Well, Mood::Refuses, Mood::Down, Mood::Silent, Mood::Hangs];
        self.origins[at].mood = moods[self.chance.random_range(0..moods.len())];
        let next = self.now + Duration::from_millis(self.chance.random_range(100..40_000));
        self.at(next.min(self.start + TROUBLE), Event::Mood(at));
    }

    fn check(&mut self, at: usize) {
        let now = self.now;
        let result = match self.origins[at].mood {
            Mood::Well | Mood::Refuses => Ok(Depth::Speech),
            Mood::Down => Err(Trouble::new("connect_refused", "down")),
            Mood::Silent => Err(Trouble::new("connect_timeout", "silent")),
            Mood::Hangs => Err(Trouble::new("handshake_timeout", "hangs")),
        };
        self.health(at, |vital| vital.checked(now, RULES, result));
        self.at(now + CHECK_EVERY, Event::Check(at));
    }

    fn health(&mut self, at: usize, learn: impl FnOnce(&mut Vital) -> Option<super::vital::Turn>) {
        let origin = &mut self.origins[at];
        if let Some(turn) = learn(&mut origin.vital) {
            assert_ne!(turn.healthy, origin.told_healthy, "a turn is a change");
            origin.told_healthy = turn.healthy;
        }
    }

    fn arrives(&mut self) {
        let (now, load) = (self.now, self.origins.iter().map(|origin| origin.sessions + origin.dials).collect::<Vec<_>>());
        let full = |at: usize| self.plan.origins[at].1.is_some_and(|most| load[at] >= most);
        let fit = |at: usize| {
            let vital = &self.origins[at].vital;
            let healthy = vital.is_healthy() || vital.wants_trial(now);
            if full(at) {
                Fitness::Out
            } else if healthy {
                Fitness::Healthy
            } else {
                Fitness::Unhealthy
            }
        };
        let fitness: Vec<Fitness> = (0..self.origins.len()).map(fit).collect();
        let key: [u8; 4] = self.chance.random();
        let chance = &mut self.chance;
        let candidates = self.group.candidates(&mut Moment {
            key: &key,
            publishes: true,
            first: None,
            last: None,
            fitness: &|id| fitness[id.0 as usize],
            load: &|id| load[id.0 as usize],
            chance: &mut || chance.random(),
        });
        let classes: Vec<Fitness> = candidates.iter().map(|id| fitness[id.0 as usize]).collect();
        assert!(classes.is_sorted() && !classes.contains(&Fitness::Out), "{classes:?}");
        if let Some(first) = candidates.first() {
            let vital = &mut self.origins[first.0 as usize].vital;
            if vital.wants_trial(now) {
                vital.on_trial(now);
            }
            let walk = Walk::new(self.plan.retry, &candidates, now);
            let client = Client { came: now, walk, candidates, at: None, dials: 0, dialled: Vec::new(), over: false };
            self.clients.push(client);
            let number = self.clients.len() - 1;
            self.at(now, Event::Turn(number));
            self.later(0..90_000, Event::Leaves(number));
        }
        // A crowd comes now and then.
        let next = if self.chance.random_bool(0.8) { 0..50 } else { 0..4000 };
        self.later(next, Event::Arrives);
    }

    fn turn(&mut self, number: usize) {
        let now = self.now;
        if self.clients[number].over || self.clients[number].at.is_some() {
            return;
        }
        match self.clients[number].walk.next(now) {
            Next::GiveUp(_) => self.give_up(number),
            Next::Wait(wait) => {
                assert!(wait > Duration::ZERO);
                self.at(now + wait, Event::Turn(number));
            }
            Next::Dial(within) => self.dial(number, within),
        }
    }

    fn dial(&mut self, number: usize, within: Option<Duration>) {
        let now = self.now;
        let untried: Vec<TargetId> = self.clients[number].walk.untried().collect();
        assert!(!untried.is_empty(), "who may dial has somebody to dial");
        let mut soonest: Option<Duration> = None;
        for id in untried {
            let at = id.0 as usize;
            let most = self.plan.origins[at].1;
            let origin = &mut self.origins[at];
            if most.is_some_and(|most| origin.sessions + origin.dials >= most) {
                continue;
            }
            let before = origin.circuit.state();
            match origin.circuit.ask(now).0 {
                Ok(ticket) => {
                    assert!(before != CircuitState::Open || origin.circuit.state() == CircuitState::HalfOpen);
                    return self.begin(number, at, ticket, within);
                }
                Err(not_now) => soonest = Some(soonest.map_or(not_now.retry_after, |known| known.min(not_now.retry_after))),
            }
        }
        let began = self.clients[number].walk.has_begun();
        if soonest.is_none() && !began {
            return self.give_up(number);
        }
        let chance = self.chance.random();
        self.clients[number].walk.none_ready(now, soonest, chance);
        self.at(now, Event::Turn(number));
    }

    fn begin(&mut self, number: usize, at: usize, ticket: Ticket, within: Option<Duration>) {
        let takes = match self.origins[at].mood {
            Mood::Silent | Mood::Hangs => DIAL_TIMEOUT,
            Mood::Well | Mood::Refuses | Mood::Down => Duration::from_millis(self.chance.random_range(1..200)),
        };
        let (now, id) = (self.now, TargetId(at as u32));
        self.origins[at].dials += 1;
        let client = &mut self.clients[number];
        client.walk.dialling(id);
        client.dials += 1;
        client.dialled.push((id, now));
        client.at = Some(At { target: at, dial: Some(ticket) });
        let dial = client.dials;
        self.at(now + takes.min(within.unwrap_or(takes)), Event::Dialled(number, dial));
    }

    fn dialled(&mut self, number: usize, dial: u32) {
        let client = &mut self.clients[number];
        let Some(At { target, dial: Some(ticket) }) = client.at.filter(|_| client.dials == dial && !client.over) else { return };
        let (now, chance) = (self.now, self.chance.random());
        client.at = None;
        self.origins[target].dials -= 1;
        let failure = match self.origins[target].mood {
            Mood::Well | Mood::Refuses => None,
            Mood::Down => Some("connect_refused"),
            Mood::Silent => Some("connect_timeout"),
            Mood::Hangs => Some("handshake_timeout"),
        };
        let refused = self.origins[target].mood == Mood::Refuses;
        let report = match (failure, refused) {
            (None, false) => Report::Success,
            (None, true) => Report::Neither,
            (Some(_), _) => Report::Failure,
        };
        let transition = self.origins[target].circuit.report(ticket, report, now);
        if let Some(transition) = transition {
            self.origins[target].ramp = (transition.to == CircuitState::Closed).then_some(0);
        } else if report == Report::Success {
            let ramp = &mut self.origins[target].ramp;
            *ramp = ramp.map(|successes| successes + 1).filter(|successes| *successes < 63);
        }
        let learnt = failure.map_or(Ok(Depth::Speech), |kind| Err(Trouble::new(kind, "failed")));
        self.health(target, |vital| vital.dialled(now, learnt));
        let client = &mut self.clients[number];
        match report {
            Report::Success => {
                client.at = Some(At { target, dial: None });
                self.origins[target].sessions += 1;
                self.served += 1;
            }
            // Told to the client, which is closed.
            Report::Neither => client.over = true,
            Report::Failure => {
                client.walk.failed(now, chance);
                self.at(now, Event::Turn(number));
            }
        }
    }

    fn leaves(&mut self, number: usize) {
        let now = self.now;
        let client = &mut self.clients[number];
        client.over = true;
        match client.at.take() {
            Some(At { target, dial: Some(ticket) }) => {
                self.origins[target].dials -= 1;
                self.origins[target].circuit.report(ticket, Report::Neither, now);
            }
            Some(At { target, dial: None }) => self.origins[target].sessions -= 1,
            None => {}
        }
    }

    fn give_up(&mut self, number: usize) {
        self.turned_away += 1;
        let client = &mut self.clients[number];
        client.over = true;
        let came = client.came;
        for (at, origin) in self.origins.iter().enumerate() {
            let open = self.clients[number].candidates.contains(&TargetId(at as u32))
                && origin.open_since.is_some_and(|since| since <= came);
            assert!(!open, "a client was turned away, though origin {at} was there for it all the time");
        }
    }

    /// What must hold after each step.
    fn judge(&mut self) {
        let now = self.now;
        for (at, origin) in self.origins.iter_mut().enumerate() {
            let most = self.plan.origins[at].1;
            assert!(most.is_none_or(|most| origin.sessions + origin.dials <= most), "origin {at} has too many");
            assert_eq!(origin.vital.is_healthy(), origin.told_healthy, "what was told is what is so");
            if origin.circuit.state() == CircuitState::HalfOpen {
                // Those of before the circuit opened may still be on their way; a new one is let through when none of the new is.
                let mut twice = origin.circuit.clone();
                let first = twice.ask(now).0.is_ok();
                assert!(!(first && twice.ask(now).0.is_ok()), "two probes of origin {at}");
            }
            if let Some(successes) = origin.ramp {
                let mut circuit = origin.circuit.clone();
                let more = (0..100).take_while(|_| circuit.ask(now).0.is_ok()).count();
                assert!(more as u32 <= successes + 1, "origin {at} would be stormed by {more} behind {successes} successes");
            }
            let passes = origin.circuit.clone().ask(now).0.is_ok() && origin.circuit.state() == CircuitState::Closed;
            let room = most.is_none_or(|most| origin.sessions + origin.dials < most);
            let open = passes && room && origin.ramp.is_none() && origin.mood == Mood::Well;
            origin.open_since = if open { origin.open_since.or(Some(now)) } else { None };
        }
    }

    /// What must hold of each client, and of the whole.
    fn judge_the_end(&self) {
        for client in &self.clients {
            let most = self.plan.retry.map_or(1, |retry| retry.max_attempts).max(client.candidates.len() as u32);
            assert!(client.dials <= most, "{} dials where {most} are the most", client.dials);
            let Some(retry) = self.plan.retry else {
                let mut once: Vec<_> = client.dialled.iter().map(|(id, _)| *id).collect();
                once.sort_unstable();
                once.dedup();
                assert_eq!(once.len(), client.dialled.len(), "without retry each candidate is dialled once");
                continue;
            };
            let least = retry.initial_delay.mul_f64(1.0 - retry.jitter_fraction);
            for (at, (id, began)) in client.dialled.iter().enumerate() {
                assert!(*began < client.came + retry.total_timeout, "a dial began too late");
                let before = client.dialled[..at].iter().rev().find(|(its, _)| its == id);
                assert!(before.is_none_or(|(_, earlier)| *began >= *earlier + least), "the same one again without a back-off");
            }
            let ended = client.over || client.at.is_some() || self.now < client.came + retry.total_timeout + DIAL_TIMEOUT;
            assert!(ended, "a client waits for ever");
        }
        assert!(self.served > 0);
        for origin in &self.origins {
            // Without checks nobody may have tried one that is far down the list; but whoever does is let through.
            assert!(origin.vital.is_healthy() || !self.plan.checks, "in the end all are well: {:?}", origin.vital);
            assert!(origin.circuit.clone().ask(self.now).0.is_ok() || origin.dials > 0, "{:?}", origin.circuit);
        }
    }
}

fn plans() -> impl Generator<Value = Plan> {
    let strategies =
        vec![Strategy::RoundRobin, Strategy::Random, Strategy::LeastConnections, Strategy::ConsistentHash, Strategy::Failover];
    let origins = prop::collection::vec((1..4_u32, prop::option::weighted(0.3, 1..60_u32)), 1..5);
    let breaker = (1..8_u32, 500..20_000_u64, 1..4_u32).prop_map(|(max_failures, reset, success_threshold)| CircuitBreaker {
        max_failures,
        reset_timeout: Duration::from_millis(reset),
        success_threshold,
    });
    let retry = (1..7_u32, 50..2000_u64, 0.0..0.5_f64).prop_map(|(max_attempts, initial, jitter_fraction)| Retry {
        max_attempts,
        initial_delay: Duration::from_millis(initial),
        max_delay: Duration::from_secs(4),
        multiplier: 2.0,
        jitter_fraction,
        total_timeout: Duration::from_secs(20),
    });
    let retry = prop::option::weighted(0.9, retry);
    let parts = (prop::sample::select(strategies), origins, breaker, retry, any::<bool>(), any::<u64>());
    parts.prop_map(|(strategy, origins, breaker, retry, checks, seed)| Plan { strategy, origins, breaker, retry, checks, seed })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn nobody_is_stormed_and_nobody_is_turned_away_while_somebody_is_there(plan in plans()) {
        World::new(plan).run();
    }
}
