//! Should a load balancer send clients here?

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::upstream::{Reachability, Verdict};

/// Asks whether an upstream can be reached; the error is a sentence. Must answer within a second or so.
pub type Reachable = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync>;

/// Why no clients should come.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// The relay is ending.
    #[error("the relay is shutting down")]
    Draining,
    /// The listener does not accept (not yet, or it is paused).
    #[error("the relay does not accept connections")]
    NotAccepting,
    /// There is nowhere to send a stream.
    #[error("{0}")]
    NoUpstream(String),
}

impl NotReady {
    /// One word for machines.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::NotAccepting => "not_accepting",
            Self::NoUpstream(_) => "no_upstream",
        }
    }
}

/// The shared answer, set by whoever opens and closes the doors. Cheap to clone.
#[derive(Clone)]
pub struct Readiness {
    doors: Arc<Doors>,
    reachable: Reachable,
}

#[derive(Debug, Default)]
struct Doors {
    accepting: AtomicBool,
    draining: AtomicBool,
}

impl Readiness {
    /// Not accepting yet.
    pub fn new(reachable: Reachable) -> Self {
        Self { doors: Arc::default(), reachable }
    }

    /// The same, asking what dials and probes have found; a reload changes whom to ask.
    pub fn of(reachability: impl Fn() -> Reachability + Send + Sync + 'static) -> Self {
        Self::new(Arc::new(move || {
            let reachability = reachability();
            Box::pin(async move { sentence(&reachability.check().await) })
        }))
    }

    /// The listener accepts, or pauses.
    pub fn set_accepting(&self, accepting: bool) {
        self.doors.accepting.store(accepting, Relaxed);
    }

    /// The relay is ending; there is no way back.
    pub fn drain(&self) {
        self.doors.draining.store(true, Relaxed);
    }

    /// Whether the relay is ending.
    pub fn is_draining(&self) -> bool {
        self.doors.draining.load(Relaxed)
    }

    /// Whether clients may come.
    ///
    /// # Errors
    /// Why not.
    pub async fn check(&self) -> Result<(), NotReady> {
        if self.is_draining() {
            return Err(NotReady::Draining);
        }
        if !self.doors.accepting.load(Relaxed) {
            return Err(NotReady::NotAccepting);
        }
        (self.reachable)().await.map_err(NotReady::NoUpstream)
    }
}

fn sentence(verdict: &Verdict) -> Result<(), String> {
    match verdict {
        Verdict::Reachable => Ok(()),
        Verdict::Unknown => Err("no upstream has been reached yet".to_owned()),
        Verdict::Unreachable { since, kind } => {
            Err(format!("no upstream has been reachable for {} s (last failure: {kind})", since.as_secs()))
        }
    }
}
