//! Where a RESP frame ends, and what command a request names.
//!
//! Just enough of RESP2 and RESP3 to cut a byte stream at the right places; nothing is decoded that nobody asks for.
//! See <https://redis.io/docs/latest/develop/reference/protocol-spec/>.

/// The stream is not RESP (TLS, say): from here on its bytes can only be passed as they come.
#[derive(Debug, PartialEq, Eq)]
pub struct NotResp;

/// One request as it came over the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    frame: Vec<u8>,
    args: Vec<Vec<u8>>,
}

impl Request {
    pub fn new(frame: Vec<u8>) -> Self {
        let args = args(&frame);
        Self { frame, args }
    }

    /// The first word in upper case; empty for a frame without words.
    pub fn name(&self) -> String {
        self.args.first().map(|word| String::from_utf8_lossy(word).to_uppercase()).unwrap_or_default()
    }

    /// The words of the request, lossy where they are not UTF-8.
    pub fn words(&self) -> Vec<String> {
        self.args.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect()
    }

    pub fn contains(&self, text: &str) -> bool {
        self.frame.windows(text.len().max(1)).any(|window| window == text.as_bytes())
    }

    pub fn frame(&self) -> &[u8] {
        &self.frame
    }
}

/// Splits off the first whole frame of `buffer`; `None` if there is no whole one yet.
pub fn take_frame(buffer: &mut Vec<u8>) -> Result<Option<Vec<u8>>, NotResp> {
    let Some(length) = frame_len(buffer)? else { return Ok(None) };
    let rest = buffer.split_off(length);
    Ok(Some(std::mem::replace(buffer, rest)))
}

/// The length of the first frame in `bytes`; `None` if it is not complete.
pub fn frame_len(bytes: &[u8]) -> Result<Option<usize>, NotResp> {
    let mut at = 0;
    let mut missing: u64 = 1;
    while missing > 0 {
        let Some(&kind) = bytes.get(at) else { return Ok(None) };
        let Some(end) = line_end(bytes, at) else {
            return if is_kind(kind) || kind.is_ascii_alphabetic() { Ok(None) } else { Err(NotResp) };
        };
        let count = || number(&bytes[at + 1..end]);
        missing -= 1;
        let mut next = end;
        match kind {
            b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => {}
            // Length, bytes, CRLF; -1 is the null of RESP2.
            b'$' | b'=' | b'!' => {
                if let Some(length) = count()? {
                    let length = usize::try_from(length).map_err(|_| NotResp)?;
                    next = end.checked_add(length).and_then(|at| at.checked_add(2)).ok_or(NotResp)?;
                }
            }
            b'*' | b'~' | b'>' => missing = more(missing, count()?, 1, 0)?,
            b'%' => missing = more(missing, count()?, 2, 0)?,
            // Attributes stand before the value that they describe.
            b'|' => missing = more(missing, count()?, 2, 1)?,
            // An inline command is a line of words.
            _ if kind.is_ascii_alphabetic() && at == 0 => {}
            _ => return Err(NotResp),
        }
        at = next;
    }
    Ok((at <= bytes.len()).then_some(at))
}

/// Whether a frame from the server answers nothing: a push of RESP3, or a published message in the shape of RESP2.
pub fn is_push(frame: &[u8]) -> bool {
    const PUBLISHED: [&[u8]; 9] = [
        b"subscribe",
        b"unsubscribe",
        b"psubscribe",
        b"punsubscribe",
        b"ssubscribe",
        b"sunsubscribe",
        b"message",
        b"pmessage",
        b"smessage",
    ];
    match frame.first() {
        Some(b'>') => true,
        Some(b'*') => args(frame).first().is_some_and(|word| PUBLISHED.contains(&word.as_slice())),
        _ => false,
    }
}

/// Whether the answer to a command comes as pushes, so that no reply is to be expected.
pub fn is_answered_by_push(name: &str) -> bool {
    matches!(
        name,
        "SUBSCRIBE" | "UNSUBSCRIBE" | "PSUBSCRIBE" | "PUNSUBSCRIBE" | "SSUBSCRIBE" | "SUNSUBSCRIBE"
    )
}

/// The leading bulk strings of an array, or the words of an inline command.
fn args(frame: &[u8]) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    if frame.first() != Some(&b'*') {
        let line = frame.split(|byte| byte.is_ascii_whitespace());
        words.extend(line.filter(|word| !word.is_empty()).map(<[u8]>::to_vec));
        return words;
    }
    let mut at = line_end(frame, 0).unwrap_or(frame.len());
    while frame.get(at) == Some(&b'$') {
        let Some(end) = line_end(frame, at) else { break };
        let Ok(Some(length)) = number(&frame[at + 1..end]) else { break };
        let Ok(length) = usize::try_from(length) else { break };
        let Some(word) = end.checked_add(length).and_then(|word_end| frame.get(end..word_end)) else { break };
        words.push(word.to_vec());
        at = end + length + 2;
    }
    words
}

/// The index behind the line that starts at `at`.
fn line_end(bytes: &[u8], at: usize) -> Option<usize> {
    let line = bytes.get(at..)?;
    line.iter().position(|byte| *byte == b'\n').map(|newline| at + newline + 1)
}

fn is_kind(byte: u8) -> bool {
    b"+-:_,#($=!*~>%|".contains(&byte)
}

/// The number on a header line; `None` for -1.
fn number(line: &[u8]) -> Result<Option<u64>, NotResp> {
    let text = std::str::from_utf8(line).map_err(|_| NotResp)?.trim_end();
    if text == "-1" {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| NotResp)
}

/// `missing` frames, and `count` × `each` + `extra` more.
fn more(missing: u64, count: Option<u64>, each: u64, extra: u64) -> Result<u64, NotResp> {
    let members = count.unwrap_or(0).checked_mul(each).and_then(|members| members.checked_add(extra));
    members.and_then(|members| missing.checked_add(members)).ok_or(NotResp)
}
