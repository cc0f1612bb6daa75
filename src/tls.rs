//! Who is there, in private? A TCP connection with TLS or without, behind one face.

mod record;
mod stream;

pub use stream::{Stream, Wire};
