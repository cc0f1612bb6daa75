//! Pure: the controls in an SDP body (RFC 4566, RFC 2326 C.1.1), read and rewritten; every other line stays as it is.

/// Most media in one description.
pub const MAX_MEDIA: usize = 32;

/// More media than [`MAX_MEDIA`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("The description has more than 32 media")]
pub struct TooManyMedia;

/// One `m=` block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Media {
    /// Its control as it stood there.
    pub control: Option<Vec<u8>>,
    /// Whether it is a video.
    pub video: bool,
}

/// What a description says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Description {
    /// The control above all media.
    pub aggregate: Option<Vec<u8>>,
    /// The media, in order.
    pub media: Vec<Media>,
    /// The description with the controls that `control` gave.
    pub body: Vec<u8>,
}

/// Reads a description and rewrites its controls: `control` is given the number of the medium (`None` above all media) and the control
/// there.
///
/// # Errors
/// [`TooManyMedia`].
pub fn rewrite(sdp: &[u8], mut control: impl FnMut(Option<usize>, &[u8]) -> Vec<u8>) -> Result<Description, TooManyMedia> {
    let mut description = Description { body: Vec::with_capacity(sdp.len()), ..Description::default() };
    let Description { aggregate, media, body } = &mut description;
    for line in sdp.split_inclusive(|&b| b == b'\n') {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if text.starts_with(b"m=") {
            if media.len() == MAX_MEDIA {
                return Err(TooManyMedia);
            }
            media.push(Media { control: None, video: text.starts_with(b"m=video ") });
        }
        let Some(value) = text.strip_prefix(b"a=control:") else {
            body.extend_from_slice(line);
            continue;
        };
        let value = value.trim_ascii();
        let place = media.len().checked_sub(1);
        body.extend_from_slice(b"a=control:");
        body.extend_from_slice(&control(place, value));
        body.extend_from_slice(&line[text.len()..]);
        // The first one counts, as it does for players.
        media.last_mut().map_or(&mut *aggregate, |medium| &mut medium.control).get_or_insert_with(|| value.to_vec());
    }
    Ok(description)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_change_and_nothing_else_does() {
        let sdp = b"v=0\r\ns=x\r\na=control:rtsp://10.1.2.3/up/\r\nm=video 0 RTP/AVP 96\r\na=control: rtsp://10.1.2.3/up/trackID=0 \r\n\
                    a=fmtp:96 x\r\nm=audio 0 RTP/AVP 8\na=control:trackID=1\na=control:again";
        let got = rewrite(sdp, |media, _| media.map_or(b"*".to_vec(), |n| format!("track{n}").into_bytes())).expect("few media");
        let want = b"v=0\r\ns=x\r\na=control:*\r\nm=video 0 RTP/AVP 96\r\na=control:track0\r\n\
                    a=fmtp:96 x\r\nm=audio 0 RTP/AVP 8\na=control:track1\na=control:track1";
        assert_eq!(String::from_utf8_lossy(&got.body), String::from_utf8_lossy(want));
        assert_eq!(got.aggregate.as_deref(), Some(&b"rtsp://10.1.2.3/up/"[..]));
        let medium = |control: &[u8], video| Media { control: Some(control.to_vec()), video };
        assert_eq!(got.media, [medium(b"rtsp://10.1.2.3/up/trackID=0", true), medium(b"trackID=1", false)]);
    }

    #[test]
    fn a_description_without_controls_stays_as_it_is() {
        let sdp = b"v=0\r\nm=audio 0 RTP/AVP 8\r\n";
        let got = rewrite(sdp, |_, _| unreachable!("there is none")).expect("few media");
        assert_eq!((got.body, got.aggregate, got.media), (sdp.to_vec(), None, vec![Media::default()]));
    }

    #[test]
    fn media_have_a_bound() {
        let sdp = b"m=video 0 RTP/AVP 96\r\n".repeat(MAX_MEDIA + 1);
        assert_eq!(rewrite(&sdp, |_, value| value.to_vec()), Err(TooManyMedia));
    }
}
