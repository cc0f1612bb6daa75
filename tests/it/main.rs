//! Behaviour over sockets: a relay, a scripted origin, and clients that say exactly the bytes a test wants said.
//!
//! Not here: parsing and arithmetic (unit tests, `tests/wire.rs`), real encoders, players and origins (`tests/e2e`).
//!
//! Rules: port 0 always. Wait by deadline loops, never by sleep. A test fails when the behaviour breaks. What the relay passed on
//! is judged by `parser`, which shares no line with the relay's own `protocol`.

mod actors;
mod admin;
mod amf;
mod campaign;
mod client;
mod drain;
mod ear;
mod ends;
mod faults;
mod golden;
mod health;
mod hold;
mod hold_ends;
mod hostile;
mod hostile_streams;
mod locked;
mod logins;
mod metrics;
mod origin;
mod parser;
mod policy;
mod pool;
mod private;
mod proxied;
mod pump;
mod recording;
mod relay;
mod reload;
mod rtsp;
mod rtsp_ends;
mod rtsp_hostile;
mod rtsp_login;
mod rtsp_peer;
mod rtsp_pump;
mod scrape;
mod secrets;
mod shutdown;
mod siege;
mod slow;
mod speech;
mod switch;
mod takeover;
mod threats;
mod tls;
mod trouble;
mod upgrade;
mod upstreams;
mod wait;
