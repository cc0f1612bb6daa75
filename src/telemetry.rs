//! What happened, how often?

mod cell;

pub use cell::{Count, Facts, SessionCell, SessionId, State, Traffic};
