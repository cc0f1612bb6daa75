//! Which of several addresses is reached first? They start one after another, a little apart, and do not wait for each other's end
//! (happy eyeballs, RFC 8305 section 5).

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until, timeout_at};

/// How long an address is alone before the next one starts too.
pub(super) const STAGGER: Duration = Duration::from_millis(250);

/// The addresses with their families taking turns, beginning with the family of the first (RFC 8305 section 4).
pub(super) fn alternated<A: Copy>(addresses: &[A], address: impl Fn(A) -> SocketAddr) -> Vec<A> {
    let is_v4 = |one: &A| address(*one).is_ipv4();
    let first = addresses.first().is_some_and(is_v4);
    let (mut leading, mut other): (Vec<A>, Vec<A>) = addresses.iter().partition(|one| is_v4(one) == first);
    leading.reverse();
    other.reverse();
    let mut order = Vec::with_capacity(addresses.len());
    while let Some(next) = leading.pop() {
        order.push(next);
        order.extend(other.pop());
    }
    other.reverse();
    order.extend(other);
    order
}

/// Runs `connect` on each of `addresses` until one succeeds: the next starts `stagger` after the last did, or at once when one fails.
/// The others are dropped. Each failure is told to `failed`; at `deadline` the first that is still under way is told as late.
pub(super) async fn first<A: Copy, T, E, F: Future<Output = Result<T, E>>>(
    addresses: &[A],
    (stagger, deadline): (Duration, Instant),
    connect: impl Fn(A) -> F,
    mut failed: impl FnMut(A, Option<E>),
) -> Option<(A, T)> {
    let mut waiting = addresses.iter().copied().enumerate();
    let mut running = FuturesUnordered::new();
    let mut under_way: Vec<(usize, A)> = Vec::new();
    let mut next_start = Instant::now();
    loop {
        if (running.is_empty() || next_start <= Instant::now())
            && let Some((at, address)) = waiting.next()
        {
            under_way.push((at, address));
            let connecting = connect(address);
            running.push(async move { (at, connecting.await) });
            next_start = Instant::now() + stagger;
        }
        if running.is_empty() {
            return None;
        }
        let step = async {
            tokio::select! {
                biased;
                Some(ended) = running.next() => Some(ended),
                () = sleep_until(next_start), if waiting.len() > 0 => None,
            }
        };
        match timeout_at(deadline, step).await {
            Err(_) => {
                under_way.first().into_iter().for_each(|(_, late)| failed(*late, None));
                return None;
            }
            Ok(None) => {}
            Ok(Some((at, result))) => {
                let Some(place) = under_way.iter().position(|(its, _)| *its == at) else { continue };
                let (_, address) = under_way.remove(place);
                match result {
                    Ok(reached) => return Some((address, reached)),
                    Err(error) => failed(address, Some(error)),
                }
                next_start = Instant::now();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use proptest::prelude::*;

    use super::*;

    fn addr(text: &str) -> SocketAddr {
        let ip = text.parse().unwrap_or_else(|_| panic!("{text}"));
        SocketAddr::new(ip, 1935)
    }

    #[test]
    fn families_take_turns_beginning_with_that_of_the_first() {
        let order = |list: &[&str]| {
            let list: Vec<_> = list.iter().map(|text| addr(text)).collect();
            alternated(&list, |one| one).iter().map(|one| one.ip().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(order(&["::1", "::2", "::3", "1.1.1.1", "1.1.1.2"]), ["::1", "1.1.1.1", "::2", "1.1.1.2", "::3"]);
        assert_eq!(order(&["1.1.1.1", "::1", "::2", "::3"]), ["1.1.1.1", "::1", "::2", "::3"]);
        assert_eq!(order(&["1.1.1.1", "1.1.1.2"]), ["1.1.1.1", "1.1.1.2"]);
        assert!(order(&[]).is_empty());
    }

    proptest! {
        #[test]
        fn nobody_is_lost_and_families_keep_their_order(fours in prop::collection::vec(any::<bool>(), 0..16)) {
            let list: Vec<(usize, bool)> = fours.into_iter().enumerate().collect();
            let as_address = |(_, four): (usize, bool)| addr(if four { "1.1.1.1" } else { "::1" });
            let order = alternated(&list, as_address);
            let mut sorted = order.clone();
            sorted.sort_unstable();
            prop_assert_eq!(&sorted, &list);
            for four in [true, false] {
                prop_assert!(order.iter().filter(|(_, its)| *its == four).is_sorted());
            }
            prop_assert_eq!(order.first(), list.first());
        }
    }

    const LONG: Duration = Duration::from_secs(60);

    /// What happens to each number: it fails at once, succeeds at once, or hangs.
    async fn fate(number: u8, started: &RefCell<Vec<u8>>) -> Result<u8, u8> {
        started.borrow_mut().push(number);
        match number {
            0..10 => Err(number),
            10..20 => Ok(number),
            _ => std::future::pending().await,
        }
    }

    async fn race(numbers: &[u8], stagger: Duration, patience: Duration) -> (Option<u8>, Vec<u8>, Vec<(u8, bool)>) {
        let (started, mut failures) = (RefCell::default(), Vec::new());
        let times = (stagger, Instant::now() + patience);
        let won = first(numbers, times, |n| fate(n, &started), |n, error| failures.push((n, error.is_none()))).await;
        (won.map(|(n, _)| n), started.into_inner(), failures)
    }

    #[tokio::test]
    async fn a_failure_lets_the_next_start_at_once_and_a_success_ends_it() {
        let (won, started, failures) = race(&[1, 2, 10, 11], LONG, LONG).await;
        assert_eq!((won, started), (Some(10), vec![1, 2, 10]));
        assert_eq!(failures, [(1, false), (2, false)]);
        assert_eq!(race(&[1, 2], LONG, LONG).await.0, None);
        assert_eq!(race(&[], LONG, LONG).await, (None, vec![], vec![]));
    }

    #[tokio::test]
    async fn one_that_hangs_does_not_keep_the_next_from_starting() {
        let (won, started, _) = race(&[20, 21, 10], Duration::from_millis(5), LONG).await;
        assert_eq!((won, started), (Some(10), vec![20, 21, 10]));
    }

    #[tokio::test]
    async fn at_the_deadline_the_first_that_still_hangs_is_the_late_one() {
        let (won, _, failures) = race(&[1, 20, 21], Duration::from_millis(5), Duration::from_millis(40)).await;
        assert_eq!((won, failures), (None, vec![(1, false), (20, true)]));
    }
}
