//! [`Script`]: a Lua file and its hash, computed once.

use std::sync::LazyLock;

pub(super) struct Script {
    pub(super) text: &'static str,
    pub(super) hash: String,
    /// How many of its arguments are keys.
    pub(super) keys: u32,
}

impl Script {
    fn new(text: &'static str, keys: u32) -> Self {
        let hash = redis::Script::new(text).get_hash().to_owned();
        Self { text, hash, keys }
    }
}

macro_rules! script {
    ($name:ident, $file:literal, $keys:literal) => {
        pub(super) static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new(include_str!(concat!("scripts/", $file)), $keys));
    };
}

script!(ACQUIRE, "acquire.lua", 2);
script!(EXTEND, "extend.lua", 2);
script!(RELEASE, "release.lua", 2);
script!(FORCE_RELEASE, "force_release.lua", 2);
script!(INSPECT, "inspect.lua", 2);
script!(PROBE, "probe.lua", 2);
script!(LIST, "list.lua", 0);
