//! Real encoders, players and an origin, with the relay in between: does every packet arrive as it was sent?
//!
//! Publishers are ffmpeg, GStreamer's rtmp2sink and its rtmpsink (librtmp, as in OBS); players are ffmpeg, rtmp2src and
//! rtmpdump; the origin is nginx with its RTMP module, which records what it is sent, or the one of `relay demo`. Nothing
//! here is judged by the relay's own protocol code: recordings are read by the small reader in `flv` and compared in
//! `compare`.
//!
//! Over RTSP they are ffmpeg, rtspclientsink and rtspsrc, and the origin is gst-rtsp-server.
//!
//! Not here: parsing, arithmetic, hostile bytes and limits (unit tests and `tests/it`).
//!
//! Three rules: free ports only; wait for a condition with a deadline, never for a time; what a peer said is printed when
//! its test fails. `tests/e2e/deps.sh` installs the peers. `E2E_DIRECT=1` leaves the relay out, which checks the harness
//! itself; `E2E_KEEP=1` keeps the working directories (under `target/tmp`).

mod answers;
mod balancer;
mod callbacks;
mod clip;
mod compare;
mod demo;
mod embedded;
mod endings;
mod failover;
mod flv;
mod hour;
mod http;
mod logins;
mod matrix;
mod monitoring;
mod paper;
mod peers;
mod pictures;
mod process;
mod quiet;
mod relay;
mod route;
mod rtsp;
mod schemes;
mod succession;
mod systemd;
mod tap;
mod timestamps;
mod tokens;
mod wait;
