//! Pure: what to type to take part in the demonstration.

use std::fmt;
use std::net::SocketAddr;

use super::{APP, STREAM};

/// Where everything is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scene<'a> {
    /// Where the relay listens.
    pub(super) relay: SocketAddr,
    /// Where /status answers, unless HTTP is off.
    pub(super) http: Option<SocketAddr>,
    /// The origin behind the relay.
    pub(super) origin: SocketAddr,
    /// What the relay asks for.
    pub(super) token: &'a str,
}

/// A stream of one's own.
const OWN: &str = "mine";
/// A picture and a tone that need no file.
const ENCODER: &str = "ffmpeg -re -f lavfi -i testsrc2=size=1280x720:rate=30 -f lavfi -i sine \
                       -c:v libx264 -preset veryfast -tune zerolatency -pix_fmt yuv420p -g 60 -c:a aac -f flv";
const PLAYER: &str = "ffplay -fflags nobuffer";

impl Scene<'_> {
    fn url(&self, stream: &str) -> String {
        format!("rtmp://{}/{APP}/{stream}?token={}", host(self.relay), self.token)
    }
}

impl fmt::Display for Scene<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (test, own) = (self.url(STREAM), self.url(OWN));
        writeln!(f, "A test stream is going through the relay. Ctrl-C ends it.\n")?;
        writeln!(f, "Watch it:\n  {PLAYER} \"{test}\"\n")?;
        writeln!(f, "Publish a stream of your own, and watch it:\n  {ENCODER} \"{own}\"\n  {PLAYER} \"{own}\"\n")?;
        writeln!(f, "Or publish with OBS, Settings > Stream > Service: Custom...")?;
        writeln!(f, "  Server      rtmp://{}/{APP}\n  Stream Key  {OWN}?token={}\n", host(self.relay), self.token)?;
        if let Some(http) = self.http {
            writeln!(f, "What the relay sees:\n  http://{0}/status\n  http://{0}/metrics\n", host(http))?;
        }
        writeln!(f, "The origin behind it, which asks for no token: rtmp://{}/{APP}/{STREAM}", self.origin)
    }
}

/// `host:port` for a client on this machine.
fn host(address: SocketAddr) -> String {
    if address.ip().is_unspecified() { format!("localhost:{}", address.port()) } else { address.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scene(relay: &str, http: Option<&str>) -> String {
        let parse = |text: &str| text.parse().expect("an address");
        let (relay, http) = (parse(relay), http.map(parse));
        Scene { relay, http, origin: parse("127.0.0.1:4000"), token: "abc" }.to_string()
    }

    #[test]
    fn it_has_the_lines_to_publish_and_play_and_the_pages_to_look_at() {
        let text = scene("[::]:1935", Some("0.0.0.0:8080"));
        for line in [
            "ffplay -fflags nobuffer \"rtmp://localhost:1935/live/demo?token=abc\"",
            "-f flv \"rtmp://localhost:1935/live/mine?token=abc\"",
            "Server      rtmp://localhost:1935/live\n",
            "Stream Key  mine?token=abc\n",
            "http://localhost:8080/status",
            "http://localhost:8080/metrics",
        ] {
            assert!(text.contains(line), "{line:?} is missing from\n{text}");
        }
    }

    #[test]
    fn without_http_no_page_is_named_and_one_address_is_called_by_its_name() {
        let text = scene("192.0.2.1:1936", None);
        assert!(!text.contains("http://") && text.contains("rtmp://192.0.2.1:1936/live/demo"), "{text}");
    }
}
