//! What did the operator choose?
mod address;
mod file;
mod scalar;
mod schema;
mod secret;
mod settings;

pub use address::{AddressError, ListenAddr};
pub use schema::{Key, keys, schema};
pub use settings::*;
