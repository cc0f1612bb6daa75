//! Pure: in which order are the targets of a group tried?

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::target::TargetId;
use crate::config::Strategy;

/// One target of a group.
#[derive(Debug, Clone)]
pub struct Member {
    /// The target.
    pub id: TargetId,
    /// Its share of new sessions. 0: none, but players of what is live there.
    pub weight: u32,
    /// Whether it is tried only after all others.
    pub backup: bool,
    /// What consistent hashing knows it by; the same on every relay that is to agree.
    pub seed: Seed,
}

/// A digest of a target's name or URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed([u8; 32]);

impl Seed {
    /// The seed of a name, or of a URL as written.
    pub fn of(name: &str) -> Self {
        Self(Sha256::digest(name).into())
    }

    /// A number in (0, 1) that this target and the stream `key` always have together, on every machine.
    fn draw(&self, key: &[u8]) -> f64 {
        let digest: [u8; 32] = Sha256::new().chain_update(self.0).chain_update(key).finalize().into();
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        // 53 bits are what a float holds; the half keeps 0 out.
        ((u64::from_be_bytes(first) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }
}

/// Whether a target is to be tried now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fitness {
    /// In its turn.
    Healthy,
    /// After all that are healthy.
    Unhealthy,
    /// Not at all: it has as many sessions as it may have, or speaks another protocol.
    Out,
}

/// What there is to know about one client and this moment.
pub struct Moment<'a> {
    /// The stream's identity.
    pub key: &'a [u8],
    /// Whether the client publishes.
    pub publishes: bool,
    /// Goes first, if it is of the group and not out: there the stream is live.
    pub first: Option<TargetId>,
    /// Goes last: there the client has just lost its stream.
    pub last: Option<TargetId>,
    /// How each target stands.
    pub fitness: &'a dyn Fn(TargetId) -> Fitness,
    /// Sessions of this relay at each target.
    pub load: &'a dyn Fn(TargetId) -> u32,
    /// A number in [0, 1), a new one each time.
    pub chance: &'a mut dyn FnMut() -> f64,
}

/// Targets among which one strategy chooses.
#[derive(Debug, Clone)]
pub struct Group {
    strategy: Strategy,
    /// Share of the sessions, in multiples of its fair one, beyond which a publisher goes on; for consistent hashing alone.
    load_factor: Option<f64>,
    members: Vec<Member>,
    /// How far each is ahead of its turn.
    turns: BTreeMap<TargetId, i64>,
}

impl Group {
    /// A group whose first turn is still to come.
    pub fn new(strategy: Strategy, load_factor: Option<f64>, members: Vec<Member>) -> Self {
        Self { strategy, load_factor, members, turns: BTreeMap::new() }
    }

    /// The same, where `before` stood: whoever stays keeps its turn.
    #[must_use]
    pub fn after(mut self, before: &Self) -> Self {
        let stays = |id: &TargetId| self.members.iter().any(|member| member.id == *id);
        self.turns = before.turns.iter().filter(|(id, _)| stays(id)).map(|(id, turn)| (*id, *turn)).collect();
        self
    }

    /// Its targets, in the order of the configuration.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The candidates for one client, best first, none twice: healthy ones, healthy backups, then the unhealthy ones in the same
    /// order. Takes a turn.
    pub fn candidates(&mut self, moment: &mut Moment<'_>) -> Vec<TargetId> {
        let known: Vec<(Fitness, Member)> =
            self.members.iter().map(|member| ((moment.fitness)(member.id), member.clone())).collect();
        let there = |id: &TargetId| known.iter().any(|(fitness, member)| member.id == *id && *fitness != Fitness::Out);
        let first = moment.first.filter(there);
        let mut order: Vec<TargetId> = first.into_iter().collect();
        // Whoever follows its stream takes no turn.
        let mut turn = first.is_none();
        for (fitness, backup) in
            [(Fitness::Healthy, false), (Fitness::Healthy, true), (Fitness::Unhealthy, false), (Fitness::Unhealthy, true)]
        {
            let of_class = |(its, member): &&(Fitness, Member)| {
                (*its, member.backup) == (fitness, backup) && member.weight > 0 && Some(member.id) != first
            };
            let class: Vec<&Member> = known.iter().filter(of_class).map(|(_, member)| member).collect();
            if class.is_empty() {
                continue;
            }
            order.extend(self.ordered(&class, turn, moment));
            turn = false;
        }
        if let Some(last) = moment.last
            && let Some(at) = order.iter().position(|id| *id == last)
        {
            let last = order.remove(at);
            order.push(last);
        }
        order
    }

    fn ordered(&mut self, class: &[&Member], turn: bool, moment: &mut Moment<'_>) -> Vec<TargetId> {
        match self.strategy {
            Strategy::Failover => class.iter().map(|member| member.id).collect(),
            Strategy::RoundRobin => self.in_turn(class, turn),
            Strategy::Random => ids(drawn(class, |_| (moment.chance)())),
            Strategy::LeastConnections => {
                // By chance among equals, lest several relays all begin with the same one.
                let mut class = drawn(class, |_| (moment.chance)());
                // (load + 1) / weight, without a fraction.
                class.sort_by(|a, b| {
                    let share = |one: &Member, other: &Member| u64::from((moment.load)(one.id) + 1) * u64::from(other.weight);
                    share(a, b).cmp(&share(b, a))
                });
                ids(class)
            }
            Strategy::ConsistentHash => {
                let class = drawn(class, |member| member.seed.draw(moment.key));
                let factor = self.load_factor.filter(|_| moment.publishes);
                ids(factor.map_or(class.clone(), |factor| bounded(class, factor, moment.load)))
            }
        }
    }

    /// Smooth weighted round robin: over a round each comes first as often as its weight says, evenly spread.
    fn in_turn(&mut self, class: &[&Member], turn: bool) -> Vec<TargetId> {
        let total: i64 = class.iter().map(|member| i64::from(member.weight)).sum();
        let mut order: Vec<(i64, TargetId)> = class
            .iter()
            .map(|member| (self.turns.get(&member.id).copied().unwrap_or(0) + i64::from(member.weight), member.id))
            .collect();
        if turn {
            self.turns.extend(order.iter().map(|(ahead, id)| (*id, *ahead)));
        }
        // Stable: equals stay in the order of the configuration.
        order.sort_by_key(|(ahead, _)| -ahead);
        if let (true, Some((ahead, first))) = (turn, order.first()) {
            self.turns.insert(*first, ahead - total);
        }
        order.into_iter().map(|(_, id)| id).collect()
    }
}

/// By weight: with numbers of chance a shuffle in which each comes first as often as its weight says, with numbers that belong to
/// a stream the rendezvous, in which a change of the list moves no more streams than it must.
fn drawn<'a>(class: &[&'a Member], mut draw: impl FnMut(&Member) -> f64) -> Vec<&'a Member> {
    let late = |member: &Member, draw: f64| -(draw.clamp(f64::MIN_POSITIVE, 1.0)).ln() / f64::from(member.weight);
    let mut order: Vec<(f64, &Member)> = class.iter().map(|member| (late(member, draw(member)), *member)).collect();
    order.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    order.into_iter().map(|(_, member)| member).collect()
}

/// Those that have more than their share, with one session more, go behind the others.
fn bounded<'a>(class: Vec<&'a Member>, factor: f64, load: &dyn Fn(TargetId) -> u32) -> Vec<&'a Member> {
    let weights: f64 = class.iter().map(|member| f64::from(member.weight)).sum();
    let sessions = class.iter().map(|member| f64::from(load(member.id))).sum::<f64>() + 1.0;
    let has_room = |member: &&Member| {
        let share = (factor * sessions * f64::from(member.weight) / weights).ceil();
        f64::from(load(member.id)) + 1.0 <= share
    };
    let (mut order, full): (Vec<_>, Vec<_>) = class.into_iter().partition(has_room);
    order.extend(full);
    order
}

fn ids(members: Vec<&Member>) -> Vec<TargetId> {
    members.into_iter().map(|member| member.id).collect()
}

#[cfg(test)]
#[path = "select_tests.rs"]
mod tests;
