//! Pure: the Transport header (RFC 2326 12.39): interleaved TCP is what the relay speaks, whatever else a client offers.

/// Why a SETUP cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// UDP or multicast alone. Answered 461, on which clients ask again.
    #[error("Use TCP (interleaved): this relay passes no UDP")]
    NotTcp,
    /// Channels that are no numbers up to 255.
    #[error("The interleaved channels of Transport cannot be read")]
    Channels,
    /// `mode` is not what the stream was asked for.
    #[error("The mode of Transport is not that of the stream")]
    Mode,
}

/// One alternative of a Transport header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transport {
    /// `RTP/AVP/TCP` or a kin of it.
    protocol: Vec<u8>,
    /// Everything behind it, in order.
    parameters: Vec<Vec<u8>>,
}

impl Transport {
    /// Of all `values` of a request's header, the first that is interleaved TCP.
    ///
    /// # Errors
    /// [`TransportError::NotTcp`], [`TransportError::Channels`].
    pub fn pick<'a>(values: impl Iterator<Item = &'a [u8]>) -> Result<Self, TransportError> {
        let mut alternatives = values.flat_map(|value| split(value, b',')).map(Self::parse);
        let picked = alternatives.find(Self::is_tcp).ok_or(TransportError::NotTcp)?;
        picked.channels()?;
        Ok(picked)
    }

    fn parse(text: &[u8]) -> Self {
        let mut words = split(text, b';').into_iter().map(<[u8]>::trim_ascii).filter(|word| !word.is_empty());
        let protocol = words.next().unwrap_or_default().to_vec();
        Self { protocol, parameters: words.map(<[u8]>::to_vec).collect() }
    }

    fn is_tcp(&self) -> bool {
        let multicast = self.parameters.iter().any(|parameter| parameter.eq_ignore_ascii_case(b"multicast"));
        let upper = self.protocol.to_ascii_uppercase();
        upper.starts_with(b"RTP/") && upper.ends_with(b"/TCP") && !multicast
    }

    /// The value of a parameter, without quotes.
    fn value(&self, key: &[u8]) -> Option<&[u8]> {
        self.parameters.iter().find_map(|parameter| {
            let at = parameter.iter().position(|&b| b == b'=')?;
            let (name, value) = (parameter[..at].trim_ascii(), parameter[at + 1..].trim_ascii());
            let value = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
            name.eq_ignore_ascii_case(key).then_some(value)
        })
    }

    /// The channels for RTP and RTCP; the second follows the first where one alone is named (RFC 2326 12.39). `None` where the
    /// server is to choose.
    ///
    /// # Errors
    /// [`TransportError::Channels`].
    pub fn channels(&self) -> Result<Option<(u8, u8)>, TransportError> {
        let Some(value) = self.value(b"interleaved") else { return Ok(None) };
        let number = |text: &[u8]| {
            let digits = !text.is_empty() && text.len() <= 3 && text.iter().all(u8::is_ascii_digit);
            let text = std::str::from_utf8(text).ok().filter(|_| digits);
            text.and_then(|text| text.parse::<u8>().ok()).ok_or(TransportError::Channels)
        };
        match value.iter().position(|&b| b == b'-') {
            Some(at) => Ok(Some((number(&value[..at])?, number(&value[at + 1..])?))),
            None => number(value).map(|first| Some((first, first.saturating_add(1)))),
        }
    }

    /// Whether it asks to send (`mode=RECORD`) or to receive (`mode=PLAY`); `None` where it says neither.
    pub fn records(&self) -> Option<bool> {
        let mode = self.value(b"mode")?;
        match () {
            () if mode.eq_ignore_ascii_case(b"record") || mode.eq_ignore_ascii_case(b"receive") => Some(true),
            () if mode.eq_ignore_ascii_case(b"play") => Some(false),
            () => None,
        }
    }

    /// The header's value, without addresses and ports: they are of the other connection.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = self.protocol.clone();
        for parameter in self.parameters.iter().filter(|parameter| !is_address(parameter)) {
            out.push(b';');
            out.extend_from_slice(parameter);
        }
        out
    }
}

/// Reads the Transport of a server's answer.
pub fn answered(value: &[u8]) -> Transport {
    Transport::parse(split(value, b',').first().copied().unwrap_or_default())
}

fn is_address(parameter: &[u8]) -> bool {
    let name = parameter.split(|&b| b == b'=').next().unwrap_or_default().trim_ascii();
    [&b"source"[..], b"destination", b"client_port", b"server_port", b"port", b"ttl", b"layers"]
        .iter()
        .any(|word| name.eq_ignore_ascii_case(word))
}

/// Splits at `by`, but not within quotes.
pub(super) fn split(text: &[u8], by: u8) -> Vec<&[u8]> {
    let mut quoted = false;
    text.split(|&b| {
        quoted ^= b == b'"';
        b == by && !quoted
    })
    .map(<[u8]>::trim_ascii)
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(values: &[&str]) -> Result<String, TransportError> {
        let picked = Transport::pick(values.iter().map(|value| value.as_bytes()))?;
        Ok(String::from_utf8(picked.to_bytes()).expect("text"))
    }

    #[test]
    fn of_several_alternatives_the_interleaved_one_is_taken() {
        let tcp = "RTP/AVP/TCP;unicast;interleaved=0-1";
        assert_eq!(pick(&[tcp]).as_deref(), Ok(tcp));
        assert_eq!(pick(&["RTP/AVP;unicast;client_port=1-2, RTP/AVP/TCP;unicast;interleaved=0-1"]).as_deref(), Ok(tcp));
        assert_eq!(pick(&["RTP/AVP;multicast", tcp]).as_deref(), Ok(tcp));
        assert_eq!(pick(&["RTP/AVP;x=\"a,b;c\",rtp/avp/tcp;mode=\"RECORD\""]).as_deref(), Ok("rtp/avp/tcp;mode=\"RECORD\""));
        for udp in
            ["RTP/AVP/UDP;unicast;client_port=1-2", "RTP/AVP;multicast", "RTP/AVP", "", "RTP/AVP/TCP;multicast", "RAW/RAW/TCP"]
        {
            assert_eq!(pick(&[udp]), Err(TransportError::NotTcp), "{udp}");
        }
        assert_eq!(pick(&[]), Err(TransportError::NotTcp));
    }

    #[test]
    fn channels_are_two_bytes() {
        let channels = |text: &str| answered(format!("RTP/AVP/TCP;interleaved={text}").as_bytes()).channels();
        assert_eq!(channels("0-1"), Ok(Some((0, 1))));
        assert_eq!(channels("\"254-255\""), Ok(Some((254, 255))));
        assert_eq!(channels("4"), Ok(Some((4, 5))));
        assert_eq!(answered(b"RTP/AVP/TCP;unicast").channels(), Ok(None));
        for bad in ["256-257", "a-b", "", "-", "1-", "+1-2", "0001-2"] {
            assert_eq!(channels(bad), Err(TransportError::Channels), "{bad}");
            assert_eq!(pick(&[&format!("RTP/AVP/TCP;interleaved={bad}")]), Err(TransportError::Channels), "{bad}");
        }
    }

    #[test]
    fn addresses_of_the_other_connection_do_not_pass() {
        let value = b"RTP/AVP/TCP;unicast;destination=10.0.0.1;source=10.1.2.3;interleaved=0-1;ssrc=03A8A0DD;mode=\"PLAY\"";
        let answer = answered(value);
        assert_eq!(answer.to_bytes(), b"RTP/AVP/TCP;unicast;interleaved=0-1;ssrc=03A8A0DD;mode=\"PLAY\"");
        assert_eq!(answer.records(), Some(false));
        assert_eq!(answered(b"RTP/AVP/TCP;mode=record").records(), Some(true));
        assert_eq!(answered(b"RTP/AVP/TCP").records(), None);
    }
}
