//! Where does this stream go?

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::live::{Live, Publication};
use super::load::Loads;
use super::route::Pattern;
use super::seek::{Means, Seek};
use super::select::{Fitness, Group, Member, Moment, Seed};
use super::target::{Family, Target, TargetId};
use super::{Ask, BadPattern};
use crate::config::{Config, Upstream};
use crate::protocol::name::{Action, Identity};

/// Why a stream goes nowhere: a refusal, which trying again does not change but for [`NoRoute::Full`]. The text is for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoRoute {
    /// No route matches.
    #[error("no route of the relay leads this stream anywhere")]
    NoMatch,
    /// The route has no upstream that speaks what the client speaks.
    #[error("no upstream for this stream speaks {}", .0.name())]
    Family(Family),
    /// All have as many sessions as they may have, or take no new streams.
    #[error("every upstream for this stream has as many connections as it may have, try again later")]
    Full,
}

impl NoRoute {
    /// Every reason, for labels.
    pub const REASONS: [&'static str; 3] = ["no_route", "no_upstream_of_family", "upstream_full"];

    /// The label for logs and metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NoMatch => Self::REASONS[0],
            Self::Family(_) => Self::REASONS[1],
            Self::Full => Self::REASONS[2],
        }
    }
}

/// Sends every stream its way. Cheap to clone; one for all workers.
#[derive(Clone)]
pub struct Router {
    shared: Arc<Shared>,
}

struct Shared {
    means: Means,
    targets: Vec<Arc<Target>>,
    live: Live,
    loads: Loads,
    routes: Vec<Route>,
}

struct Route {
    pattern: Option<Pattern>,
    group: Mutex<Group>,
}

impl Router {
    /// For the targets of `config`, in its order. What `before` knows of live streams and turns goes on.
    ///
    /// # Errors
    /// [`BadPattern`], which a checked configuration does not have.
    pub fn new(config: &Config, targets: Vec<Arc<Target>>, means: Means, before: Option<&Self>) -> Result<Self, BadPattern> {
        let mut old = before.into_iter().flat_map(|before| &before.shared.routes);
        let mut group = |strategy, indices: &mut dyn Iterator<Item = usize>| {
            let member = |index: usize| Some(member(targets.get(index)?, config.upstreams.get(index)?));
            let group = Group::new(strategy, config.hash_load_factor, indices.filter_map(member).collect());
            Mutex::new(match old.next() {
                Some(old) => group.after(&old.group.lock().unwrap_or_else(PoisonError::into_inner)),
                None => group,
            })
        };
        let mut routes = Vec::new();
        for route in &config.routes {
            let pattern = Some(Pattern::new(&route.matching)?);
            routes.push(Route { pattern, group: group(route.strategy, &mut route.upstreams.iter().copied()) });
        }
        if config.routes.is_empty() {
            routes.push(Route { pattern: None, group: group(config.strategy, &mut (0..targets.len())) });
        }
        let loads = means.loads.clone();
        let live = before.map_or_else(Live::default, |before| before.shared.live.clone());
        Ok(Self { shared: Arc::new(Shared { means, targets, live, loads, routes }) })
    }

    /// Begins the search for an upstream that takes what is asked.
    ///
    /// # Errors
    /// [`NoRoute`].
    pub fn seek(&self, ask: &Ask<'_>) -> Result<Seek, NoRoute> {
        let Shared { means, targets, routes, .. } = &*self.shared;
        let takes = |route: &&Route| route.pattern.as_ref().is_none_or(|pattern| pattern.takes(ask));
        let route = routes.iter().find(takes).ok_or(NoRoute::NoMatch)?;
        let order = self.order(ask, &mut route.group.lock().unwrap_or_else(PoisonError::into_inner))?;
        let target = |id: &TargetId| targets.iter().find(|target| target.id == *id).cloned();
        Ok(Seek::new(means.clone(), order.iter().filter_map(target).collect()))
    }

    fn order(&self, ask: &Ask<'_>, group: &mut Group) -> Result<Vec<TargetId>, NoRoute> {
        let Shared { targets, live, loads, means, .. } = &*self.shared;
        let (health, now) = (&means.health, Instant::now());
        let speaks = |id: TargetId| targets.iter().any(|target| target.id == id && target.family() == ask.family);
        if !group.members().iter().any(|member| speaks(member.id)) {
            return Err(NoRoute::Family(ask.family));
        }
        let plays = ask.action == Action::Play;
        let fitness = |id: TargetId| if speaks(id) && !loads.is_full(id) { health.fitness(id, now) } else { Fitness::Out };
        let order = group.candidates(&mut Moment {
            key: &ask.name.joined(),
            publishes: !plays,
            first: live.target_of(ask.name).filter(|_| plays),
            last: ask.lost,
            fitness: &fitness,
            load: &|id| loads.of(id),
            chance: &mut rand::random,
        });
        health.on_trial(*order.first().ok_or(NoRoute::Full)?, now);
        Ok(order)
    }

    /// `name` is live at `target` until the answer is dropped: players of it go there first.
    pub fn publish(&self, name: &Identity, target: TargetId) -> Publication {
        self.shared.live.publish(name, target)
    }

    /// Which streams are live.
    pub fn live(&self) -> &Live {
        &self.shared.live
    }

    /// The targets, in the order of the configuration.
    pub fn targets(&self) -> &[Arc<Target>] {
        &self.shared.targets
    }

    /// What every search needs.
    pub fn means(&self) -> &Means {
        &self.shared.means
    }
}

fn member(target: &Target, upstream: &Upstream) -> Member {
    let Upstream { url, name, weight, backup, .. } = upstream;
    Member { id: target.id, weight: *weight, backup: *backup, seed: Seed::of(name.as_deref().unwrap_or(url)) }
}

#[cfg(test)]
#[path = "router_tests.rs"]
mod tests;
