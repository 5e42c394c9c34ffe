//! [`Token`] and [`RequestId`]: random names that make a repeated call recognisable; [`Process`]: one that makes a process
//! recognisable.

use std::{fmt, str::FromStr};

/// The secret of one acquisition: 128 random bits, the same through all repeats of one call.
///
/// Whoever repeats an acquire with its token finds out how the first try ended, without taking anything twice. It is never
/// printed: `Debug` hides it and there is no `Display`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(u128);

impl Token {
    /// Draws a new token from the operating system's random source.
    ///
    /// Where that source fails (it does not on a machine that has booted), the process's randomly seeded hasher stands in.
    pub fn random() -> Self {
        let mut bytes = [0; 16];
        fill(&mut bytes);
        Self(u128::from_ne_bytes(bytes))
    }

    /// Tells two grants apart where the token itself must not be kept: its first 53 bits.
    ///
    /// Not a secret: the 75 bits that it leaves out cannot be guessed. Two tokens share a fingerprint with a chance of 2^-53.
    /// Like a [`Fence`](crate::Fence) it survives JSON readers that know only doubles, and fits a `BIGINT` of SQL.
    pub fn fingerprint(self) -> u64 {
        (self.0 >> 75) as u64
    }

    /// A number from 0 to 1, even over all tokens.
    pub(crate) fn fraction(self) -> f64 {
        self.fingerprint() as f64 / (1_u64 << 53) as f64
    }

    /// The 22 characters that stand for the token in Redis.
    pub(crate) fn text(self) -> Text<22> {
        Text::of(self.0)
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        parse::<22>(text).map(Self)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// The name of one release call, the same through all its repeats: 54 random bits.
///
/// Redis remembers the last 3 of them for each tag, or the last 2 while it is held, so that a repeated release is answered as the
/// first one was until the tag has been granted three times since. The one that an
/// [`Ambiguous`](crate::ReleaseError::Ambiguous) release brings also says when the call was made: its repeat ends no lease that
/// was granted since.
#[derive(Debug, Clone, Copy)]
pub struct RequestId {
    id: u64,
    /// The server's clock when the call was made, in µs since 1970.
    made: Option<u64>,
}

impl RequestId {
    const LARGEST: u64 = (1 << 54) - 1;

    /// Draws a new request id, for a call that has yet to be made.
    pub fn random() -> Self {
        let mut bytes = [0; 8];
        fill(&mut bytes);
        Self { id: u64::from_ne_bytes(bytes) & Self::LARGEST, made: None }
    }

    pub(crate) fn text(self) -> Text<9> {
        Text::of(self.id.into())
    }

    pub(crate) fn made(self) -> Option<u64> {
        self.made
    }

    /// The id of a call that is made now; of a repeat, unchanged.
    pub(crate) fn stamped(self, now_micros: u64) -> Self {
        Self { made: self.made.or(Some(now_micros)), ..self }
    }
}

impl PartialEq for RequestId {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for RequestId {}

impl std::hash::Hash for RequestId {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

/// The name of one connect among all: 64 random bits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process(u64);

impl Process {
    pub(crate) fn random() -> Self {
        let mut bytes = [0; 8];
        fill(&mut bytes);
        Self(u64::from_ne_bytes(bytes))
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Text::<11>::of(self.0.into()).fmt(f)
    }
}

fn fill(bytes: &mut [u8]) {
    use std::hash::{BuildHasher, RandomState};
    if getrandom::fill(bytes).is_err() {
        for chunk in bytes.chunks_mut(8) {
            let word = RandomState::new().hash_one(0).to_ne_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

/// A random byte, for a delay that is not everybody's.
pub(crate) fn random_byte() -> u8 {
    let mut bytes = [0; 1];
    fill(&mut bytes);
    bytes[0]
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// A number in base 64 (the URL alphabet), `N` digits, without an allocation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Text<const N: usize>([u8; N]);

impl<const N: usize> Text<N> {
    fn of(mut number: u128) -> Self {
        let mut digits = [0; N];
        for digit in digits.iter_mut().rev() {
            *digit = ALPHABET[(number & 63) as usize];
            number >>= 6;
        }
        Self(digits)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl<const N: usize> fmt::Display for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.0).unwrap_or_default())
    }
}

fn parse<const N: usize>(text: &str) -> Option<u128> {
    if text.len() != N {
        return None;
    }
    text.bytes().try_fold(0_u128, |number, byte| {
        let digit = ALPHABET.iter().position(|&letter| letter == byte)?;
        Some((number << 6) | digit as u128)
    })
}

impl FromStr for RequestId {
    type Err = InvalidRequestId;

    fn from_str(text: &str) -> Result<Self, InvalidRequestId> {
        let (id, made) = match text.split_once('@') {
            Some((id, made)) => (id, Some(made.parse().map_err(|_| InvalidRequestId)?)),
            None => (text, None),
        };
        let id = parse::<9>(id).and_then(|number| u64::try_from(number).ok()).ok_or(InvalidRequestId)?;
        Ok(Self { id, made })
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text().fmt(f)?;
        match self.made {
            Some(made) => write!(f, "@{made}"),
            None => Ok(()),
        }
    }
}

/// As its text.
#[cfg(feature = "serde")]
impl serde::Serialize for RequestId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for RequestId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The text is not a request id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a request id; 9 characters of A-Z a-z 0-9 - _ are, also with @ and a number after them")]
pub struct InvalidRequestId;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_survives_its_text() {
        for token in [Token(0), Token(u128::MAX), Token::random()] {
            let text = token.text();
            let text = std::str::from_utf8(text.as_bytes()).unwrap();
            assert_eq!(Token::parse(text), Some(token));
        }
    }

    #[test]
    fn request_id_survives_its_text() {
        for id in [
            RequestId { id: 0, made: None },
            RequestId { id: RequestId::LARGEST, made: Some(u64::MAX) },
            RequestId::random(),
        ] {
            let read: RequestId = id.to_string().parse().unwrap();
            assert_eq!((read.id, read.made), (id.id, id.made));
        }
    }

    #[test]
    fn fingerprint_keeps_75_bits_secret() {
        assert_eq!(Token(u128::MAX).fingerprint(), (1 << 53) - 1);
        assert_eq!(Token((1 << 75) - 1).fingerprint(), 0);
        assert_ne!(Token::random().fingerprint(), Token::random().fingerprint());
    }

    #[test]
    fn token_hides_itself() {
        assert_eq!(format!("{:?}", Token::random()), "Token(…)");
    }
}
