//! Who takes part? The programs around the relay, each started in one line.

mod front;
mod haproxy;
mod nginx;
mod player;
mod prometheus;
mod publisher;
mod rtsp_origin;

pub use front::Front;
pub use haproxy::{HAPROXY, Haproxy};
pub use nginx::{Nginx, NginxOptions};
pub use player::{Player, Receiver};
pub use prometheus::Prometheus;
pub use publisher::{Publisher, Sender, Take};
pub use rtsp_origin::{RtspMounts, RtspOrigin};
