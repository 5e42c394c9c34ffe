//! The unix socket's file: private from its first moment, never taken from somebody who lives, removed when it is ours.

use std::{
    fs::{self, DirBuilder, Metadata, Permissions},
    io::{self, ErrorKind},
    os::unix::{
        fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt},
        net::UnixListener,
    },
    path::{Path, PathBuf},
};

use socket2::{Domain, SockAddr, Socket, Type};

/// Binds a socket with mode 0600 at `path`. A file of a socket that nobody listens on any more is replaced.
///
/// The mode of a new socket is the umask's, and the umask belongs to the whole process, threads of the service included. So
/// the socket is made in a new directory that only this user can enter, gets its mode there, and is then renamed into place.
/// The directory stands beside the target, for a rename does not leave its file system.
pub(super) fn bind(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    refuse_if_taken(path)?;
    let nursery = Nursery::beside(path)?;
    let born = nursery.socket();
    let listener = UnixListener::bind(&born)
        .map_err(|error| explain(error, &format!("no socket could be made at {}", born.display())))?;
    fs::set_permissions(&born, Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    let identity = identity(&fs::symlink_metadata(&born)?);
    fs::rename(&born, path)?;
    Ok((listener, SocketFile { path: path.to_owned(), identity }))
}

/// The socket's file in its place; its drop removes it, unless another one has taken the place.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path).is_ok_and(|found| identity(&found) == self.identity);
        if is_ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// What a file is, whatever it is called: device and inode.
fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Only a socket that refuses a connection is stale. What stands there otherwise is somebody's.
fn refuse_if_taken(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(explain(error, &format!("{} could not be looked at", path.display()))),
    };
    if !found.file_type().is_socket() {
        let text = format!("{} is there already and is no socket", path.display());
        return Err(io::Error::new(ErrorKind::AlreadyExists, text));
    }
    match connect(path) {
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) => Ok(()),
        // A full queue is a sign of life too.
        Ok(()) => Err(in_use(path)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Err(in_use(path)),
        Err(error) => Err(explain(error, &format!("the socket {} may be somebody's", path.display()))),
    }
}

fn in_use(path: &Path) -> io::Error {
    let text = format!(
        "another process serves its snapshot at {}; put %p, the process id, in the path so that each has its own",
        path.display()
    );
    io::Error::new(ErrorKind::AddrInUse, text)
}

/// Connects without waiting: the std connect would hang on a listener whose queue is full.
fn connect(path: &Path) -> io::Result<()> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)
}

fn explain(error: io::Error, what: &str) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// The directory in which the socket gets its mode; its drop removes it.
struct Nursery {
    directory: PathBuf,
}

impl Nursery {
    fn beside(path: &Path) -> io::Result<Self> {
        const TRIES: usize = 8;
        let parent = path.parent().unwrap_or(Path::new(""));
        let mut tries = 0;
        loop {
            // Short, because a socket's path has room for about a hundred bytes.
            let number = getrandom::u32().map_err(|error| io::Error::other(error.to_string()))?;
            let directory = parent.join(format!(".{number:08x}"));
            tries += 1;
            match DirBuilder::new().mode(0o700).create(&directory) {
                Ok(()) => return Ok(Self { directory }),
                Err(error) if error.kind() == ErrorKind::AlreadyExists && tries < TRIES => {}
                Err(error) => {
                    let what = format!("nothing can be made in the directory of {}", path.display());
                    return Err(explain(error, &what));
                }
            }
        }
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("s")
    }
}

impl Drop for Nursery {
    fn drop(&mut self) {
        // The socket has moved out, unless something failed.
        let _ = fs::remove_file(self.socket());
        let _ = fs::remove_dir(&self.directory);
    }
}
