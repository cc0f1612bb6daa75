//! Pure: the tracks of one stream, as the client calls them and as the upstream does.

use std::fmt;

use super::sdp::{self, TooManyMedia};
use super::url::{Address, is_plain};

/// One track.
#[derive(Clone, PartialEq, Eq)]
pub struct Track {
    /// What the client calls it: the last part of its URL.
    pub id: Vec<u8>,
    /// What the upstream calls it.
    pub upstream: Vec<u8>,
    /// Whether it is a video.
    pub video: bool,
    /// The URL by which the client set it up, for RTP-Info.
    pub used: Option<Vec<u8>>,
}

/// All of them; at most [`sdp::MAX_MEDIA`]. `Debug` shows no name.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Tracks {
    /// What the upstream calls the whole stream once it is described.
    pub aggregate: Vec<u8>,
    list: Vec<Track>,
}

impl fmt::Debug for Tracks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tracks({})", self.list.len())
    }
}

impl Tracks {
    /// Reads what an upstream describes, with controls relative to `base`, and writes it for a client: its controls become
    /// `trackID=0` and so on, and the whole stream `*`.
    ///
    /// # Errors
    /// [`TooManyMedia`].
    pub fn described(base: &Address, sdp: &[u8]) -> Result<(Self, Vec<u8>), TooManyMedia> {
        let description = sdp::rewrite(sdp, |medium, _| medium.map_or(b"*".to_vec(), track_id))?;
        let aggregate = base.resolve(description.aggregate.as_deref().unwrap_or_default());
        // Controls of media are relative to the whole stream's URL, where that is one of its own (RFC 2326 C.1.1).
        let list = description.media.iter().enumerate().map(|(n, medium)| Track {
            id: track_id(n),
            upstream: medium.control.as_deref().map_or_else(|| aggregate.clone(), |control| base.resolve(control)),
            video: medium.video,
            used: None,
        });
        Ok((Self { list: list.collect(), aggregate }, description.body))
    }

    /// Reads what a client announces as `client`, and writes it for the upstream, which knows the stream as `upstream`. Names of tracks
    /// are the client's; what is absolute becomes relative.
    ///
    /// # Errors
    /// [`TooManyMedia`].
    pub fn announced(client: &Address, upstream: &Address, sdp: &[u8]) -> Result<(Self, Vec<u8>), TooManyMedia> {
        let name = |medium: Option<usize>, control: &[u8]| match medium {
            None => b"*".to_vec(),
            Some(n) => announced_id(client, n, control),
        };
        let description = sdp::rewrite(sdp, name)?;
        let list = description.media.iter().enumerate().map(|(n, medium)| {
            let id = medium.control.as_deref().map(|control| announced_id(client, n, control)).unwrap_or_default();
            Track { upstream: upstream.resolve(&id), id, video: medium.video, used: None }
        });
        Ok((Self { list: list.collect(), aggregate: upstream.to_bytes() }, description.body))
    }

    /// The number of the track that the client calls `id`; nothing is the only track.
    pub fn find(&self, id: &[u8]) -> Option<usize> {
        match (id, self.list.len()) {
            (b"", 1) => Some(0),
            (b"", _) => None,
            _ => self.list.iter().position(|track| track.id == id),
        }
    }

    /// Track number `n`.
    pub fn get(&self, n: usize) -> Option<&Track> {
        self.list.get(n)
    }

    /// The client set up track number `n` by this URL.
    pub fn set_used(&mut self, n: usize, url: Vec<u8>) {
        if let Some(track) = self.list.get_mut(n) {
            track.used = Some(url);
        }
    }

    /// The client's URL for the upstream's `url`, whole or its last component.
    pub fn client_url(&self, url: &[u8], client: &Address) -> Option<Vec<u8>> {
        let last = |url: &[u8]| Address::parse(url).map_or_else(|_| url.to_vec(), |address| address.last().to_vec());
        let wanted = last(url);
        let track = self.list.iter().find(|t| t.upstream == url).or_else(|| {
            let mut same = self.list.iter().filter(|t| last(&t.upstream) == wanted);
            same.next().filter(|_| same.next().is_none())
        })?;
        Some(track.used.clone().unwrap_or_else(|| [client.base(), track.id.clone()].concat()))
    }
}

fn track_id(n: usize) -> Vec<u8> {
    format!("trackID={n}").into_bytes()
}

fn announced_id(client: &Address, n: usize, control: &[u8]) -> Vec<u8> {
    let id = match Address::parse(control) {
        Ok(address) if !address.origin.is_empty() => {
            client.below(&address).map_or_else(|| address.last().to_vec(), <[u8]>::to_vec)
        }
        _ => control.split(|&b| b == b'?').next().unwrap_or_default().trim_ascii().to_vec(),
    };
    let id = id.strip_prefix(b"/").unwrap_or(&id).to_vec();
    let plain = id.split(|&b| b == b'/').all(|part| !part.is_empty() && is_plain(part));
    if plain { id } else { format!("streamid={n}").into_bytes() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(url: &str) -> Address {
        Address::parse(url.as_bytes()).expect("an URL")
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    const SDP: &[u8] =
        b"v=0\r\na=control:rtsp://10.1.2.3/up/cam/\r\nm=video 0 RTP/AVP 96\r\na=control:rtsp://10.1.2.3/up/cam/v\r\n\
                         m=audio 0 RTP/AVP 8\r\na=control:stream=1\r\nm=application 0 RTP/AVP 107\r\n";

    #[test]
    fn a_described_stream_has_the_relay_s_names_towards_the_client_and_its_own_towards_the_upstream() {
        let (tracks, body) = Tracks::described(&address("rtsp://up/up/cam/"), SDP).expect("few media");
        assert!(!text(&body).contains("10.1.2.3"), "{}", text(&body));
        assert!(text(&body).contains("a=control:*\r\n") && text(&body).contains("a=control:trackID=1\r\n"));
        assert_eq!(text(&tracks.aggregate), "rtsp://10.1.2.3/up/cam/");
        let upstream = |id: &str| tracks.find(id.as_bytes()).and_then(|n| tracks.get(n)).map(|track| text(&track.upstream));
        assert_eq!(upstream("trackID=0").as_deref(), Some("rtsp://10.1.2.3/up/cam/v"));
        assert_eq!(upstream("trackID=1").as_deref(), Some("rtsp://up/up/cam/stream=1"));
        assert_eq!(upstream("trackID=2").as_deref(), Some("rtsp://10.1.2.3/up/cam/"));
        assert_eq!((upstream("v"), upstream("")), (None, None));
        assert_eq!([0, 1].map(|n| tracks.get(n).is_some_and(|track| track.video)), [true, false]);
    }

    #[test]
    fn an_announced_stream_keeps_the_client_s_names_of_tracks() {
        let (client, upstream) = (address("rtsp://relay/live/cam?token=x"), address("rtsp://up/in/k"));
        let sdp = b"m=video 0 RTP/AVP 96\na=control:streamid=0\nm=audio 0 RTP/AVP 8\na=control:rtsp://relay/live/cam/a\n\
                    m=audio 0 RTP/AVP 8\na=control:../../x\n";
        let (tracks, body) = Tracks::announced(&client, &upstream, sdp).expect("few media");
        let ids: Vec<_> = (0..3).filter_map(|n| tracks.get(n)).map(|track| text(&track.id)).collect();
        assert_eq!(ids, ["streamid=0", "a", "streamid=2"]);
        assert!(text(&body).contains("a=control:a\n") && !text(&body).contains("relay"));
        assert_eq!(text(&tracks.get(0).expect("a track").upstream), "rtsp://up/in/k/streamid=0");
    }

    #[test]
    fn rtp_info_names_what_the_client_asked_for() {
        let (mut tracks, _) = Tracks::described(&address("rtsp://up/up/cam/"), SDP).expect("few media");
        let client = address("rtsp://relay/live/cam?token=x");
        let url = |tracks: &Tracks, url: &str| tracks.client_url(url.as_bytes(), &client).map(|url| text(&url));
        assert_eq!(url(&tracks, "rtsp://10.1.2.3/up/cam/v").as_deref(), Some("rtsp://relay/live/cam/trackID=0"));
        assert_eq!(url(&tracks, "stream=1").as_deref(), Some("rtsp://relay/live/cam/trackID=1"));
        assert_eq!(url(&tracks, "rtsp://other/name/stream=1").as_deref(), Some("rtsp://relay/live/cam/trackID=1"));
        assert_eq!(url(&tracks, "rtsp://up/else"), None);
        tracks.set_used(0, b"rtsp://relay/live/cam?token=x/trackID=0".to_vec());
        assert_eq!(url(&tracks, "v").as_deref(), Some("rtsp://relay/live/cam?token=x/trackID=0"));
    }
}
