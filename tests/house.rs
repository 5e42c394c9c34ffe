//! The house stands: every room has a floor, uses only rooms on its own floor or below, and rooms of a floor have no cycle.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The floors, from the ground up; design notes stand in `docs/architecture.md`.
const FLOORS: &[&[&str]] = &[
    &[
        "agenda",
        "buckets",
        "claim",
        "deferred",
        "endpoint",
        "error",
        "event",
        "fallback",
        "fault",
        "fence",
        "grant",
        "health",
        "held",
        "history",
        "holder",
        "lease",
        "lease_source",
        "lost",
        "mode",
        "outcome",
        "phase",
        "rate",
        "schedule",
        "stats",
        "sync",
        "tag",
        "text",
        "time",
        "token",
        "ttl",
    ],
    &["circuit", "limits", "meter", "node", "retry"],
    &["store"],
    &[
        "abandoned",
        "admission",
        "backlog",
        "config",
        "dependency",
        "hearing",
        "inner",
        "known",
        "lines",
        "roster",
        "server",
        "watch",
    ],
    &["attempt"],
    &["guard", "hub", "prober", "recovery", "renewal", "sweeper", "waiters"],
    &["builder", "compat", "locks", "metrics", "snapshot"],
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The source files below a folder, but for unit tests.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a source folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
            files.push(path);
        }
    }
    files
}

/// The text of a file without its unit tests.
fn text(path: &Path) -> String {
    let mut text = fs::read_to_string(path).expect("a source file");
    text.truncate(text.find("#[cfg(test)]\nmod tests").unwrap_or(text.len()));
    text
}

/// The code of a file: no comments, no unit tests.
fn code(path: &Path) -> String {
    text(path).lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The room that a file belongs to: the first module of its path; none for `lib.rs`.
fn room(path: &Path) -> Option<String> {
    let path = path.strip_prefix(root().join("src")).expect("below src");
    let first = path.components().next()?.as_os_str().to_str()?;
    let room = first.strip_suffix(".rs").unwrap_or(first);
    (room != "lib").then(|| room.to_owned())
}

/// All paths that a `use` tree after `crate::` names, one name deep: `{a::{b, c}, D}` gives a and D.
fn heads(tree: &str) -> Vec<String> {
    let mut names = Vec::new();
    let list = match tree.strip_prefix('{') {
        Some(list) => list,
        None => {
            let end = tree.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(tree.len());
            return vec![tree[..end].to_owned()];
        }
    };
    let (mut depth, mut start) = (0, 0);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                names.extend(heads(list[start..at].trim()));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// Where `lib.rs` gets each of its public names from.
fn exports() -> BTreeMap<String, String> {
    let lib = code(&root().join("src/lib.rs"));
    let mut exports = BTreeMap::new();
    for piece in lib.split("pub use ").skip(1) {
        let path = piece.split(';').next().expect("an end").split_whitespace().collect::<String>();
        let (from, names) = path.rsplit_once("::").expect("a path");
        let room = from.split("::").next().expect("a room");
        for name in names.trim_matches(['{', '}']).split(',').filter(|name| !name.is_empty()) {
            exports.insert(name.to_owned(), room.to_owned());
        }
    }
    exports
}

/// Which room uses which.
fn edges() -> BTreeSet<(String, String)> {
    let exports = exports();
    let mut edges = BTreeSet::new();
    for path in sources(&root().join("src")) {
        let Some(from) = room(&path) else { continue };
        for (at, _) in code(&path).match_indices("crate::") {
            let code = code(&path);
            for name in heads(&code[at + "crate::".len()..]) {
                let to = exports.get(&name).cloned().unwrap_or(name);
                if to != from {
                    edges.insert((from.clone(), to));
                }
            }
        }
    }
    edges
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

#[test]
fn every_room_has_a_floor_and_every_floor_its_rooms() {
    let rooms: BTreeSet<_> = sources(&root().join("src")).iter().filter_map(|path| room(path)).collect();
    let listed: BTreeSet<_> =
        FLOORS.iter().flat_map(|rooms| rooms.iter()).map(|room| (*room).to_owned()).collect();
    assert_eq!(rooms, listed);
}

#[test]
fn no_room_uses_one_above_it() {
    let edges = edges();
    assert!(edges.len() > 30, "the reader of the sources sees the edges: {edges:?}");
    for (from, to) in &edges {
        let (below, above) = (floor(to), floor(from));
        assert!(below.is_some(), "{from} uses {to}, which is no room");
        assert!(below <= above, "{from} (floor {above:?}) uses {to} (floor {below:?})");
    }
}

#[test]
fn rooms_of_one_floor_use_each_other_in_one_direction() {
    let mut edges: Vec<_> = edges().into_iter().filter(|(from, to)| floor(from) == floor(to)).collect();
    // Takes away, again and again, the rooms that use no other: what is left are cycles.
    loop {
        let using: BTreeSet<_> = edges.iter().map(|(from, _)| from.clone()).collect();
        let before = edges.len();
        edges.retain(|(_, to)| using.contains(to));
        if edges.len() == before {
            break;
        }
    }
    assert!(edges.is_empty(), "cycles: {edges:?}");
}

#[test]
fn only_the_cellar_names_the_client_library() {
    for path in sources(&root().join("src")) {
        let code = code(&path);
        let room = room(&path).unwrap_or_default();
        for (library, allowed) in [
            ("redis::", "store"),
            ("deadpool", "store"),
            ("prometheus::", "metrics compat"),
            ("failsafe::", "circuit"),
            ("backoff::", "compat"),
        ] {
            let named = code.match_indices(library).any(|(at, _)| {
                !code[..at].ends_with([':', '_']) && !code[..at].ends_with(char::is_alphanumeric)
            });
            assert!(!named || allowed.contains(&room), "{} names {library}", path.display());
        }
    }
}

/// A public function that is awaited, or whose answer is.
#[derive(Debug)]
struct Call {
    name: String,
    docs: Vec<String>,
    is_fallible: bool,
}

/// What a signature returns: what follows the arrow that stands in no bracket.
fn returned(signature: &str) -> &str {
    let (mut depth, mut before) = (0, ' ');
    for (at, c) in signature.char_indices() {
        match c {
            '>' if before == '-' && depth == 0 => return signature[at + 1..].trim(),
            '>' if before == '-' => {}
            '(' | '[' | '<' => depth += 1,
            ')' | ']' | '>' => depth -= 1,
            _ => {}
        }
        before = c;
    }
    ""
}

/// The types that can be awaited: calls with options, and futures.
fn awaited_types(folders: &[PathBuf]) -> BTreeSet<String> {
    let code: Vec<_> = folders.iter().flat_map(|folder| sources(folder)).map(|path| code(&path)).collect();
    let names = code.iter().flat_map(|code| code.split("Future for ").skip(1));
    names.map(|rest| heads(rest).remove(0)).collect()
}

/// The public calls of a file. What is `pub` can be reached from outside; a lint sees to that.
fn calls(path: &Path, awaited: &BTreeSet<String>) -> Vec<Call> {
    let text = text(path);
    let (mut calls, mut docs) = (Vec::new(), Vec::new());
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        if let Some(doc) = line.strip_prefix("///") {
            docs.push(doc.trim().to_owned());
        } else if line.starts_with("#[") {
            // Of several lines: to its end.
            let mut end = line;
            while !end.ends_with(']') {
                end = lines.next().expect("an attribute ends");
            }
        } else {
            let docs = std::mem::take(&mut docs);
            let Some((front, rest)) = line.split_once("fn ").filter(|_| line.starts_with("pub ")) else {
                continue;
            };
            let mut signature = rest.to_owned();
            while !signature.contains(['{', ';']) {
                signature.push(' ');
                signature.push_str(lines.next().expect("a signature ends"));
            }
            let answer = returned(signature.split(['{', ';']).next().unwrap_or_default());
            let answer = answer.split(" where ").next().unwrap_or_default();
            let head = answer.split('<').next().unwrap_or_default();
            let head = head.rsplit("::").next().unwrap_or_default();
            let is_builder = awaited.contains(head) || answer.contains("Future");
            if is_builder || front.contains("async ") {
                let name = heads(&signature).remove(0);
                let is_fallible = is_builder || head == "Result";
                calls.push(Call { name, docs, is_fallible });
            }
        }
    }
    calls
}

/// Whoever waits for something asks two questions: how does it fail, and what is left behind when nobody waits any more?
#[test]
fn every_public_call_says_how_it_fails_and_what_a_drop_leaves() {
    let folders = [root().join("src"), root().join("exporter/src")];
    let awaited = awaited_types(&folders);
    for builder in ["Acquire", "AcquireAll", "Connect", "Extend", "AcquireGuard", "Release"] {
        assert!(awaited.contains(builder), "the reader of the sources sees {builder}: {awaited:?}");
    }
    let (mut seen, mut missing) = (BTreeSet::new(), Vec::new());
    for path in folders.iter().flat_map(|folder| sources(folder)) {
        for Call { name, docs, is_fallible } in calls(&path, &awaited) {
            // A heading says something when a line of text follows it.
            let says = |heading: &str| {
                let at = docs.iter().position(|line| line == heading)?;
                docs.get(at + 1).filter(|line| !line.is_empty() && !line.starts_with('#'))?;
                Some(at)
            };
            let (errors, cancel_safety) = (says("# Errors"), says("# Cancel safety"));
            let place = format!("{name} in {}", path.display());
            if is_fallible && errors.is_none() {
                missing.push(format!("{place}: # Errors"));
            }
            if cancel_safety.is_none() {
                missing.push(format!("{place}: # Cancel safety"));
            }
            if errors.zip(cancel_safety).is_some_and(|(errors, cancel_safety)| errors > cancel_safety) {
                missing.push(format!("{place}: # Errors before # Cancel safety"));
            }
            seen.insert(name);
        }
    }
    assert!(missing.is_empty(), "missing: {missing:#?}");
    for name in
        ["connect", "acquire", "release_lease", "force_release", "settled", "protect", "next", "serve"]
    {
        assert!(seen.contains(name), "the reader of the sources sees {name}: {seen:?}");
    }
}

/// `futures_are_send_and_types_are_shared` asks the compiler; here it is asked for each of them.
#[test]
fn every_public_future_is_asked_to_be_send() {
    let folder = root().join("src");
    let awaited = awaited_types(std::slice::from_ref(&folder));
    let words = text(&root().join("tests/words.rs"));
    let asked = words.split("fn futures_are_send").nth(1).and_then(|rest| rest.split("\n}\n").next());
    let asked = asked.expect("the test is there");
    for call in sources(&folder).iter().flat_map(|path| calls(path, &awaited)) {
        let is_named = |line: &str| {
            ['.', ':', '('].iter().any(|before| line.contains(&format!("{before}{}(", call.name)))
        };
        let is_asked = asked.lines().any(|line| line.trim().starts_with("send(") && is_named(line));
        assert!(is_asked, "tests/words.rs does not ask whether the future of {} is Send", call.name);
    }
}

/// What a reader is promised about each top-level folder.
#[test]
fn every_folder_says_what_is_in_it() {
    for folder in ["benches", "docs", "examples", "exporter", "grafana", "scripts", "src", "tests"] {
        let page = fs::read_to_string(root().join(folder).join("README.md"));
        let page = page.unwrap_or_else(|_| panic!("{folder}/README.md is missing"));
        assert!(
            (6..=60).contains(&page.lines().count()),
            "{folder}/README.md has {} lines",
            page.lines().count()
        );
    }
}

/// Every relative link of every page leads to a file.
#[test]
fn links_lead_somewhere() {
    let mut pages = vec![root().join("README.md"), root().join("CHANGELOG.md")];
    let mut folders: Vec<_> =
        ["docs", "examples", "exporter", "grafana", "scripts", "src", "tests", "benches"]
            .map(|f| root().join(f))
            .into();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    for page in pages {
        let text = fs::read_to_string(&page).expect("a page");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or_default();
            let elsewhere = target.is_empty() || target.contains("://");
            let exists = || page.parent().is_some_and(|folder| folder.join(target).exists());
            assert!(elsewhere || exists(), "{}: {link} leads nowhere", page.display());
        }
    }
}

/// Each promise names the tests that show it, and they are there.
#[test]
fn every_guarantee_is_shown_by_a_test() {
    let page = fs::read_to_string(root().join("docs/guarantees.md")).expect("a page");
    let rows: Vec<_> = page.lines().filter(|line| line.starts_with("| ") && line.contains(". |")).collect();
    assert!(rows.len() > 20, "the reader sees the promises");
    for row in rows {
        let links: Vec<_> = row.split('[').skip(1).filter_map(|link| link.split_once("](../")).collect();
        assert!(!links.is_empty(), "no test shows: {row}");
        for (name, rest) in links {
            let path = rest.split(')').next().unwrap_or_default();
            let tests = fs::read_to_string(root().join(path)).expect("a file of tests");
            assert!(tests.contains(&format!("fn {name}(")), "{path} has no test {name}");
        }
    }
}
