//! The origin and the test stream of the demonstration, each as a program of its own: for several containers, or several machines.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, anyhow};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::clip::Clip;
use super::publisher::{self, Destination};
use super::screen::Screen;
use super::{CLIP, STREAM};
use crate::config::ListenAddr;
use crate::origin::Origin;

/// The port of rtmp:// URLs that name none.
const PORT: u16 = 1935;

/// Runs the origin until SIGINT or SIGTERM.
///
/// # Errors
/// An address that cannot be listened on.
pub fn demo_origin(listen: ListenAddr) -> anyhow::Result<()> {
    let origin = start(listen).with_context(|| format!("cannot listen on {listen}"))?;
    said(&format!("The origin listens on {}.", origin.addr()))?;
    actix_rt::System::new().block_on(async {
        told_to_end().await?;
        Ok(())
    })
}

fn start(listen: ListenAddr) -> io::Result<Origin> {
    match listen.host {
        Some(host) => Origin::start(SocketAddr::new(host, listen.port)),
        // v4 alone where the machine has no v6.
        None => Origin::start(SocketAddr::from((Ipv6Addr::UNSPECIFIED, listen.port)))
            .or_else(|_| Origin::start(SocketAddr::from((Ipv4Addr::UNSPECIFIED, listen.port)))),
    }
}

/// Publishes the test stream to `url`, `rtmp://host[:port]/app/stream`, again and again, until SIGINT or SIGTERM.
///
/// # Errors
/// A URL that is none.
pub fn demo_publisher(url: &str) -> anyhow::Result<()> {
    let to = destination(url).ok_or_else(|| anyhow!("an address like rtmp://localhost/live/{STREAM} is wanted"))?;
    let clip = Clip::parse(CLIP).context("the test clip")?;
    actix_rt::System::new().block_on(async {
        let (trouble, mut troubles) = watch::channel(None);
        let stream = actix_rt::spawn(publisher::run(clip, to, trouble));
        let end = told_to_end();
        tokio::pin!(end);
        let mut last = None;
        loop {
            tokio::select! {
                ended = &mut end => break ended?,
                Ok(()) = troubles.changed() => {
                    let now = troubles.borrow_and_update().clone().unwrap_or_else(|| "The test stream is being published.".to_owned());
                    if last.as_ref() != Some(&now) {
                        said(&now)?;
                    }
                    last = Some(now);
                }
            }
        }
        stream.abort();
        Ok(())
    })
}

fn destination(url: &str) -> Option<Destination> {
    let (host, names) = url.strip_prefix("rtmp://")?.split_once('/')?;
    let (app, stream) = names.rsplit_once('/').filter(|(app, stream)| !app.is_empty() && !stream.is_empty())?;
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
    let at = if has_port { host.to_owned() } else { format!("{host}:{PORT}") };
    Some(Destination { at, app: app.into(), stream: stream.into() })
}

async fn told_to_end() -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

/// Nobody needs to listen.
fn said(text: &str) -> io::Result<()> {
    Screen::stdout().say(text).or_else(|error| if error.kind() == ErrorKind::BrokenPipe { Ok(()) } else { Err(error) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where_to_publish() {
        let to = |url: &str| destination(url).map(|d| (d.at, d.app, d.stream));
        let own = |at: &str, app: &str, stream: &str| Some((at.to_owned(), app.to_owned(), stream.to_owned()));
        assert_eq!(to("rtmp://relay/live/demo"), own("relay:1935", "live", "demo"));
        assert_eq!(to("rtmp://[::1]:1936/a/b/c?token=x"), own("[::1]:1936", "a/b", "c?token=x"));
        for bad in ["relay/live/demo", "rtmp://relay", "rtmp://relay/live", "rtmp://relay/live/", "rtmp:///"] {
            assert_eq!(to(bad), None, "{bad}");
        }
    }
}
