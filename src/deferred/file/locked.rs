//! [`LockedFile`]: a file that one log at a time has open.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, ErrorKind, Read as _, Seek as _, Write as _},
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

/// Tags and names are for nobody else.
const MODE: u32 = 0o600;
/// How often another log may replace the file while it is being opened.
const TRIES: usize = 16;

/// A file that one log at a time has open, by an advisory lock (`flock(2)`) that ends with its process.
///
/// The lock is on the file itself, so that no other file stands beside it, and goes with it when it is replaced.
#[derive(Debug)]
pub(super) struct LockedFile {
    /// Without symbolic links, and independent of the working directory.
    path: PathBuf,
    file: File,
}

impl LockedFile {
    /// Opens the file, or makes an empty one.
    ///
    /// # Errors
    /// `ResourceBusy` — another log has it. `InvalidInput` — it is a folder, a device or the like. Else what the system says.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        for _ in 0..TRIES {
            let file = OpenOptions::new().read(true).write(true).create(true).mode(MODE).open(path)?;
            if !file.metadata()?.is_file() {
                return Err(io::Error::new(ErrorKind::InvalidInput, "it is not a regular file"));
            }
            lock(&file)?;
            let locked = Self { path: fs::canonicalize(path)?, file };
            // Whoever had it may have replaced it since it was opened: then it is the other one that counts.
            if matches!(locked.is_in_place(), Ok(true)) {
                return Ok(locked);
            }
        }
        Err(io::Error::new(ErrorKind::ResourceBusy, "it is replaced again and again"))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether this file is what stands at its path; not so where nothing does.
    ///
    /// # Errors
    /// `AlreadyExists` — something else does.
    pub(super) fn is_in_place(&self) -> io::Result<bool> {
        let ours = self.file.metadata()?;
        match fs::metadata(&self.path) {
            Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => Ok(true),
            Ok(_) => Err(io::Error::new(ErrorKind::AlreadyExists, "another file stands in its place")),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The first 64 bytes, if there are so many.
    pub(super) fn beginning(&mut self) -> io::Result<Vec<u8>> {
        self.file.rewind()?;
        let mut bytes = Vec::new();
        (&self.file).take(64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn read(&mut self) -> io::Result<Vec<u8>> {
        self.file.rewind()?;
        let mut bytes = Vec::new();
        self.file.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, at)
    }

    /// Returns when what was written survives a loss of power.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    pub(super) fn cut(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    /// Writes `bytes` as a file beside this one, which is on the disk when this returns, and has the same mode. What is left
    /// of one that could not be written is removed.
    pub(super) fn write_beside(&self, bytes: &[u8]) -> io::Result<File> {
        self.remove_beside()?;
        let path = self.beside("new");
        let mut file = OpenOptions::new().write(true).read(true).create_new(true).mode(MODE).open(path)?;
        let written = (|| {
            lock(&file)?;
            file.set_permissions(Permissions::from_mode(self.file.metadata()?.mode() & 0o7777))?;
            file.write_all(bytes)?;
            file.sync_all()
        })();
        if written.is_err() {
            // It would take the room that is missing; and it is removed before the next one is written.
            let _ = self.remove_beside();
        }
        written.map(|()| file)
    }

    /// Puts that file in the place of this one, which is whole at any moment.
    pub(super) fn replace(&mut self, beside: File) -> io::Result<()> {
        fs::rename(self.beside("new"), &self.path)?;
        self.file = beside;
        File::open(self.folder())?.sync_all()
    }

    /// What a crash has left there was never in place.
    pub(super) fn remove_beside(&self) -> io::Result<()> {
        match fs::remove_file(self.beside("new")) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Adds `bytes` to the file of what was damaged, and says where that is.
    pub(super) fn put_aside(&self, bytes: &[u8]) -> io::Result<PathBuf> {
        let path = self.beside("damaged");
        let mut file = OpenOptions::new().append(true).create(true).mode(MODE).open(&path)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        Ok(path)
    }

    fn beside(&self, extension: &str) -> PathBuf {
        let mut path = OsString::from(&self.path);
        path.push(".");
        path.push(extension);
        path.into()
    }

    fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }
}

impl Drop for LockedFile {
    fn drop(&mut self) {
        // A child that is just being started may have the file for a moment longer than this process, and the lock with it.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

fn lock(file: &File) -> io::Result<()> {
    match flock(file, FlockOperation::NonBlockingLockExclusive).map_err(io::Error::from) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            let text =
                "another process, or another log of this one, has it open; each needs a path of its own";
            Err(io::Error::new(ErrorKind::ResourceBusy, text))
        }
        locked => locked,
    }
}
