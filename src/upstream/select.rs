//! Pure: in which order are the targets tried?

use super::target::TargetId;

/// Smooth weighted round robin: over a round each target comes first as often as its weight says, evenly spread.
#[derive(Debug, Clone)]
pub struct Rotation {
    entries: Vec<Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    id: TargetId,
    weight: i64,
    current: i64,
}

impl Rotation {
    /// Targets with their weights. One of weight 0 is tried only after all others.
    pub fn new(targets: impl IntoIterator<Item = (TargetId, u32)>) -> Self {
        let entry = |(id, weight)| Entry { id, weight: i64::from(weight), current: 0 };
        Self { entries: targets.into_iter().map(entry).collect() }
    }

    /// The same for other targets or weights: whoever stays keeps its turn.
    #[must_use]
    pub fn changed(&self, targets: impl IntoIterator<Item = (TargetId, u32)>) -> Self {
        let mut new = Self::new(targets);
        for entry in &mut new.entries {
            entry.current = self.entries.iter().find(|old| old.id == entry.id).map_or(0, |old| old.current);
        }
        new
    }

    /// The candidates for the next session, best first; every target once.
    pub fn candidates(&mut self) -> Vec<TargetId> {
        let total: i64 = self.entries.iter().map(|entry| entry.weight).sum();
        for entry in &mut self.entries {
            entry.current += entry.weight;
        }
        let mut order: Vec<usize> = (0..self.entries.len()).collect();
        // Stable: equals stay in the order of the configuration.
        order.sort_by_key(|&at| {
            let entry = &self.entries[at];
            (entry.weight == 0, -entry.current)
        });
        if let Some(&first) = order.first() {
            self.entries[first].current -= total;
        }
        order.into_iter().map(|at| self.entries[at].id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn firsts(weights: &[u32], rounds: usize) -> Vec<u32> {
        let mut rotation = Rotation::new(weights.iter().enumerate().map(|(at, &weight)| (TargetId(at as u32), weight)));
        (0..rounds)
            .map(|_| {
                let order = rotation.candidates();
                let mut all = order.clone();
                all.sort();
                assert_eq!(all, (0..weights.len() as u32).map(TargetId).collect::<Vec<_>>(), "every target once");
                order[0].0
            })
            .collect()
    }

    #[test]
    fn one_target_is_the_only_candidate() {
        assert_eq!(firsts(&[1], 3), [0, 0, 0]);
        assert!(Rotation::new([]).candidates().is_empty());
    }

    #[test]
    fn weights_are_kept_and_spread() {
        assert_eq!(firsts(&[5, 1, 1], 7), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(firsts(&[1, 1], 4), [0, 1, 0, 1]);
    }

    #[test]
    fn a_change_keeps_the_turns_of_those_that_stay() {
        let targets = [(TargetId(0), 1), (TargetId(1), 1)];
        let mut rotation = Rotation::new(targets);
        assert_eq!(rotation.candidates()[0], TargetId(0));
        let mut rotation = rotation.changed(targets);
        assert_eq!(rotation.candidates()[0], TargetId(1), "as if nothing had happened");
        let mut rotation = rotation.changed([(TargetId(1), 1), (TargetId(2), 1)]);
        assert_eq!([rotation.candidates()[0], rotation.candidates()[0]].map(|id| id.0), [1, 2]);
    }

    #[test]
    fn weight_nought_comes_last() {
        assert_eq!(firsts(&[0, 1], 3), [1, 1, 1]);
        assert_eq!(firsts(&[0, 0], 2), [0, 0]);
    }
}
