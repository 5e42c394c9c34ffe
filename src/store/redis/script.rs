//! [`Script`]: Lua files and their hash, computed once.

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

    /// The same for another number of keys.
    pub(super) fn over(&self, keys: u32) -> Self {
        Self { text: self.text, hash: self.hash.clone(), keys }
    }
}

/// The first line, which says what the server is to know of a script, then the files in their order.
macro_rules! script {
    ($name:ident, $first:literal, [$($file:literal),+], $keys:literal) => {
        pub(super) static $name: LazyLock<Script> = LazyLock::new(|| {
            Script::new(concat!($first, "\n", $(include_str!(concat!("scripts/", $file))),+), $keys)
        });
    };
}

script!(ACQUIRE, "#!lua", ["common.lua", "tools.lua", "acquire.lua"], 2);
script!(EXTEND, "#!lua flags=allow-oom", ["common.lua", "extend.lua"], 2);
script!(RELEASE, "#!lua flags=allow-oom", ["common.lua", "tools.lua", "ending.lua", "release.lua"], 2);
script!(
    SWEEP,
    "#!lua flags=allow-oom",
    ["common.lua", "tools.lua", "sweep.lua", "ending.lua", "release.lua"],
    2
);
script!(HAND_OVER, "#!lua flags=allow-oom", ["common.lua", "tools.lua", "ending.lua", "hand_over.lua"], 2);
script!(QUEUE, "#!lua", ["common.lua", "tools.lua", "queue.lua"], 2);
script!(LEAVE, "#!lua flags=allow-oom", ["common.lua", "tools.lua", "leave.lua"], 2);
script!(FORCE_RELEASE, "#!lua flags=allow-oom", ["common.lua", "tools.lua", "force_release.lua"], 2);
script!(RESTORE, "#!lua", ["common.lua", "tools.lua", "restore.lua"], 2);
script!(LOOK, "#!lua flags=no-writes", ["common.lua", "look.lua"], 2);
script!(INSPECT, "#!lua flags=no-writes", ["common.lua", "inspect.lua"], 2);
script!(HISTORY, "#!lua flags=no-writes", ["history.lua"], 1);
script!(PROBE, "#!lua", ["probe.lua"], 5);
script!(LIST, "#!lua flags=no-writes", ["list.lua"], 0);
