use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use tokio::time::Instant;

use super::*;

fn sample() -> Snapshot {
    serde_json::from_str(include_str!("../../tests/fixtures/snapshot.json")).unwrap()
}

fn on_loopback() -> SnapshotServer {
    SnapshotServer::start(&"http://127.0.0.1:0".parse().unwrap(), sample).unwrap()
}

fn address(server: &SnapshotServer) -> SocketAddr {
    match server.local_endpoint() {
        SnapshotEndpoint::Http(address) => *address,
        SnapshotEndpoint::Unix(path) => panic!("{} is no address", path.display()),
    }
}

fn connect(server: &SnapshotServer) -> TcpStream {
    let stream = TcpStream::connect(address(server)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream
}

/// Sends a request and reads until the server closes.
fn ask(mut stream: impl Read + Write, request: &str) -> String {
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn get(stream: impl Read + Write) -> String {
    ask(stream, "GET /v1/snapshot HTTP/1.1\r\nhost: localhost\r\n\r\n")
}

/// How long it takes until the server closes the connection, with or without a last word.
fn until_closed(stream: &mut TcpStream) -> Duration {
    let begin = Instant::now();
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("it was not closed: {error}"),
        _ => begin.elapsed(),
    }
}

/// Tries again for a second.
fn soon(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(1), "not so within a second: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_answer_is_the_snapshot_as_json() {
    let server = on_loopback();
    let answer = get(connect(&server));
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("content-type: application/json"), "{head}");
    assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
    assert_eq!(serde_json::from_str::<Snapshot>(body).unwrap(), sample());
}

#[test]
fn other_paths_are_404_and_other_methods_405() {
    let server = on_loopback();
    for (request, status) in [
        ("GET / HTTP/1.1", "404"),
        ("GET /v1/snapshot/ HTTP/1.1", "404"),
        ("GET //v1/snapshot HTTP/1.1", "404"),
        ("DELETE /metrics HTTP/1.1", "404"),
        ("HEAD /v1/snapshot HTTP/1.1", "405"),
        ("DELETE /v1/snapshot HTTP/1.1", "405"),
        ("GET /v1/snapshot?x=1 HTTP/1.1", "200"),
    ] {
        let answer = ask(connect(&server), &format!("{request}\r\nhost: localhost\r\n\r\n"));
        assert_eq!(answer.get(9..12), Some(status), "{request}: {answer}");
    }
}

#[test]
fn a_body_is_not_waited_for() {
    let server = on_loopback();
    let begin = Instant::now();
    let mut stream = connect(&server);
    stream.write_all(b"POST /v1/snapshot HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n").unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 405");
    assert!(begin.elapsed() < Duration::from_millis(900), "{:?}", begin.elapsed());
}

#[test]
fn answers_while_every_worker_of_the_runtime_is_blocked() {
    const WORKERS: usize = 2;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).build().unwrap();
    let server = runtime.block_on(async { on_loopback() });
    let (blocked, freed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    for _ in 0..WORKERS {
        let (blocked, freed) = (blocked.clone(), freed.clone());
        runtime.spawn(async move {
            blocked.fetch_add(1, SeqCst);
            while !freed.load(SeqCst) {
                thread::sleep(Duration::from_millis(10));
            }
        });
    }
    soon("every worker is blocked", || blocked.load(SeqCst) == WORKERS);
    let starved = runtime.spawn(async {});

    let mut times = [Duration::ZERO; 20];
    for time in &mut times {
        let begin = Instant::now();
        assert!(get(connect(&server)).starts_with("HTTP/1.1 200 OK"));
        *time = begin.elapsed();
    }
    assert!(!starved.is_finished(), "the runtime was not starved, so nothing was shown");
    freed.store(true, SeqCst);

    times.sort();
    assert!(times[10] < Duration::from_millis(50), "{times:?}");
    assert!(times[19] < Duration::from_secs(1), "{times:?}");
}

#[test]
fn half_open_requests_are_closed() {
    let server = on_loopback();
    let (mut silent, mut half) = (connect(&server), connect(&server));
    half.write_all(b"GET /v1/snapshot HTTP/1.1\r\nhost: loc").unwrap();
    let mut drip = connect(&server);
    let dripping = thread::spawn(move || {
        let begin = Instant::now();
        // A byte now and then does not earn more time. The write fails once the other side has closed.
        while drip.write_all(b"x").is_ok() && begin.elapsed() < Duration::from_secs(4) {
            thread::sleep(Duration::from_millis(100));
        }
        begin.elapsed()
    });
    for stream in [&mut silent, &mut half] {
        let time = until_closed(stream);
        assert!(time < Duration::from_millis(2500), "{time:?}");
    }
    let time = dripping.join().unwrap();
    assert!(time < Duration::from_millis(2500), "{time:?}");
    assert!(get(connect(&server)).starts_with("HTTP/1.1 200 OK"));
}

#[test]
fn seventeenth_connection_is_closed() {
    let server = on_loopback();
    let admitted: Vec<_> = (0..16).map(|_| connect(&server)).collect();
    let time = until_closed(&mut connect(&server));
    assert!(time < Duration::from_millis(500), "{time:?}");
    for stream in &admitted {
        stream.set_nonblocking(true).unwrap();
        let error = { stream }.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock, "an admitted connection is open");
    }
    drop(admitted);
    soon("places are free again", || {
        let mut answer = String::new();
        let mut stream = connect(&server);
        let asked = stream.write_all(b"GET /v1/snapshot HTTP/1.1\r\nhost: localhost\r\n\r\n");
        asked.and_then(|()| stream.read_to_string(&mut answer)).is_ok() && answer.contains(" 200 OK")
    });
}

#[test]
fn a_panic_is_a_500_and_the_next_request_a_new_try() {
    let calls = AtomicUsize::new(0);
    let snapshot = move || match calls.fetch_add(1, SeqCst) {
        0 => panic!("on purpose"),
        _ => sample(),
    };
    let server = SnapshotServer::start(&"http://127.0.0.1:0".parse().unwrap(), snapshot).unwrap();
    assert!(get(connect(&server)).starts_with("HTTP/1.1 500 "));
    assert!(get(connect(&server)).starts_with("HTTP/1.1 200 OK"));
}

#[test]
fn dropping_it_closes_the_port_within_a_second() {
    let server = on_loopback();
    let (address, mut open) = (address(&server), connect(&server));
    let begin = Instant::now();
    drop(server);
    assert!(begin.elapsed() < Duration::from_millis(100), "the drop does not wait");
    soon("nobody listens", || TcpStream::connect(address).is_err());
    assert!(until_closed(&mut open) < Duration::from_secs(1));
}

#[test]
fn an_address_of_the_network_is_refused() {
    let endpoint = SnapshotEndpoint::Http(([0, 0, 0, 0], 0).into());
    let error = SnapshotServer::start(&endpoint, sample).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn a_port_that_is_taken_is_an_error() {
    let server = on_loopback();
    let error: io::Error = SnapshotServer::start(server.local_endpoint(), sample).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
}

#[cfg(unix)]
mod unix {
    use std::{
        fs,
        os::unix::{
            fs::PermissionsExt,
            net::{UnixListener, UnixStream},
        },
        path::Path,
    };

    use super::*;

    fn at(path: &Path) -> io::Result<SnapshotServer> {
        SnapshotServer::start(&SnapshotEndpoint::Unix(path.to_owned()), sample)
    }

    fn is_answered(path: &Path) -> bool {
        UnixStream::connect(path).is_ok_and(|stream| get(stream).starts_with("HTTP/1.1 200 OK"))
    }

    #[test]
    fn socket_has_mode_0600() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("snapshot.sock");
        let server = at(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert!(is_answered(&path));
        let names: Vec<_> =
            fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["snapshot.sock"], "nothing else is left behind");
        drop(server);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn stale_socket_is_replaced_and_a_live_one_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("snapshot.sock");
        // The std listener leaves its file behind, as a killed process does.
        drop(UnixListener::bind(&path).unwrap());
        let server = at(&path).unwrap();
        assert!(is_answered(&path));

        let error = at(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert!(error.to_string().contains("another process serves its snapshot at"), "{error}");
        assert!(is_answered(&path), "the refusal took nothing away");
        drop(server);
    }

    #[test]
    fn a_live_socket_with_a_full_queue_is_refused_without_waiting() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("snapshot.sock");
        let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
        socket.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
        socket.listen(0).unwrap();
        let queued = UnixStream::connect(&path).unwrap();
        assert_eq!(at(&path).unwrap_err().kind(), ErrorKind::AddrInUse);
        drop(queued);
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("precious.txt");
        fs::write(&path, "data").unwrap();
        assert_eq!(at(&path).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "data");
    }

    #[test]
    fn dropping_it_leaves_the_socket_of_a_successor() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("snapshot.sock");
        let first = at(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let second = at(&path).unwrap();
        drop(first);
        assert!(is_answered(&path));
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn a_path_that_cannot_be_says_why_and_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("missing/snapshot.sock");
        assert_eq!(at(&missing).unwrap_err().kind(), ErrorKind::NotFound);
        let deep = directory.path().join("x".repeat(100));
        fs::create_dir(&deep).unwrap();
        let error = at(&deep.join("s")).unwrap_err();
        assert!(error.to_string().starts_with("no socket could be made at"), "{error}");
        assert_eq!(fs::read_dir(&deep).unwrap().count(), 0);
    }
}
