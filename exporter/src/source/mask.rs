//! [`mask`]: a text that may hold a URL, without the URL's secrets.

/// Replaces the user part and the query of every URL in `text` by `***`.
///
/// Works on text that does not parse, because that is where it is needed: in the error about it. It masks too much
/// rather than too little: with an `@` in the query, everything after the scheme goes.
pub fn mask(text: &str) -> String {
    // Words, because an error text has other words around the URL. A password with a space in it would have to be
    // percent-encoded in a URL; for one that is not, see the last word with an `@`.
    let last_at = text.rfind('@');
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        shown.push_str(before);
        let end_of_word = after.find(char::is_whitespace).unwrap_or(after.len());
        let start = text.len() - after.len();
        // An unencoded space in a password: the word goes on until the `@`.
        let end = match last_at {
            Some(at) if at >= start + end_of_word && !after[..end_of_word].contains('@') => {
                let tail = &text[at..];
                at - start + tail.find(char::is_whitespace).unwrap_or(tail.len())
            }
            _ => end_of_word,
        };
        let (url, tail) = after.split_at(end);
        push_masked(&mut shown, url);
        rest = tail;
    }
    shown.push_str(rest);
    shown
}

/// What follows `://`.
fn push_masked(shown: &mut String, url: &str) {
    let (url, query) = match url.split_once('?') {
        Some((url, query)) => (url, Some(query)),
        None => (url, None),
    };
    if query.is_some_and(|query| query.contains('@')) {
        return shown.push_str("***");
    }
    match url.rsplit_once('@') {
        Some((_, host)) => {
            shown.push_str("***@");
            shown.push_str(host);
        }
        None => shown.push_str(url),
    }
    if query.is_some() {
        shown.push_str("?***");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_where_but_not_who() {
        for (text, shown) in [
            ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
            ("redis://:s3cret@127.0.0.1:6379", "redis://***@127.0.0.1:6379"),
            ("redis://ann:s3cret@redis.example/1", "redis://***@redis.example/1"),
            ("redis://:s3@cret@redis", "redis://***@redis"),
            ("redis://:s3/c#ret@redis", "redis://***@redis"),
            ("redis://:s3?cret@redis", "redis://***"),
            ("redis://:s3 cret@redis is wrong", "redis://***@redis is wrong"),
            ("redis+unix:///run/redis.sock?pass=s3cret&db=1", "redis+unix:///run/redis.sock?***"),
            ("cannot use 'redis://:s3cret@redis', sorry", "cannot use 'redis://***@redis', sorry"),
            ("a http://x/ and redis://:s3cret@redis", "a http://***@redis"),
            ("no URL at all", "no URL at all"),
        ] {
            assert_eq!(mask(text), shown);
        }
    }
}
