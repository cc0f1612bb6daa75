//! What a plan is: who does what wrong, where. All of it follows from the seed.

use super::chance::Chance;
use super::mouth::{Cut, Fault, Phase};

/// Upstreams of each family that a plan's acts may spoil.
pub(super) const SLOTS: usize = 12;

/// How a client comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Plain,
    Private,
    /// From behind a load balancer that says so.
    Proxied,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Publish,
    Play,
}

/// One client and its origin, of which one or both do something wrong.
#[derive(Debug, Clone)]
pub(super) struct Act {
    pub(super) slot: usize,
    pub(super) rtsp: bool,
    pub(super) way: Way,
    pub(super) role: Role,
    pub(super) client: Option<Cut>,
    pub(super) origin: Option<Cut>,
    /// The origin does it but once.
    pub(super) once: bool,
    pub(super) chance: Chance,
}

impl Act {
    fn drawn(slot: usize, chance: &mut Chance) -> Self {
        let rtsp = chance.percent(40);
        let way = chance.one(&[Way::Plain, Way::Plain, Way::Private, Way::Proxied]);
        let role = chance.one(&[Role::Publish, Role::Play]);
        let who = chance.below(10);
        let client = (who < 7).then(|| cut(chance, &client_phases(rtsp, way)));
        let origin = (who >= 5).then(|| cut(chance, &origin_phases(rtsp)));
        Self { slot, rtsp, way, role, client, origin, once: chance.percent(50), chance: chance.child() }
    }

    /// The app by which the relay's routes lead to its origin.
    pub(super) fn app(&self) -> String {
        format!("slot{}", self.slot)
    }
}

fn client_phases(rtsp: bool, way: Way) -> Vec<Phase> {
    let mut phases = match way {
        Way::Plain => Vec::new(),
        Way::Private => vec![Phase::Tls],
        Way::Proxied => vec![Phase::Preface],
    };
    phases.extend([Phase::Hello, Phase::Request, Phase::Create, Phase::Media, Phase::Media, Phase::Ending]);
    phases.extend(if rtsp { &[Phase::Begin, Phase::Request][..] } else { &[Phase::Echo, Phase::Connect] });
    phases
}

fn origin_phases(rtsp: bool) -> Vec<Phase> {
    let mut phases = vec![Phase::Connected, Phase::Request, Phase::Create, Phase::Media, Phase::Media, Phase::Ending];
    phases.extend(if rtsp { &[Phase::Begin][..] } else { &[Phase::Hello, Phase::Connect] });
    phases
}

fn cut(chance: &mut Chance, phases: &[Phase]) -> Cut {
    let phase = chance.one(phases);
    let nth = if phase == Phase::Media { chance.below(100) } else { 0 };
    // At the border of two sayings, or anywhere within one.
    let permille = if chance.percent(25) { 0 } else { 1 + chance.below(999) };
    Cut { phase, nth, permille, fault: chance.one(&Fault::ALL) }
}

/// The acts of the plan that `seed` gives.
pub(super) fn drawn(seed: u64) -> Vec<Act> {
    let mut chance = Chance::of(seed);
    (0..SLOTS).map(|slot| Act::drawn(slot, &mut chance)).collect()
}
