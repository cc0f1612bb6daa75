//! A relay with an honest publisher on it, who must not lose a frame whatever others do meanwhile.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::Client;
use crate::origin::Origin;
use crate::parser::{Message, kind};
use crate::relay::{Face, Process};
use crate::speech::body;
use crate::wait::pace;

/// Publishes small frames until it is told to stop.
pub(crate) struct Honest {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Message>>,
}

impl Honest {
    /// Publishes `stream`, which the origin must hear of as `honest`, or under the name that is asked for at the end.
    pub(crate) fn begin(relay: &Face, stream: &str) -> Self {
        let mut client = Client::publishing(relay, "live", stream);
        let stop = Arc::<AtomicBool>::default();
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut said, mut next) = (Vec::new(), Instant::now());
            while !told.load(SeqCst) {
                let number = said.len() as u32;
                said.push(client.say(6, number * 2, kind::VIDEO, 1, &body(number, 700)));
                next += Duration::from_millis(2);
                pace(next);
            }
            client.leave();
            said
        });
        Self { stop, thread }
    }

    /// Stops, and looks whether everything has arrived at `origin`.
    pub(crate) fn lost_nothing(self, origin: &Origin) {
        self.lost_nothing_as("honest", origin);
    }

    /// The same where the origin has heard of it as `name`.
    pub(crate) fn lost_nothing_as(self, name: &str, origin: &Origin) {
        self.stop.store(true, SeqCst);
        let said = self.thread.join().expect("the honest publisher goes on");
        let line = origin.line_of(name);
        let heard = line.ear.wait_count(&[kind::VIDEO], said.len());
        assert!(heard == said, "the honest publisher said {} frames, and others were heard", said.len());
        assert_eq!(line.ear.record().wrong, None);
        line.finish();
    }
}

/// See the module.
pub(crate) struct Siege {
    relay: Process,
    pub(crate) origin: Origin,
    honest: Honest,
}

impl Deref for Siege {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.relay
    }
}

impl Siege {
    /// Begins one in front of a willing origin.
    pub(crate) fn begin(more: Value) -> Self {
        Self::open(more, "honest")
    }

    /// The same, with the honest publisher's stream as it says it.
    pub(crate) fn open(more: Value, stream: &str) -> Self {
        let origin = Origin::willing();
        let relay = Process::with(&origin.url(""), more);
        let honest = Honest::begin(&relay, stream);
        Self { relay, origin, honest }
    }

    /// The session of `client` has ended so: side, reason and status.
    pub(crate) fn ends(&self, client: &mut Client, want: &str) {
        client.leave();
        assert_eq!(self.relay.outcome(client.address()), want);
        let word = want.split(' ').nth(1).unwrap_or_default();
        let side = want.split(' ').next().unwrap_or_default();
        assert!(self.relay.ended(side, word) > 0, "{want} is counted");
    }

    /// Its end: nobody else was touched.
    pub(crate) fn lifted(self) {
        self.honest.lost_nothing(&self.origin);
    }
}
