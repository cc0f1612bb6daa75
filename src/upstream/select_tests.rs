//! Tests of choosing, by hand and by chance.

use std::cell::RefCell;
use std::collections::BTreeMap;

use proptest::prelude::{Just, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::strategy::Strategy as Generator;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

fn member(id: u32, weight: u32) -> Member {
    Member { id: TargetId(id), weight, backup: false, seed: Seed::of(&format!("origin-{id}")) }
}

fn members(weights: &[u32]) -> Vec<Member> {
    (0..).zip(weights).map(|(id, &weight)| member(id, weight)).collect()
}

/// A group, and what is true around it.
struct World {
    group: Group,
    load: BTreeMap<u32, u32>,
    fitness: BTreeMap<u32, Fitness>,
    chance: RefCell<StdRng>,
}

/// One client.
#[derive(Clone, Copy, Default)]
struct Client<'a> {
    stream: &'a str,
    plays: bool,
    first: Option<u32>,
    last: Option<u32>,
}

impl World {
    fn new(strategy: Strategy, members: Vec<Member>) -> Self {
        Self::with(Group::new(strategy, None, members))
    }

    fn with(group: Group) -> Self {
        Self { group, load: BTreeMap::new(), fitness: BTreeMap::new(), chance: RefCell::new(StdRng::seed_from_u64(7)) }
    }

    fn order(&mut self, client: Client<'_>) -> Vec<u32> {
        let Self { group, load, fitness, chance } = self;
        let order = group.candidates(&mut Moment {
            key: client.stream.as_bytes(),
            publishes: !client.plays,
            first: client.first.map(TargetId),
            last: client.last.map(TargetId),
            fitness: &|id| fitness.get(&id.0).copied().unwrap_or(Fitness::Healthy),
            load: &|id| load.get(&id.0).copied().unwrap_or(0),
            chance: &mut || chance.borrow_mut().random(),
        });
        order.into_iter().map(|id| id.0).collect()
    }

    fn next(&mut self) -> u32 {
        self.order(Client { stream: "live/cam", ..Client::default() })[0]
    }

    /// How often each comes first, of `rounds`, each on a stream of its own.
    fn firsts(&mut self, rounds: usize) -> BTreeMap<u32, usize> {
        let mut firsts = BTreeMap::new();
        for round in 0..rounds {
            let first = self.order(Client { stream: &format!("live/{round}"), ..Client::default() })[0];
            *firsts.entry(first).or_default() += 1;
        }
        firsts
    }
}

const ALL: [Strategy; 5] =
    [Strategy::RoundRobin, Strategy::Random, Strategy::LeastConnections, Strategy::ConsistentHash, Strategy::Failover];

#[test]
fn round_robin_keeps_weights_and_spreads_them() {
    let firsts = |weights: &[u32], rounds: usize| {
        let mut world = World::new(Strategy::RoundRobin, members(weights));
        (0..rounds).map(|_| world.next()).collect::<Vec<_>>()
    };
    assert_eq!(firsts(&[5, 1, 1], 7), [0, 0, 1, 0, 2, 0, 0]);
    assert_eq!(firsts(&[1, 1], 4), [0, 1, 0, 1]);
    assert_eq!(firsts(&[1], 2), [0, 0]);
}

#[test]
fn while_one_is_down_the_others_share_its_turns_evenly() {
    let mut world = World::new(Strategy::RoundRobin, members(&[1, 1, 1]));
    world.fitness.insert(0, Fitness::Unhealthy);
    assert_eq!(world.firsts(8), [(1, 4), (2, 4)].into());
    world.fitness.clear();
    assert_eq!(world.firsts(9), [(0, 3), (1, 3), (2, 3)].into(), "and when it is back it gets its share, not all it missed");
}

#[test]
fn chance_keeps_weights() {
    let mut world = World::new(Strategy::Random, members(&[3, 1]));
    let firsts = world.firsts(4000);
    assert!((2850..3150).contains(&firsts[&0]), "{firsts:?}");
}

#[test]
fn the_fewest_connections_win_by_weight_and_equals_by_chance() {
    let mut world = World::new(Strategy::LeastConnections, members(&[1, 2, 1]));
    world.load = [(0, 2), (1, 3), (2, 1)].into();
    // (2+1)/1 = 3, (3+1)/2 = 2, (1+1)/1 = 2.
    let first = world.next();
    assert_ne!(first, 0);
    world.load = [(0, 0), (1, 9), (2, 9)].into();
    assert_eq!(world.next(), 0);
    world.load = [(0, 5), (1, 11), (2, 5)].into();
    let firsts = world.firsts(300);
    assert!(firsts.len() == 3 && firsts.values().all(|&times| times > 50), "{firsts:?}");
}

#[test]
fn a_stream_keeps_its_target_and_weights_are_kept() {
    let mut world = World::new(Strategy::ConsistentHash, members(&[1, 1, 2]));
    for stream in ["live/a", "live/b", "x"] {
        let client = Client { stream, ..Client::default() };
        let order = world.order(client);
        assert_eq!(world.order(Client { plays: true, ..client }), order, "players find it");
        assert_eq!(World::new(Strategy::ConsistentHash, members(&[1, 1, 2])).order(client), order, "on every relay");
        let mut reversed = members(&[1, 1, 2]);
        reversed.reverse();
        assert_eq!(World::new(Strategy::ConsistentHash, reversed).order(client), order, "in whatever order they are listed");
    }
    let firsts = world.firsts(4000);
    assert!((1850..2150).contains(&firsts[&2]) && (900..1100).contains(&firsts[&0]), "{firsts:?}");
}

#[test]
fn the_hash_of_a_stream_is_the_same_in_every_version() {
    // SHA-256 of the name's SHA-256 and the stream, worked out by another program: relays of two versions must agree.
    let mut world = World::new(Strategy::ConsistentHash, members(&[1, 1, 1, 1]));
    assert_eq!(world.order(Client { stream: "live/studio", ..Client::default() }), [2, 3, 1, 0]);
    assert!((Seed::of("origin-0").draw(b"live/studio") - 0.294_468_369_854_247_8).abs() < 1e-12);
}

#[test]
fn a_target_that_goes_takes_only_its_own_streams_with_it_and_one_that_comes_takes_only_its_share() {
    let four = members(&[1, 1, 1, 1]);
    let mut before = World::new(Strategy::ConsistentHash, four.clone());
    let mut without = World::new(Strategy::ConsistentHash, four[..3].to_vec());
    let mut moved = 0;
    for number in 0..2000 {
        let stream = format!("live/{number}");
        let client = Client { stream: &stream, ..Client::default() };
        let (old, new) = (before.order(client)[0], without.order(client)[0]);
        moved += usize::from(old != new);
        assert!(old == new || old == 3, "{stream} moved from {old}, which is still there");
    }
    assert!((400..600).contains(&moved), "{moved} of 2000");
}

#[test]
fn bounded_load_sends_publishers_on_and_players_never() {
    let mut world = World::with(Group::new(Strategy::ConsistentHash, Some(1.25), members(&[1, 1])));
    let client = Client { stream: "live/cam", ..Client::default() };
    let home = world.order(client)[0];
    let other = 1 - home;
    // A share of 11 sessions is 5.5, and 1.25 times that 7, rounded up.
    world.load = [(home, 6), (other, 4)].into();
    assert_eq!(world.order(client), [home, other]);
    world.load = [(home, 7), (other, 3)].into();
    assert_eq!(world.order(client), [other, home]);
    assert_eq!(world.order(Client { plays: true, ..client }), [home, other]);
    let mut unbounded = World::new(Strategy::ConsistentHash, members(&[1, 1]));
    unbounded.load = [(home, 900), (other, 0)].into();
    assert_eq!(unbounded.order(client), [home, other]);
}

#[test]
fn failover_keeps_the_order_of_the_list() {
    let mut world = World::new(Strategy::Failover, members(&[1, 9, 1]));
    assert_eq!(world.order(Client::default()), [0, 1, 2]);
    world.fitness.insert(0, Fitness::Unhealthy);
    assert_eq!(world.order(Client::default()), [1, 2, 0]);
}

#[test]
fn healthy_come_before_backups_and_backups_before_the_unhealthy() {
    for strategy in ALL {
        let backup = |id| Member { backup: true, ..member(id, 1) };
        let mut world = World::new(strategy, vec![backup(0), member(1, 1), member(2, 1), backup(3), member(4, 1)]);
        world.fitness = [(1, Fitness::Unhealthy), (3, Fitness::Unhealthy), (4, Fitness::Out)].into();
        assert_eq!(world.order(Client::default()), [2, 0, 1, 3], "{strategy:?}");
    }
}

#[test]
fn a_player_goes_first_where_its_stream_is_live_whatever_the_strategy_says() {
    for strategy in ALL {
        let mut world = World::new(strategy, members(&[1, 1, 0]));
        for first in [2, 1, 0] {
            let client = Client { plays: true, first: Some(first), ..Client::default() };
            let order = world.order(client);
            assert_eq!(order[0], first, "{strategy:?}");
            assert!(order.iter().filter(|id| **id == first).count() == 1, "{order:?}");
        }
        world.fitness.insert(1, Fitness::Unhealthy);
        assert_eq!(world.order(Client { plays: true, first: Some(1), ..Client::default() })[0], 1, "there it is live");
        world.fitness.insert(1, Fitness::Out);
        assert_eq!(world.order(Client { plays: true, first: Some(1), ..Client::default() }), [0], "but it is full");
        assert_eq!(world.order(Client { plays: true, first: Some(9), ..Client::default() }), [0], "of another group");
    }
}

#[test]
fn players_that_follow_their_stream_take_no_turn() {
    let mut world = World::new(Strategy::RoundRobin, members(&[1, 1]));
    assert_eq!(world.next(), 0);
    for _ in 0..3 {
        assert_eq!(world.order(Client { plays: true, first: Some(0), ..Client::default() }), [0, 1]);
    }
    assert_eq!(world.next(), 1);
}

#[test]
fn weight_nought_gets_nothing_new_and_what_was_lost_comes_last() {
    for strategy in ALL {
        let mut world = World::new(strategy, members(&[1, 0, 1]));
        let order = world.order(Client { last: Some(0), ..Client::default() });
        assert_eq!(order, [2, 0], "{strategy:?}");
        world.fitness.insert(2, Fitness::Unhealthy);
        assert_eq!(world.order(Client { last: Some(0), ..Client::default() }), [2, 0], "behind the unhealthy too");
        world.fitness.insert(2, Fitness::Out);
        assert_eq!(world.order(Client { last: Some(0), ..Client::default() }), [0], "but better than none");
    }
}

/// Weight, backup, fitness and load.
fn any_member() -> impl Generator<Value = (u32, bool, Fitness, u32)> {
    let fitness = prop_oneof![Just(Fitness::Healthy), Just(Fitness::Unhealthy), Just(Fitness::Out)];
    (0..4_u32, any::<bool>(), fitness, 0..50_u32)
}

proptest! {
    /// Whatever is true: nobody twice, nobody who is out, and class after class.
    #[test]
    fn orders_are_sound(
        list in prop::collection::vec(any_member(), 0..8),
        strategy in prop::sample::select(&ALL[..]),
        factor in prop::option::of(1.0..3.0_f64),
        first in prop::option::of(0..9_u32),
        last in prop::option::of(0..9_u32),
        plays in any::<bool>(),
        rounds in 1..5,
    ) {
        let of = |(id, &(weight, backup, ..)): (u32, &(u32, bool, Fitness, u32))| Member { backup, ..member(id, weight) };
        let mut world = World::with(Group::new(strategy, factor, (0..).zip(&list).map(of).collect()));
        world.fitness = (0..).zip(&list).map(|(id, (_, _, fitness, _))| (id, *fitness)).collect();
        world.load = (0..).zip(&list).map(|(id, (.., load))| (id, *load)).collect();
        for _ in 0..rounds {
            let order = world.order(Client { stream: "live/cam", plays, first, last });
            let mut once = order.clone();
            once.sort_unstable();
            once.dedup();
            prop_assert_eq!(once.len(), order.len());
            let entry = |id: &u32| list[*id as usize];
            prop_assert!(order.iter().all(|id| entry(id).2 != Fitness::Out));
            prop_assert!(order.iter().all(|id| entry(id).0 > 0 || Some(*id) == first));
            for (id, (weight, _, fitness, _)) in (0..).zip(&list) {
                prop_assert!(order.contains(&id) || *weight == 0 || *fitness == Fitness::Out, "{} is left out", id);
            }
            let class = |id: &u32| (entry(id).2, entry(id).1);
            let plain: Vec<_> = order.iter().filter(|id| Some(**id) != first && Some(**id) != last).map(class).collect();
            prop_assert!(plain.is_sorted(), "{:?}", plain);
        }
    }
}
