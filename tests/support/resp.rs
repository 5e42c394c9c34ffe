//! A server that says what the test wants it to say.
//!
//! For answers that a real Redis gives only in a bad state: `-LOADING`, `-MISCONF`, silence, half a reply. Everything
//! that a client says while it connects is answered like a healthy Redis 7.0.15 would. It runs on a thread of its own.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

use super::frame::{Request, take_frame};

/// Between the packets of an answer that comes byte by byte.
const PACE: Duration = Duration::from_millis(1);

/// A scripted server on a port of 127.0.0.1; drop closes everything.
#[derive(Debug)]
pub struct ScriptedServer {
    port: u16,
    script: Arc<Mutex<Script>>,
    runtime: Option<Runtime>,
}

/// What a server sends, and whether it hangs up afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    bytes: Vec<u8>,
    close: bool,
    is_slow: bool,
}

/// Answers by command (`EVALSHA`) or by command and subcommand (`CONFIG GET`).
#[derive(Debug, Default)]
struct Script {
    once: BTreeMap<String, VecDeque<Answer>>,
    always: BTreeMap<String, Answer>,
    greeting: Option<Answer>,
    conversation: Vec<Vec<String>>,
    connections: usize,
}

impl ScriptedServer {
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("scripted-server")
            .enable_all()
            .build()
            .expect("a thread can be started");
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port can be bound");
        listener.set_nonblocking(true).expect("a listener can be non-blocking");
        let port = listener.local_addr().expect("a bound listener has an address").port();
        let script = Arc::new(Mutex::default());
        let listener = {
            let _inside = runtime.enter();
            TcpListener::from_std(listener).expect("the runtime takes the listener")
        };
        runtime.spawn(accept(listener, Arc::clone(&script)));
        Self { port, script, runtime: Some(runtime) }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// From now on `command` gets `answer`. Upper case; a subcommand goes before its command alone.
    pub fn on(&self, command: &str, answer: Answer) -> &Self {
        lock(&self.script).always.insert(command.to_uppercase(), answer);
        self
    }

    /// The next time `command` gets `answer`, before anything that [`on`](Self::on) said. Several queue up.
    pub fn once(&self, command: &str, answer: Answer) -> &Self {
        lock(&self.script).once.entry(command.to_uppercase()).or_default().push_back(answer);
        self
    }

    /// What new connections get before they ask anything, such as an error and a hang-up.
    pub fn greet(&self, answer: Answer) -> &Self {
        lock(&self.script).greeting = Some(answer);
        self
    }

    /// Forgets all that it was told; what it heard stays.
    pub fn heal(&self) {
        let mut script = lock(&self.script);
        script.once.clear();
        script.always.clear();
        script.greeting = None;
    }

    /// All requests in the order of their arrival, word by word.
    pub fn conversation(&self) -> Vec<Vec<String>> {
        lock(&self.script).conversation.clone()
    }

    /// How many requests named `command` arrived.
    pub fn requests(&self, command: &str) -> usize {
        let script = lock(&self.script);
        script.conversation.iter().filter(|words| words[0].eq_ignore_ascii_case(command)).count()
    }

    pub fn connections_opened(&self) -> usize {
        lock(&self.script).connections
    }
}

impl Drop for ScriptedServer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Answer {
    /// A line as it stands in the protocol: `-LOADING …`, `+OK`, `:1`.
    pub fn line(line: &str) -> Self {
        Self::raw(format!("{line}\r\n"))
    }

    pub fn bulk(text: &str) -> Self {
        Self::raw(format!("${}\r\n{text}\r\n", text.len()))
    }

    /// The null of RESP2, which RESP3 clients understand as well.
    pub fn null() -> Self {
        Self::raw("$-1\r\n")
    }

    pub fn array(items: impl IntoIterator<Item = Answer>) -> Self {
        let items: Vec<_> = items.into_iter().map(|item| item.bytes).collect();
        let mut bytes = format!("*{}\r\n", items.len()).into_bytes();
        bytes.extend(items.concat());
        Self::raw(bytes)
    }

    /// Bytes as they are: half a reply, or nonsense.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), close: false, is_slow: false }
    }

    /// Nothing, ever; the connection stays open.
    pub fn silence() -> Self {
        Self::raw("")
    }

    /// Nothing, and the end of the connection.
    pub fn close() -> Self {
        Self::silence().then_close()
    }

    #[must_use]
    pub fn then_close(mut self) -> Self {
        self.close = true;
        self
    }

    /// Each byte comes in a packet of its own, 1 ms after the last.
    #[must_use]
    pub fn byte_by_byte(mut self) -> Self {
        self.is_slow = true;
        self
    }

    /// The first half, and the end of the connection.
    #[must_use]
    pub fn cut(mut self) -> Self {
        self.bytes.truncate(self.bytes.len() / 2);
        self.then_close()
    }
}

impl Script {
    fn answer(&mut self, request: &Request) -> Answer {
        let mut words = request.words();
        words.resize_with(words.len().max(1), String::new);
        let name = request.name();
        let full = words.get(1).map(|second| format!("{name} {}", second.to_uppercase()));
        let scripted = full.iter().chain([&name]).find_map(|key| {
            let queued = self.once.get_mut(key).and_then(VecDeque::pop_front);
            queued.or_else(|| self.always.get(key).cloned())
        });
        let answer = scripted.unwrap_or_else(|| healthy(&name, &words));
        self.conversation.push(words);
        answer
    }
}

fn lock(script: &Mutex<Script>) -> MutexGuard<'_, Script> {
    script.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, script: Arc<Mutex<Script>>) {
    while let Ok((client, _)) = listener.accept().await {
        lock(&script).connections += 1;
        tokio::spawn(converse(client, script.clone()));
    }
}

async fn converse(mut client: TcpStream, script: Arc<Mutex<Script>>) {
    let _ = client.set_nodelay(true);
    let greeting = lock(&script).greeting.clone();
    if let Some(greeting) = greeting
        && !say(&mut client, greeting).await
    {
        return;
    }
    let mut buffer = Vec::new();
    while client.read_buf(&mut buffer).await.is_ok_and(|read| read > 0) {
        while let Ok(Some(frame)) = take_frame(&mut buffer) {
            let answer = lock(&script).answer(&Request::new(frame));
            if !say(&mut client, answer).await {
                return;
            }
        }
    }
}

/// False when the conversation is over.
async fn say(client: &mut TcpStream, answer: Answer) -> bool {
    let packet = if answer.is_slow { 1 } else { answer.bytes.len().max(1) };
    let mut said = true;
    for packet in answer.bytes.chunks(packet) {
        said &= client.write_all(packet).await.is_ok();
        if answer.is_slow {
            tokio::time::sleep(PACE).await;
        }
    }
    if answer.close {
        let _ = client.shutdown().await;
    }
    said && !answer.close
}

/// What a healthy, empty primary answers to the commands of a handshake and of a health check.
fn healthy(name: &str, words: &[String]) -> Answer {
    let word = |at: usize| words.get(at).map_or("", String::as_str);
    match name {
        "PING" => Answer::line("+PONG"),
        "AUTH" | "SELECT" | "RESET" => Answer::line("+OK"),
        "HELLO" => hello(word(1)),
        "CLIENT" if word(1).eq_ignore_ascii_case("ID") => Answer::line(":1"),
        "CLIENT" => Answer::line("+OK"),
        "INFO" => Answer::bulk(INFO),
        "ROLE" => Answer::array([Answer::bulk("master"), Answer::line(":0"), Answer::array([])]),
        "CONFIG" => Answer::array([]),
        "TIME" => time(),
        "SUBSCRIBE" | "PSUBSCRIBE" | "SSUBSCRIBE" => subscribed(&name.to_lowercase(), &words[1..]),
        _ => Answer::line(&format!("-ERR unknown command '{name}': the script has no answer for it")),
    }
}

fn hello(version: &str) -> Answer {
    let fields = [
        ("server", Answer::bulk("redis")),
        ("version", Answer::bulk("7.0.15")),
        ("proto", Answer::line(if version == "3" { ":3" } else { ":2" })),
        ("id", Answer::line(":1")),
        ("mode", Answer::bulk("standalone")),
        ("role", Answer::bulk("master")),
        ("modules", Answer::array([])),
    ];
    let header =
        if version == "3" { format!("%{}\r\n", fields.len()) } else { format!("*{}\r\n", fields.len() * 2) };
    let pairs = fields.into_iter().flat_map(|(field, value)| [Answer::bulk(field).bytes, value.bytes]);
    Answer::raw([header.into_bytes()].into_iter().chain(pairs).collect::<Vec<_>>().concat())
}

fn time() -> Answer {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Answer::array([Answer::bulk(&now.as_secs().to_string()), Answer::bulk(&now.subsec_micros().to_string())])
}

/// Confirmations as pushes: scripted subscribers speak RESP3.
fn subscribed(kind: &str, channels: &[String]) -> Answer {
    let mut bytes = Vec::new();
    for (index, channel) in channels.iter().enumerate() {
        bytes.extend(b">3\r\n");
        bytes.extend(Answer::bulk(kind).bytes);
        bytes.extend(Answer::bulk(channel).bytes);
        bytes.extend(Answer::line(&format!(":{}", index + 1)).bytes);
    }
    Answer::raw(bytes)
}

const INFO: &str = "# Server\r\n\
    redis_version:7.0.15\r\n\
    redis_mode:standalone\r\n\
    run_id:0123456789abcdef0123456789abcdef01234567\r\n\
    uptime_in_seconds:86400\r\n\
    # Clients\r\n\
    connected_clients:1\r\n\
    maxclients:10000\r\n\
    # Memory\r\n\
    maxmemory:0\r\n\
    maxmemory_policy:noeviction\r\n\
    # Persistence\r\n\
    loading:0\r\n\
    aof_enabled:0\r\n\
    rdb_last_bgsave_status:ok\r\n\
    # Replication\r\n\
    role:master\r\n\
    connected_slaves:0\r\n";
