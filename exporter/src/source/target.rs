//! [`ServiceSpec`] and [`Service`]: which snapshots are read, and what each source is called.
//!
//! A name becomes the label `service`, so it should outlive a restart: sockets that are named for a process id make new
//! series with each start, and one that a killed process left behind is a service that is down.

use std::{
    collections::BTreeSet,
    fmt,
    net::SocketAddr,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
    str::FromStr,
};

/// More services than this beside one exporter are a mistake of a pattern.
pub(crate) const MAX_SERVICES: usize = 16;

/// One value of `--service`: `[NAME=]unix:PATH`, `[NAME=]http://127.0.0.1:PORT`, or a pattern such as
/// `unix:/run/spool/*.sock`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSpec(Spec);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Spec {
    One(Service),
    /// Looked up at each scrape, so that services come and go without a restart.
    Pattern(String),
}

/// One source with the name that its metrics carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) address: Address,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    Unix(PathBuf),
    Http(SocketAddr),
}

/// What the specs stand for now.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Listing {
    pub(crate) services: Vec<Service>,
    /// Matches that have a name that is taken, or come after the [`MAX_SERVICES`]th.
    pub(crate) left_out: usize,
}

impl ServiceSpec {
    /// The name, unless the spec is a pattern.
    pub fn name(&self) -> Option<&str> {
        match &self.0 {
            Spec::One(service) => Some(&service.name),
            Spec::Pattern(_) => None,
        }
    }
}

impl FromStr for ServiceSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const RIGHT: &str = "[NAME=]unix:PATH or [NAME=]http://127.0.0.1:PORT is";
        let is_place = |text: &str| text.starts_with("unix:") || text.starts_with("http");
        let (name, place) = match text.split_once('=') {
            Some((name, place)) if !is_place(text) => (Some(checked_name(name)?), place),
            _ => (None, text),
        };
        if let Some(path) = place.strip_prefix("unix:") {
            if path.is_empty() {
                return Err(format!("names no socket; {RIGHT}"));
            }
            if path.contains(['*', '?', '[']) {
                glob::Pattern::new(path).map_err(|error| format!("not a pattern ({error})"))?;
                return match name {
                    Some(_) => {
                        Err("one name cannot stand for all that a pattern finds; leave NAME= out".to_owned())
                    }
                    None => Ok(Self(Spec::Pattern(path.to_owned()))),
                };
            }
            let path = PathBuf::from(path);
            let name = name.unwrap_or_else(|| file_stem(&path));
            return Ok(Self(Spec::One(Service { name: checked_name(&name)?, address: Address::Unix(path) })));
        }
        let address = place.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
        match address.and_then(|address| address.parse::<SocketAddr>().ok()) {
            Some(address) if !address.ip().is_loopback() => {
                Err(format!("a snapshot never leaves its machine; {RIGHT}"))
            }
            Some(address) if address.port() == 0 => Err(format!("names no port; {RIGHT}")),
            Some(address) => {
                let name = name.unwrap_or_else(|| address.to_string());
                Ok(Self(Spec::One(Service { name, address: Address::Http(address) })))
            }
            None => Err(format!("not the place of a snapshot; {RIGHT}")),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Http(address) => write!(f, "http://{address}"),
        }
    }
}

/// What the specs stand for now. Blocks: it reads directories.
pub(crate) fn list(specs: &[ServiceSpec]) -> Listing {
    let mut listing = Listing::default();
    let mut names = BTreeSet::new();
    for spec in specs {
        let found = match &spec.0 {
            Spec::One(service) => vec![service.clone()],
            Spec::Pattern(pattern) => sockets(pattern),
        };
        for service in found {
            if listing.services.len() < MAX_SERVICES && names.insert(service.name.clone()) {
                listing.services.push(service);
            } else {
                listing.left_out += 1;
            }
        }
    }
    listing
}

/// The sockets that a pattern finds, in the order of their names.
fn sockets(pattern: &str) -> Vec<Service> {
    // The pattern was tried when the configuration was read; a folder that cannot be read has no sockets for us.
    let Ok(paths) = glob::glob(pattern) else { return Vec::new() };
    let is_socket = |path: &PathBuf| std::fs::metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    let named = |path: PathBuf| {
        let name = checked_name(&file_stem(&path)).ok()?;
        Some(Service { name, address: Address::Unix(path) })
    };
    paths.filter_map(Result::ok).filter(is_socket).filter_map(named).collect()
}

fn file_stem(path: &Path) -> String {
    path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}

fn checked_name(name: &str) -> Result<String, String> {
    if (1..=64).contains(&name.len()) && !name.chars().any(char::is_control) {
        Ok(name.to_owned())
    } else {
        Err("a name has 1 to 64 bytes and no control characters".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn one(name: &str, address: Address) -> Result<ServiceSpec, String> {
        Ok(ServiceSpec(Spec::One(Service { name: name.into(), address })))
    }

    #[test]
    fn a_source_is_named_by_its_user_or_by_its_place() {
        let unix = || Address::Unix("/run/spool/picker.sock".into());
        let http = || Address::Http(SocketAddr::from(([127, 0, 0, 1], 9000)));
        assert_eq!("unix:/run/spool/picker.sock".parse(), one("picker", unix()));
        assert_eq!("Halle 3=unix:/run/spool/picker.sock".parse(), one("Halle 3", unix()));
        assert_eq!("http://127.0.0.1:9000/".parse(), one("127.0.0.1:9000", http()));
        assert_eq!("picker=http://127.0.0.1:9000".parse(), one("picker", http()));
        let odd = Address::Unix("/run/a=b.sock".into());
        assert_eq!("unix:/run/a=b.sock".parse(), one("a=b", odd));
    }

    #[test]
    fn other_places_are_refused() {
        for text in [
            "",
            "unix:",
            "=unix:/a.sock",
            "unix:/",
            "/run/picker.sock",
            "http://10.0.0.1:80",
            "http://0.0.0.0:80",
            "http://localhost:80",
            "http://127.0.0.1",
            "http://127.0.0.1:0",
            "http://127.0.0.1:80/other",
            "https://127.0.0.1:80",
            "name=unix:/run/*.sock",
            "unix:/run/[.sock",
            "na\nme=unix:/run/a.sock",
        ] {
            let spec = text.parse::<ServiceSpec>();
            assert!(spec.is_err(), "{text:?} became {spec:?}");
        }
    }

    #[test]
    fn a_pattern_finds_sockets_only_and_no_name_twice() {
        let dir = tempfile::tempdir().unwrap();
        let _sockets: Vec<_> =
            ["b.sock", "a.sock"].map(|name| UnixListener::bind(dir.path().join(name)).unwrap()).into();
        std::fs::write(dir.path().join("c.sock"), "no socket").unwrap();
        let pattern = format!("unix:{}/*.sock", dir.path().display());
        let specs = [pattern.parse().unwrap(), "a=http://127.0.0.1:9".parse().unwrap()];
        let listing = list(&specs);
        let names: Vec<_> = listing.services.iter().map(|service| service.name.as_str()).collect();
        assert_eq!((names, listing.left_out), (vec!["a", "b"], 1));
    }
}
