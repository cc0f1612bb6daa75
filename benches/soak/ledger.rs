//! What was sent, what was received, and what stands between the two.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use super::media;

/// How a sender's end came about, as it meant it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// It said that its stream is over, closed its half of the connection, and waited for the relay's.
    InOrder,
    /// The receiver went away, or the sender went with a reset: what is on its way is lost.
    Abrupt,
    /// The relay or the origin ended it.
    Ended,
}

/// One leg on which messages arrived, in order.
#[derive(Debug, Clone, Default)]
pub struct Received {
    first: Option<u32>,
    last: u32,
    bytes: u64,
    /// The origin died under it.
    pub died: bool,
}

/// One stream, from one sender to whoever received it.
#[derive(Debug, Default)]
struct Account {
    /// Messages 1 to this one were begun.
    begun: u32,
    left: Option<Leave>,
    legs: Vec<Received>,
    /// Bytes that came where none of them should.
    spoiled: u64,
}

/// Everybody's.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<HashMap<String, Account>>);

/// What it comes to.
#[derive(Debug, Clone, Default)]
pub struct Sum {
    pub streams: u64,
    pub messages: u64,
    pub sent: u64,
    pub received: u64,
    /// Received by a second origin once more, behind the death of the first.
    pub repeated: u64,
    /// Lost, by the name of the end that lost it.
    pub named: BTreeMap<String, u64>,
    pub unaccounted: u64,
    pub spoiled: u64,
    /// The first few streams with such.
    pub examples: Vec<String>,
}

fn bytes(from: u32, to: u32) -> u64 {
    (from..=to).map(|number| media::size(number) as u64).sum()
}

impl Ledger {
    fn with<T>(&self, stream: &str, then: impl FnOnce(&mut Account) -> T) -> T {
        then(self.0.lock().expect("nobody panics with it").entry(stream.to_owned()).or_default())
    }

    /// The sender of `stream` is about to write message `number`.
    pub fn send(&self, stream: &str, number: u32) {
        self.with(stream, |account| account.begun = number);
    }

    /// The sender, or for a player the receiver, has left.
    pub fn leave(&self, stream: &str, leave: Leave) {
        self.with(stream, |account| account.left = Some(leave));
    }

    /// A receiver begins to hear `stream`; the number of its leg.
    pub fn open(&self, stream: &str) -> usize {
        self.with(stream, |account| {
            account.legs.push(Received::default());
            account.legs.len() - 1
        })
    }

    /// It has received message `number`.
    pub fn receive(&self, stream: &str, leg: usize, number: u32) {
        self.with(stream, |account| {
            let leg = &mut account.legs[leg];
            let size = media::size(number) as u64;
            if leg.first.is_some() && number != leg.last + 1 {
                account.spoiled += size;
                return;
            }
            leg.first.get_or_insert(number);
            (leg.last, leg.bytes) = (number, leg.bytes + size);
        });
    }

    /// It has received what nobody sent.
    pub fn spoil(&self, stream: &str, size: usize) {
        self.with(stream, |account| account.spoiled += size as u64);
    }

    /// The origin died under it.
    pub fn die(&self, stream: &str, leg: usize) {
        self.with(stream, |account| account.legs[leg].died = true);
    }

    /// Settles all accounts; `reason` is the word by which the relay says that the session of a stream ended.
    pub fn settle(&self, reason: impl Fn(&str) -> Option<String>) -> Sum {
        let mut sum = Sum::default();
        for (stream, account) in self.0.lock().expect("nobody panics with it").iter() {
            account.settle(stream, &reason, &mut sum);
        }
        sum
    }
}

impl Account {
    fn settle(&self, stream: &str, reason: &impl Fn(&str) -> Option<String>, sum: &mut Sum) {
        sum.streams += 1;
        sum.messages += u64::from(self.begun);
        sum.sent += bytes(1, self.begun);
        sum.spoiled += self.spoiled;
        let before = sum.unaccounted;
        // Up to where everything has been received or named; and whether an origin died there.
        let (mut at, mut died) = (0, false);
        for leg in &self.legs {
            let Some(first) = leg.first else {
                died |= leg.died;
                continue;
            };
            if first > at + 1 {
                let lost = bytes(at + 1, first - 1);
                if died { *sum.named.entry("origin died".to_owned()).or_default() += lost } else { sum.unaccounted += lost }
            }
            let again = if first <= at { bytes(first, at.min(leg.last)) } else { 0 };
            sum.repeated += again;
            sum.received += leg.bytes - again;
            at = at.max(leg.last);
            died = leg.died;
        }
        if self.begun > at {
            let lost = bytes(at + 1, self.begun);
            let said = self.left.and_then(|_| reason(stream));
            let in_order = self.left == Some(Leave::InOrder) && !died;
            match said {
                Some(said) if !in_order => *sum.named.entry(said).or_default() += lost,
                _ => sum.unaccounted += lost,
            }
        }
        if (sum.unaccounted > before || self.spoiled > 0) && sum.examples.len() < 5 {
            sum.examples.push(format!("{stream}: {self:?}"));
        }
    }
}
