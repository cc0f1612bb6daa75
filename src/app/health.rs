//! Is the relay well? The probe for containers that have no other program to ask with.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::config::Config;
use crate::tls::{self, Stream, Trust};

/// For the whole question. A relay that needs longer is not well.
const PATIENCE: Duration = Duration::from_secs(3);
/// Of an answer, bytes; /health needs a hundred.
const MAX_ANSWER: u64 = 64 * 1024;

/// Asks `url` and returns what it answers. Over https:// it asks whether the relay is well, not who it is: certificates name the
/// public host, and containers ask localhost.
///
/// # Errors
/// No answer in time, or another than 200.
pub fn health(url: &str) -> anyhow::Result<String> {
    let place = Place::of(url).ok_or_else(|| anyhow!("{url}: an address like http://localhost:8080/health is wanted"))?;
    let asked = actix_rt::System::new().block_on(async { timeout(PATIENCE, get(&place)).await });
    let (code, body) = asked
        .unwrap_or_else(|_| Err(anyhow!("nothing within {PATIENCE:?}")))
        .with_context(|| format!("{url} does not answer"))?;
    if code != 200 {
        bail!("{url} answers {code}: {}", body.trim());
    }
    Ok(body)
}

/// Where a relay with this configuration answers /health to this machine; `None` where HTTP is off.
pub fn health_url(config: &Config) -> Option<String> {
    let address = config.http?;
    let host = address.host.filter(|host| !host.is_unspecified()).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let scheme = if config.http_tls { "https" } else { "http" };
    Some(format!("{scheme}://{}/health", SocketAddr::new(host, address.port)))
}

/// What a URL says.
#[derive(Debug, PartialEq, Eq)]
struct Place<'a> {
    private: bool,
    /// `host:port`.
    authority: String,
    path: &'a str,
}

impl<'a> Place<'a> {
    fn of(url: &'a str) -> Option<Self> {
        let (private, rest) = match url.split_once("://")? {
            ("http", rest) => (false, rest),
            ("https", rest) => (true, rest),
            _ => return None,
        };
        let (host, path) = rest.find('/').map_or((rest, "/health"), |at| rest.split_at(at));
        // The colons of an IPv6 address stand in brackets.
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
        let port = if private { 443 } else { 80 };
        Some(Self { private, authority: if has_port { host.to_owned() } else { format!("{host}:{port}") }, path })
    }

    fn name(&self) -> anyhow::Result<ServerName<'static>> {
        let host = self.authority.rsplit_once(':').map_or(&*self.authority, |(host, _)| host);
        Ok(ServerName::try_from(host.trim_matches(['[', ']']).to_owned())?)
    }
}

async fn get(place: &Place<'_>) -> anyhow::Result<(u16, String)> {
    let tcp = TcpStream::connect(&place.authority).await?;
    let mut stream: Stream =
        if place.private { tls::Client::new(&Trust::Anyone)?.connect(tcp, &place.name()?).await? } else { tcp.into() };
    let question = format!("GET {} HTTP/1.0\r\nHost: {}\r\nConnection: close\r\n\r\n", place.path, place.authority);
    stream.write_all(question.as_bytes()).await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    // What came before an end without TLS's goodbye is an answer all the same, where it is whole.
    let ended = stream.take(MAX_ANSWER).read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer);
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        ended?;
        bail!("that is no HTTP")
    };
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| anyhow!("that is no HTTP"))?;
    Ok((code, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_may_leave_out_what_goes_without_saying() {
        for (url, private, authority, path) in [
            ("http://localhost:8080/ready", false, "localhost:8080", "/ready"),
            ("http://relay:8080", false, "relay:8080", "/health"),
            ("http://relay", false, "relay:80", "/health"),
            ("https://relay", true, "relay:443", "/health"),
            ("http://[::1]:8080/", false, "[::1]:8080", "/"),
            ("https://[::1]/", true, "[::1]:443", "/"),
        ] {
            assert_eq!(Place::of(url), Some(Place { private, authority: authority.to_owned(), path }), "{url}");
        }
        assert_eq!((Place::of("ftp://relay/"), Place::of("localhost:8080")), (None, None));
        assert_eq!(Place::of("https://[::1]/").unwrap().name().unwrap().to_str(), "::1");
    }

    #[test]
    fn the_address_to_ask_is_the_one_that_is_listened_on() {
        let url = |more: &str| {
            let text = format!(r#"{{ "upstream": "rtmp://origin.example.com", {more} }}"#);
            let loaded = crate::config::parse(&text, &crate::config::Env::empty(), &crate::app::judge_upstream);
            health_url(&loaded.unwrap().config)
        };
        assert_eq!(url(r#""idle_timeout": "30s""#).as_deref(), Some("http://127.0.0.1:8080/health"));
        assert_eq!(url(r#""http_addr": "0.0.0.0:9090""#).as_deref(), Some("http://127.0.0.1:9090/health"));
        assert_eq!(url(r#""http_addr": "[::1]:9090""#).as_deref(), Some("http://[::1]:9090/health"));
        assert_eq!(url(r#""http_addr": "192.0.2.1:9090""#).as_deref(), Some("http://192.0.2.1:9090/health"));
        assert_eq!(url(r#""http_addr": """#), None);
        let private = r#""http_tls": true, "security": { "tls_cert": "c.pem", "tls_key": "k.pem" }"#;
        assert_eq!(url(private).as_deref(), Some("https://127.0.0.1:8080/health"));
    }
}
