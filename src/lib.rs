//! `relay`: the front door for live video.
//!
//! One daemon between live RTMP and RTSP clients and their origins. It decides who may come in, finds an upstream that works, and passes
//! the stream on frame by frame. Operators begin with README.md; this page is for who reads the code, and docs/ARCHITECTURE.md
//! goes further.
//!
//! # Rooms
//!
//! Each room answers one question. Its face is `room.rs`, what is inside stays inside.
//!
//! | room | its question |
//! |---|---|
//! | [`app`] | Who knows whom? Wiring, signals, the demonstration. |
//! | [`config`] | What did the operator choose? |
//! | [`protocol`] | What does this byte mean? Pure. |
//! | [`listener`] | Did a socket arrive? |
//! | [`admission`] | May this peer come in now? |
//! | [`session`] | Is there another byte, and where does it go? |
//! | [`upstream`] | Where should a stream go, and may we go there? |
//! | [`tls`] | Who is there, in private? |
//! | [`telemetry`] | What happened, how often? |
//! | [`http`] | How is that said over HTTP? |
//! | [`origin`] | What do the demonstration and the tests publish to? |
//!
//! # Actors
//!
//! They are the control plane. No media byte, and nothing that recurs for every packet, is ever in a mailbox.
//!
//! | actor | is asked | when it fails |
//! |---|---|---|
//! | [`listener::Listener`] | `Pause`, `Resume`, `Configure`, `Stop` | logged; nobody comes in any more |
//! | [`session::ConnectionActor`], one a client | `Kick` | that session ends, and gives its place back |
//! | [`admission::Supervisor`] | `Admit`, `Release`, `Drain`, `KickAll`, `KickSome`, `Configure`, `Snapshot` | the process ends: its ledger is the truth |
//! | [`admission::RateLimiter`] | `Acquire`, `Configure`, `Snapshot` | its core begins anew, with full buckets |
//! | [`upstream::UpstreamBreaker`] | `Permit`, `Reported`, `Reset`, `Configure`, `Snapshot` | its core begins anew, with closed circuits |
//! | [`telemetry::MetricsCollector`] | `Tick`, `Snapshot` | its core begins anew; totals live elsewhere |
//!
//! # Import law
//!
//! `tests/architecture` reads it from the sources.
//!
//! - `protocol` and `config` import nobody; `telemetry` imports `config`; `origin` imports `protocol`.
//! - Everybody else may import `config` and `telemetry`. Besides: `admission` and `upstream` import `protocol::name` and nothing more
//!   of it; `session` imports `protocol`, `admission` and `upstream`; `listener` imports `session` and `admission`; `http` imports
//!   `admission` and `upstream`, for what it asks them. `upstream`, `session`, `listener` and `http` may import `tls`.
//! - `app` imports every room. Nobody imports `app`.
//!
//! Files that begin `//! Pure:` take time and chance as arguments and touch neither sockets nor files.

pub mod admission;
pub mod app;
pub mod config;
pub mod http;
pub mod listener;
pub mod origin;
pub mod protocol;
pub mod session;
pub mod telemetry;
pub mod tls;
pub mod upstream;
