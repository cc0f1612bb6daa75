//! Did a socket arrive?
//!
//! [`bind`] opens the door before anything else runs; the [`Listener`] actor accepts, keeps the hard cap, and hands each socket to
//! the least loaded worker.

mod actor;
mod bind;
mod workers;

#[doc(hidden)]
pub use actor::Panic;
pub use actor::{Configure, Listener, Pause, Resume, Standing, Stop};
pub use bind::{BindError, bind, shape_clients};
pub use workers::{Slot, Workers};
