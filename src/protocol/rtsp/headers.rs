//! Pure: which headers pass from one connection to the other, and as what.

use super::message::Headers;

/// Of one connection only, or naming what the other side calls otherwise. CSeq is written anew.
const NEVER: [&str; 11] = [
    "CSeq",
    "Connection",
    "Proxy-Authenticate",
    "Proxy-Authorization",
    "Proxy-Connection",
    "Keep-Alive",
    "Host",
    "Referer",
    "Content-Location",
    "Content-Base",
    "Location",
];

/// Takes out of a request, or of an answer to one, what does not go to the upstream.
pub(super) fn towards_upstream(headers: &mut Headers, passes_login: bool) {
    NEVER.iter().for_each(|name| headers.remove(name));
    // The relay rewrites descriptions, so it must be able to read them.
    ["RTP-Info", "Accept-Encoding"].iter().for_each(|name| headers.remove(name));
    let is_basic = |value: &[u8]| value.get(..6).is_some_and(|start| start.eq_ignore_ascii_case(b"Basic "));
    if !(passes_login && headers.all("Authorization").next_back().is_some_and(is_basic)) {
        headers.remove("Authorization");
    }
}

/// Takes out of an answer, or of an upstream's own request, what does not go to the client.
pub(super) fn towards_client(headers: &mut Headers) {
    NEVER.iter().for_each(|name| headers.remove(name));
    ["WWW-Authenticate", "Authentication-Info"].iter().for_each(|name| headers.remove(name));
}

/// The methods that an upstream offers and the relay passes on.
pub(super) fn public(value: &[u8], known: &[&str]) -> String {
    let offered = value.split(|&b| b == b',').map(<[u8]>::trim_ascii);
    let passed: Vec<_> = offered.filter_map(|word| known.iter().find(|known| known.as_bytes() == word)).copied().collect();
    passed.join(", ")
}

/// RTP-Info (RFC 2326 12.33) with the URLs that `name` gives for the upstream's; what it does not know is left out, and `None` is
/// nothing at all. Players compare these with the URLs they asked for.
pub(super) fn rtp_info(value: &[u8], name: impl Fn(&[u8]) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
    let mut out: Vec<u8> = Vec::new();
    for entry in entries(value) {
        let Some(rest) = entry.strip_prefix(b"url=") else { continue };
        let (url, rest) = match rest.strip_prefix(b"\"") {
            Some(quoted) => quoted.split_at(quoted.iter().position(|&b| b == b'"').unwrap_or(quoted.len())),
            // An URL may hold a ';', but not one of these behind it.
            None => {
                rest.split_at(find(rest, b";seq=").or(find(rest, b";rtptime=")).or(find(rest, b";ssrc=")).unwrap_or(rest.len()))
            }
        };
        let Some(url) = name(url) else { continue };
        if !out.is_empty() {
            out.push(b',');
        }
        out.extend_from_slice(b"url=");
        out.extend_from_slice(&url);
        out.extend_from_slice(rest.strip_prefix(b"\"").unwrap_or(rest));
    }
    (!out.is_empty()).then_some(out)
}

/// Splits at the commas that begin another `url=`: an URL may hold commas.
fn entries(value: &[u8]) -> Vec<&[u8]> {
    let mut entries = Vec::new();
    let mut from = 0;
    for (at, _) in value.iter().enumerate().filter(|(_, b)| **b == b',') {
        if value[at + 1..].trim_ascii_start().starts_with(b"url=") {
            entries.push(value[from..at].trim_ascii());
            from = at + 1;
        }
    }
    entries.push(value[from..].trim_ascii());
    entries
}

fn find(text: &[u8], word: &[u8]) -> Option<usize> {
    text.windows(word.len()).position(|window| window == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rtp_info_is_renamed_entry_by_entry() {
        let name = |url: &[u8]| url.strip_prefix(b"rtsp://up/").map(|rest| [b"rtsp://h/", rest].concat());
        let got = |value: &str| rtp_info(value.as_bytes(), name).map(|value| String::from_utf8(value).expect("text"));
        assert_eq!(
            got("url=rtsp://up/a,b;c/1;seq=1;rtptime=2, url=\"rtsp://up/2\";rtptime=3,url=rtsp://x/3;seq=4").as_deref(),
            Some("url=rtsp://h/a,b;c/1;seq=1;rtptime=2,url=rtsp://h/2;rtptime=3")
        );
        assert_eq!(got("url=rtsp://up/1").as_deref(), Some("url=rtsp://h/1"));
        assert_eq!(got("url=rtsp://x/1;seq=1"), None);
        assert_eq!(got(""), None);
    }

    #[test]
    fn only_methods_that_both_know_are_offered() {
        let known = ["OPTIONS", "PLAY"];
        assert_eq!(public(b"OPTIONS,PLAY , REDIRECT,play", &known), "OPTIONS, PLAY");
    }

    #[test]
    fn credentials_of_the_client_stay_here_unless_they_are_basic_and_the_upstream_s() {
        let login = |value: &str, passes| {
            let mut headers = Headers::default();
            headers.push("Authorization", value);
            headers.push("Referer", "rtsp://h/cam?token=x");
            headers.push("Scale", "1");
            towards_upstream(&mut headers, passes);
            assert!(headers.has("Scale") && !headers.has("Referer"));
            headers.has("Authorization")
        };
        assert!(login("Basic eDp5", true));
        assert!(!login("Basic eDp5", false) && !login("Digest x=y", true) && !login("Bearer abc", true));
    }
}
