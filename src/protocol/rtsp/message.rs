//! Pure: one RTSP request or response, read strictly and written anew from what was read.
//!
//! No byte of a head is ever copied on: what one peer takes for the end of a line another may not, and that is how requests are
//! smuggled. Headers keep their order, their duplicates and the bytes of their values.

use std::fmt;

/// Longest line of a head, its end left out, bytes.
pub const MAX_LINE: usize = 4096;
/// Most headers.
pub const MAX_HEADERS: usize = 64;
/// Longest head, bytes.
pub const MAX_HEAD: usize = 16 * 1024;
/// Longest body, bytes.
pub const MAX_BODY: usize = 128 * 1024;
/// Most digits of a CSeq.
const MAX_CSEQ: usize = 10;
/// Longest reason phrase that is passed on or said, bytes.
const MAX_REASON: usize = 256;

/// What is wrong with a message. The text is fit for a reason phrase: it repeats nothing of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// A line above [`MAX_LINE`].
    #[error("A line is longer than 4096 bytes")]
    LineTooLong,
    /// More than [`MAX_HEADERS`].
    #[error("More than 64 headers")]
    TooManyHeaders,
    /// A head above [`MAX_HEAD`].
    #[error("The head is longer than 16 KiB")]
    HeadTooLong,
    /// A body above [`MAX_BODY`].
    #[error("The body is longer than 128 KiB")]
    BodyTooLong,
    /// Not digits alone, or two that differ.
    #[error("Content-Length is not one number")]
    ContentLength,
    /// Transfer-Encoding, which RTSP does not have.
    #[error("RTSP has no Transfer-Encoding")]
    TransferEncoding,
    /// Not `METHOD uri RTSP/1.0`, and not `RTSP/1.0 200 Reason`.
    #[error("Neither an RTSP request nor a response")]
    StartLine,
    /// RTSP of another version.
    #[error("RTSP/1.0 is spoken here")]
    Version,
    /// NUL, a lone CR, another control character, a folded line, a header without a name.
    #[error("A header cannot be read")]
    Header,
    /// A request without CSeq, or one that is not up to ten digits.
    #[error("CSeq is missing or no number of up to 10 digits")]
    CSeq,
}

impl MessageError {
    /// The status code that tells a client of it.
    pub fn code(self) -> u16 {
        if self == Self::Version { 505 } else { 400 }
    }

    /// One word of a bounded set, for logs and metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::LineTooLong | Self::TooManyHeaders | Self::HeadTooLong | Self::BodyTooLong => "rtsp_message_too_long",
            Self::ContentLength | Self::TransferEncoding | Self::StartLine | Self::Version | Self::Header | Self::CSeq => {
                "malformed_rtsp"
            }
        }
    }
}

/// The first line.
#[derive(Clone, PartialEq, Eq)]
pub enum Start {
    /// A request.
    Request {
        /// Upper case letters, digits, `_` and `-`; at most 32 bytes.
        method: Vec<u8>,
        /// As it stood there: no blank, no control character.
        uri: Vec<u8>,
    },
    /// A response.
    Response {
        /// Three digits.
        code: u16,
        /// May be empty.
        reason: Vec<u8>,
    },
}

/// Headers in their order. Names are compared without regard to case.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers {
    list: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Headers {
    /// The first value of `name`.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.all(name).next()
    }

    /// Every value of `name`, in order.
    pub fn all(&self, name: &str) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.list.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| &value[..])
    }

    /// Whether `name` is there.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.list.iter().map(|(name, value)| (&name[..], &value[..]))
    }

    /// Adds one behind the others. Control characters become blanks, so that no value can end its line.
    pub fn push(&mut self, name: &str, value: impl AsRef<[u8]>) {
        self.list.push((name.as_bytes().to_vec(), tame(value.as_ref())));
    }

    /// Makes this the only value of `name`, before all others.
    pub fn lead(&mut self, name: &str, value: impl AsRef<[u8]>) {
        self.remove(name);
        self.list.insert(0, (name.as_bytes().to_vec(), tame(value.as_ref())));
    }

    /// Makes this the only value of `name`, where the first one stood.
    pub fn set(&mut self, name: &str, value: impl AsRef<[u8]>) {
        let at = self.list.iter().position(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes()));
        self.remove(name);
        let at = at.unwrap_or(self.list.len()).min(self.list.len());
        self.list.insert(at, (name.as_bytes().to_vec(), tame(value.as_ref())));
    }

    /// Takes every `name` out.
    pub fn remove(&mut self, name: &str) {
        self.list.retain(|(n, _)| !n.eq_ignore_ascii_case(name.as_bytes()));
    }
}

/// One request or response. Its `Debug` shows no URI and no value: both may hold secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// The first line.
    pub start: Start,
    /// Everything up to the blank line, less Content-Length.
    pub headers: Headers,
    /// What follows it.
    pub body: Vec<u8>,
}

impl Message {
    /// A request that the relay makes.
    pub fn request(method: &str, uri: &[u8]) -> Self {
        let start = Start::Request { method: method.as_bytes().to_vec(), uri: uri.to_vec() };
        Self { start, headers: Headers::default(), body: Vec::new() }
    }

    /// An answer of the relay to the request with `cseq`.
    pub fn answer(code: u16, reason: &str, cseq: u64) -> Self {
        let start = Start::Response { code, reason: reason.as_bytes().to_vec() };
        let mut answer = Self { start, headers: Headers::default(), body: Vec::new() };
        answer.headers.push("CSeq", cseq.to_string());
        answer
    }

    /// Reads a head up to and with its blank line, which may not contain another one. Line ends are CRLF or LF. Returns the
    /// message without its body, and how long that is.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn parse_head(head: &[u8]) -> Result<(Self, usize), MessageError> {
        if head.len() > MAX_HEAD {
            return Err(MessageError::HeadTooLong);
        }
        if head.split(|&b| b == b'\n').any(|line| line.len() > MAX_LINE + 1) {
            return Err(MessageError::LineTooLong);
        }
        let end = head.iter().position(|&b| b == b'\n').ok_or(MessageError::StartLine)?;
        let start = parse_start(head[..end].strip_suffix(b"\r").unwrap_or(&head[..end]))?;
        let mut list = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let parsed = match httparse::parse_headers(&head[end + 1..], &mut list) {
            Ok(httparse::Status::Complete((_, parsed))) => parsed,
            Err(httparse::Error::TooManyHeaders) => return Err(MessageError::TooManyHeaders),
            Ok(httparse::Status::Partial) | Err(_) => return Err(MessageError::Header),
        };
        let list = parsed.iter().map(|h| (h.name.as_bytes().to_vec(), h.value.to_vec())).collect();
        let mut message = Self { start, headers: Headers { list }, body: Vec::new() };
        let length = message.content_length()?;
        message.headers.remove("Content-Length");
        if message.headers.has("Transfer-Encoding") {
            return Err(MessageError::TransferEncoding);
        }
        Ok((message, length))
    }

    fn content_length(&self) -> Result<usize, MessageError> {
        let mut length = None;
        for value in self.headers.all("Content-Length") {
            let digits = !value.is_empty() && value.len() <= 20 && value.iter().all(u8::is_ascii_digit);
            let text = std::str::from_utf8(value).ok().filter(|_| digits).ok_or(MessageError::ContentLength)?;
            // More than a u64 is digits too.
            let this: u64 = text.parse().map_err(|_| MessageError::BodyTooLong)?;
            if length.is_some_and(|length| length != this) {
                return Err(MessageError::ContentLength);
            }
            length = Some(this);
        }
        let length = usize::try_from(length.unwrap_or(0)).map_err(|_| MessageError::BodyTooLong)?;
        if length > MAX_BODY { Err(MessageError::BodyTooLong) } else { Ok(length) }
    }

    /// The number of a request, or of what is answered.
    ///
    /// # Errors
    /// [`MessageError::CSeq`].
    pub fn cseq(&self) -> Result<u64, MessageError> {
        let mut values = self.headers.all("CSeq");
        let (Some(value), None) = (values.next(), values.next()) else { return Err(MessageError::CSeq) };
        if value.is_empty() || value.len() > MAX_CSEQ || !value.iter().all(u8::is_ascii_digit) {
            return Err(MessageError::CSeq);
        }
        std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).ok_or(MessageError::CSeq)
    }

    /// Method and URI of a request.
    pub fn as_request(&self) -> Option<(&[u8], &[u8])> {
        match &self.start {
            Start::Request { method, uri } => Some((method, uri)),
            Start::Response { .. } => None,
        }
    }

    /// Code and reason of a response.
    pub fn as_response(&self) -> Option<(u16, &[u8])> {
        match &self.start {
            Start::Response { code, reason } => Some((*code, reason)),
            Start::Request { .. } => None,
        }
    }

    /// Writes the message behind `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        match &self.start {
            Start::Request { method, uri } => {
                let uri = uri.iter().copied().filter(|b| !b.is_ascii_control() && *b != b' ');
                out.extend_from_slice(method);
                out.push(b' ');
                out.extend(uri);
                out.extend_from_slice(b" RTSP/1.0\r\n");
            }
            Start::Response { code, reason } => {
                let reason = tame(&reason[..reason.len().min(MAX_REASON)]);
                out.extend_from_slice(format!("RTSP/1.0 {code:03} ").as_bytes());
                out.extend_from_slice(&reason);
                out.extend_from_slice(b"\r\n");
            }
        }
        for (name, value) in self.headers.iter() {
            for piece in [name, b": ", value, b"\r\n"] {
                out.extend_from_slice(piece);
            }
        }
        if !self.body.is_empty() {
            out.extend_from_slice(format!("Content-Length: {}\r\n", self.body.len()).as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&self.body);
    }

    /// The message as it goes on the wire.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.start {
            Start::Request { method, .. } => write!(f, "{} ", String::from_utf8_lossy(method))?,
            Start::Response { code, .. } => write!(f, "{code} ")?,
        }
        write!(f, "({} headers, {} bytes)", self.headers.list.len(), self.body.len())
    }
}

fn parse_start(line: &[u8]) -> Result<Start, MessageError> {
    if let Some(rest) = line.strip_prefix(b"RTSP/") {
        let rest = rest.strip_prefix(b"1.0 ").ok_or_else(|| version_or_start(rest))?;
        let (code, reason) = match rest.split_at_checked(3) {
            Some((code, b"")) => (code, &b""[..]),
            Some((code, behind)) => (code, behind.strip_prefix(b" ").ok_or(MessageError::StartLine)?),
            None => return Err(MessageError::StartLine),
        };
        let code = std::str::from_utf8(code).ok().filter(|code| code.bytes().all(|b| b.is_ascii_digit()));
        let code = code.and_then(|code| code.parse().ok()).ok_or(MessageError::StartLine)?;
        if code < 100 || reason.iter().any(|b| b.is_ascii_control() && *b != b'\t') {
            return Err(MessageError::StartLine);
        }
        return Ok(Start::Response { code, reason: reason.to_vec() });
    }
    let mut words = line.split(|&b| b == b' ');
    let (Some(method), Some(uri), Some(version), None) = (words.next(), words.next(), words.next(), words.next()) else {
        return Err(MessageError::StartLine);
    };
    let name = |b: &u8| b.is_ascii_uppercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-');
    if method.is_empty() || method.len() > 32 || !method.iter().all(name) {
        return Err(MessageError::StartLine);
    }
    if uri.is_empty() || uri.iter().any(u8::is_ascii_control) {
        return Err(MessageError::StartLine);
    }
    match version.strip_prefix(b"RTSP/") {
        Some(b"1.0") => Ok(Start::Request { method: method.to_vec(), uri: uri.to_vec() }),
        Some(other) => Err(version_or_start(other)),
        None => Err(MessageError::StartLine),
    }
}

/// What follows `RTSP/` is not `1.0`.
fn version_or_start(rest: &[u8]) -> MessageError {
    let version = rest.split(|&b| b == b' ').next().unwrap_or_default();
    let number = version.len() == 3 && version[0].is_ascii_digit() && version[1] == b'.' && version[2].is_ascii_digit();
    if number && version != b"1.0" { MessageError::Version } else { MessageError::StartLine }
}

/// The bytes with blanks for control characters.
fn tame(value: &[u8]) -> Vec<u8> {
    value.iter().map(|&b| if b.is_ascii_control() && b != b'\t' { b' ' } else { b }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(head: &str) -> Result<(Message, usize), MessageError> {
        Message::parse_head(head.as_bytes())
    }

    fn with(header: &str) -> Result<(Message, usize), MessageError> {
        parse(&format!("OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n{header}\r\n\r\n"))
    }

    #[test]
    fn a_request_keeps_order_duplicates_and_bytes() {
        let head =
            b"SETUP trackID=1 RTSP/1.0\r\nCSeq: 7\r\nTransport: a\nX-Name: caf\xe9 \r\ntransport: b\r\nContent-Length: 3\r\n\r\n";
        let (message, length) = Message::parse_head(head).expect("a request");
        assert_eq!(length, 3);
        assert_eq!(message.as_request(), Some((&b"SETUP"[..], &b"trackID=1"[..])));
        assert_eq!(message.headers.all("Transport").collect::<Vec<_>>(), [b"a", b"b"]);
        assert_eq!(message.cseq(), Ok(7));
        let message = Message { body: b"abc".to_vec(), ..message };
        let want = b"SETUP trackID=1 RTSP/1.0\r\nCSeq: 7\r\nTransport: a\r\nX-Name: caf\xe9\r\ntransport: b\r\nContent-Length: 3\r\n\r\nabc";
        assert_eq!(message.to_bytes(), want);
    }

    #[test]
    fn a_response_may_have_no_reason() {
        for head in ["RTSP/1.0 200\r\n\r\n", "RTSP/1.0 200 \r\n\r\n", "RTSP/1.0 200 OK\n\n"] {
            let (message, _) = parse(head).expect(head);
            assert_eq!(message.as_response().map(|(code, _)| code), Some(200));
        }
        for head in ["RTSP/1.0 20\r\n\r\n", "RTSP/1.0 2000 OK\r\n\r\n", "RTSP/1.0 099 x\r\n\r\n", "RTSP/1.0 +20 x\r\n\r\n"] {
            assert_eq!(parse(head), Err(MessageError::StartLine), "{head}");
        }
    }

    #[test]
    fn other_versions_are_told_apart_from_nonsense() {
        assert_eq!(parse("OPTIONS * RTSP/2.0\r\n\r\n"), Err(MessageError::Version));
        assert_eq!(MessageError::Version.code(), 505);
        assert_eq!(parse("RTSP/1.1 200 OK\r\n\r\n"), Err(MessageError::Version));
        for line in [
            "OPTIONS * HTTP/1.1",
            "OPTIONS  * RTSP/1.0",
            "OPTIONS *",
            "options * RTSP/1.0",
            "OPTIONS a b RTSP/1.0",
            "",
            "OPTIONS * RTSP/x",
        ] {
            assert_eq!(parse(&format!("{line}\r\n\r\n")), Err(MessageError::StartLine), "{line}");
        }
    }

    #[test]
    fn hostile_27_a_content_length_is_digits_only_and_one_value() {
        assert_eq!(with("Content-Length: 5").map(|(_, n)| n), Ok(5));
        assert_eq!(with("Content-Length: 5\r\ncontent-length: 5").map(|(_, n)| n), Ok(5));
        for value in ["-1", "+5", "5 5", "0x5", "", "5,5", "5;", "1e3"] {
            assert_eq!(with(&format!("Content-Length: {value}")), Err(MessageError::ContentLength), "{value:?}");
        }
        assert_eq!(with("Content-Length: 4\r\nContent-Length: 0"), Err(MessageError::ContentLength));
        for value in ["131073", "18446744073709551615", "99999999999999999999"] {
            assert_eq!(with(&format!("Content-Length: {value}")), Err(MessageError::BodyTooLong), "{value}");
        }
        assert_eq!(with("Transfer-Encoding: chunked"), Err(MessageError::TransferEncoding));
    }

    #[test]
    fn hostile_28_what_could_be_read_in_two_ways_is_refused() {
        for header in ["X: a\0b", "X: a\rb", "X: a\r\n folded", "X: a\r\n\tfolded", "X : a", ": a", "X", "X: a\x0bb", "X: \x7f"] {
            assert_eq!(with(header), Err(MessageError::Header), "{header:?}");
        }
        for uri in ["rtsp://h/a\rb", "rtsp://h/a\0", "rtsp://h/\x07"] {
            assert_eq!(parse(&format!("OPTIONS {uri} RTSP/1.0\r\nCSeq: 1\r\n\r\n")), Err(MessageError::StartLine), "{uri:?}");
        }
        let (bare, _) = parse("OPTIONS * RTSP/1.0\nCSeq: 1\nSession: a\n\n").expect("LF ends a line");
        assert_eq!(bare.to_bytes(), b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\nSession: a\r\n\r\n");
    }

    #[test]
    fn nothing_that_is_written_can_end_its_line() {
        let mut message = Message::request("SETUP", b"rtsp://h/a\r\nX: y");
        message.headers.push("Session", "a\r\nX: y");
        message.headers.set("session", "b\0\n");
        assert_eq!(message.to_bytes(), b"SETUP rtsp://h/aX:y RTSP/1.0\r\nsession: b  \r\n\r\n");
        let answer = Message { start: Start::Response { code: 400, reason: b"a\r\nb".to_vec() }, ..message };
        assert!(answer.to_bytes().starts_with(b"RTSP/1.0 400 a  b\r\n"));
    }

    #[test]
    fn hostile_26_heads_have_bounds() {
        let many = "A: b\r\n".repeat(MAX_HEADERS);
        assert_eq!(with(&many), Err(MessageError::TooManyHeaders));
        assert_eq!(with(&format!("A: {}", "b".repeat(MAX_LINE))), Err(MessageError::LineTooLong));
        let long = format!("A: {}\r\n", "b".repeat(4000)).repeat(5);
        assert_eq!(with(&long), Err(MessageError::HeadTooLong));
    }

    #[test]
    fn hostile_30_a_cseq_is_one_number_of_ten_digits() {
        let cseq = |headers: &str| parse(&format!("OPTIONS * RTSP/1.0\r\n{headers}\r\n")).expect("a head").0.cseq();
        assert_eq!(cseq("CSeq: 9999999999\r\n"), Ok(9_999_999_999));
        for bad in ["", "CSeq: \r\n", "CSeq: 10000000000\r\n", "CSeq: 1e3\r\n", "CSeq: -1\r\n", "CSeq: 1\r\nCSeq: 1\r\n"] {
            assert_eq!(cseq(bad), Err(MessageError::CSeq), "{bad:?}");
        }
    }
}
