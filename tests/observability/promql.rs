//! As much of PromQL as it takes to know which series an expression reads, and how.

/// What an expression reads and what it keeps.
#[derive(Debug, Default)]
pub(crate) struct Expression {
    pub(crate) selectors: Vec<Selector>,
    /// Every label in a `by`, `on` or `group_left`.
    pub(crate) grouping: Vec<String>,
}

/// One selector, such as `rate(name{label="value"}[5m])`.
#[derive(Debug, PartialEq)]
pub(crate) struct Selector {
    pub(crate) name: String,
    /// Label, operator, value.
    pub(crate) matchers: Vec<(String, String, String)>,
    pub(crate) has_range: bool,
    /// The function or aggregation around it, nearest first; a bare parenthesis is empty.
    pub(crate) inside: Vec<String>,
}

impl Selector {
    pub(crate) fn function(&self) -> &str {
        self.inside.first().map_or("", String::as_str)
    }

    pub(crate) fn matcher(&self, label: &str) -> Option<(&str, &str)> {
        let found = self.matchers.iter().find(|(name, ..)| name == label);
        found.map(|(_, operator, value)| (operator.as_str(), value.as_str()))
    }
}

/// Reads an expression.
///
/// # Panics
/// On anything that it does not know, so that nothing is overlooked.
pub(crate) fn parse(text: &str) -> Expression {
    let mut reader = Reader { rest: text };
    let mut found = Expression::default();
    let mut inside: Vec<String> = Vec::new();
    // The last word, until it is clear whether it was a function.
    let mut word: Option<&str> = None;
    loop {
        reader.skip_space();
        let Some(next) = reader.rest.chars().next() else { break };
        if is_word(next) && !next.is_ascii_digit() {
            let name = reader.word();
            match name {
                "by" | "on" | "ignoring" | "without" | "group_left" | "group_right" => {
                    found.grouping.extend(reader.labels());
                }
                "and" | "or" | "unless" | "bool" => {}
                // What follows is a time.
                "offset" => {
                    reader.skip_space();
                    reader.word();
                }
                _ if reader.next_is('(') || reader.next_is_clause() => word = Some(name),
                _ => found.selectors.push(reader.selector(name, &inside)),
            }
            continue;
        }
        match next {
            '(' => inside.insert(0, word.take().unwrap_or_default().to_owned()),
            ')' => drop(inside.remove(0)),
            '0'..='9' | '.' | '+' | '-' | '*' | '/' | '<' | '>' | '=' | '!' | ',' => {}
            other => panic!("{other:?} is not understood in {text}"),
        }
        reader.rest = &reader.rest[next.len_utf8()..];
    }
    assert!(inside.is_empty(), "a parenthesis is open in {text}");
    found
}

fn is_word(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_' || letter == ':'
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn word(&mut self) -> &'a str {
        let end = self.rest.find(|letter| !is_word(letter)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn next_is(&self, wanted: char) -> bool {
        self.rest.trim_start().starts_with(wanted)
    }

    /// `sum by (…) (…)`: the clause stands between the word and its parenthesis.
    fn next_is_clause(&self) -> bool {
        let next = Reader { rest: self.rest.trim_start() }.word();
        matches!(next, "by" | "without")
    }

    /// `(a, b)`
    fn labels(&mut self) -> Vec<String> {
        self.skip_space();
        let Some((list, rest)) = self.rest.strip_prefix('(').and_then(|list| list.split_once(')')) else {
            return Vec::new();
        };
        self.rest = rest;
        list.split(',').map(|label| label.trim().to_owned()).filter(|label| !label.is_empty()).collect()
    }

    /// What follows a name: `{a="b"}[5m]`, both optional.
    fn selector(&mut self, name: &str, inside: &[String]) -> Selector {
        let mut matchers = Vec::new();
        if let Some(rest) = self.rest.strip_prefix('{') {
            self.rest = rest;
            loop {
                self.rest = self.rest.trim_start_matches([',', ' ', '\n']);
                if let Some(rest) = self.rest.strip_prefix('}') {
                    self.rest = rest;
                    break;
                }
                matchers.push(self.matcher());
            }
        }
        let range = self.rest.strip_prefix('[').and_then(|range| range.split_once(']'));
        if let Some((_, rest)) = range {
            self.rest = rest;
        }
        Selector { name: name.to_owned(), matchers, has_range: range.is_some(), inside: inside.to_vec() }
    }

    /// `a=~"b"`
    fn matcher(&mut self) -> (String, String, String) {
        let label = self.word().to_owned();
        let Some((operator, rest)) = self.rest.split_once('"') else { panic!("no value at {}", self.rest) };
        let mut value = String::new();
        let mut letters = rest.char_indices();
        while let Some((place, letter)) = letters.next() {
            match letter {
                '"' => {
                    self.rest = &rest[place + 1..];
                    return (label, operator.trim().to_owned(), value);
                }
                '\\' => value.extend(letters.next().map(|(_, escaped)| escaped)),
                _ => value.push(letter),
            }
        }
        panic!("a value does not end: {rest}")
    }
}
