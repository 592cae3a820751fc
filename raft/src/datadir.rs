//! The data directory: whose it is, in which format, and that only one process has it.
//!
//! A marker file says so. A directory that is not ours, or not for us, is refused before anything
//! in it is touched.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::OpenError;

/// The file that marks a data directory.
pub(crate) const MARKER: &str = "KONTIKI";
/// A marker that is being written. A crash may leave one.
const MARKER_NEW: &str = "KONTIKI.new";
/// The database's directory in it.
pub(crate) const DATABASE: &str = "db";
/// The format that this program writes.
const FORMAT: u32 = 1;
/// The marker's first line.
const MAGIC: &str = "kontiki data directory";
/// A marker is not longer than this; what is longer is not read.
const MARKER_BYTES_MAX: u64 = 4096;
/// The longest cluster name.
const CLUSTER_BYTES_MAX: usize = 253;

/// Whose directory it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) cluster: String,
    pub(crate) node_id: u64,
}

/// What a marker says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Marker {
    owner: Owner,
    /// Whether the database has been created completely. A crash during the first start leaves a
    /// directory without it, which is started again; afterwards a missing database is a loss.
    ready: bool,
}

/// A data directory that is ours, and locked.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    owner: Owner,
    ready: bool,
    /// Locked as long as it is open.
    lock: File,
}

impl DataDir {
    /// Takes the directory, making it if there is none.
    pub(crate) fn open(path: &Path, owner: &Owner) -> Result<DataDir, OpenError> {
        check_owner(owner)?;
        let (lock, ready) = match inspect(path)? {
            Found::Nothing => {
                fs::create_dir_all(path).map_err(|error| io_error("create", path, error))?;
                let marker = Marker {
                    owner: owner.clone(),
                    ready: false,
                };
                (marker.write(path)?, false)
            }
            Found::Marker(marker) => {
                check_same(path, &marker.owner, owner)?;
                if marker.ready && !path.join(DATABASE).join("CURRENT").exists() {
                    return Err(OpenError::CorruptDatabase {
                        path: path.join(DATABASE),
                        reason: "it is missing".to_owned(),
                    });
                }
                let file = path.join(MARKER);
                let file = File::open(&file).map_err(|error| io_error("open", &file, error))?;
                lock(path, &file)?;
                (file, marker.ready)
            }
        };
        Ok(DataDir {
            path: path.to_owned(),
            owner: owner.clone(),
            ready,
            lock,
        })
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    /// Whether the database was complete when the directory was opened.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready
    }

    /// Notes that the database is complete.
    pub(crate) fn set_ready(&mut self) -> Result<(), OpenError> {
        if self.ready {
            return Ok(());
        }
        let marker = Marker {
            owner: self.owner.clone(),
            ready: true,
        };
        self.lock = marker.write(&self.path)?;
        self.ready = true;
        Ok(())
    }
}

fn lock(path: &Path, file: &File) -> Result<(), OpenError> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse {
            path: path.to_owned(),
        }),
        Err(TryLockError::Error(error)) => Err(io_error("lock", path, error)),
    }
}

enum Found {
    Nothing,
    Marker(Marker),
}

fn inspect(path: &Path) -> Result<Found, OpenError> {
    let marker_path = path.join(MARKER);
    match fs::metadata(&marker_path) {
        Ok(metadata) if metadata.is_file() && metadata.len() <= MARKER_BYTES_MAX => {
            let bytes =
                fs::read(&marker_path).map_err(|error| io_error("read", &marker_path, error))?;
            let marker = parse(&bytes).map_err(|problem| match problem {
                Problem::Newer(found) => OpenError::NewerFormat {
                    path: path.to_owned(),
                    found,
                    supported: FORMAT,
                },
                Problem::Corrupt(reason) => OpenError::CorruptMarker {
                    path: marker_path,
                    reason,
                },
            })?;
            Ok(Found::Marker(marker))
        }
        Ok(_) => Err(OpenError::CorruptMarker {
            path: marker_path,
            reason: "it is not a small file".to_owned(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if is_empty(path).map_err(|error| io_error("list", path, error))? {
                Ok(Found::Nothing)
            } else {
                Err(OpenError::Foreign {
                    path: path.to_owned(),
                    marker: MARKER,
                })
            }
        }
        Err(error) => Err(io_error("look at", &marker_path, error)),
    }
}

/// Whether there is nothing but what a crash while we made the directory leaves.
fn is_empty(path: &Path) -> io::Result<bool> {
    match fs::read_dir(path) {
        Ok(entries) => {
            for entry in entries {
                if entry?.file_name() != MARKER_NEW {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

fn check_owner(owner: &Owner) -> Result<(), OpenError> {
    let cluster = &owner.cluster;
    let bad = cluster.is_empty()
        || cluster.len() > CLUSTER_BYTES_MAX
        || cluster.chars().any(char::is_control);
    if bad {
        return Err(OpenError::InvalidConfig {
            reason: format!(
                "the cluster's name {cluster:?} is not one line of 1 to {CLUSTER_BYTES_MAX} bytes"
            ),
        });
    }
    Ok(())
}

fn check_same(path: &Path, found: &Owner, expected: &Owner) -> Result<(), OpenError> {
    let differs = |what, found: String, expected: String| {
        Err(OpenError::OtherOwner {
            path: path.to_owned(),
            what,
            found,
            expected,
        })
    };
    if found.cluster != expected.cluster {
        return differs("cluster", found.cluster.clone(), expected.cluster.clone());
    }
    if found.node_id != expected.node_id {
        return differs(
            "node",
            found.node_id.to_string(),
            expected.node_id.to_string(),
        );
    }
    Ok(())
}

impl Marker {
    fn text(&self) -> String {
        let state = if self.ready { "ready" } else { "empty" };
        let body = format!(
            "{MAGIC}\nformat: {FORMAT}\ncluster: {}\nnode: {}\nstate: {state}\n",
            self.owner.cluster, self.owner.node_id
        );
        let crc = crc32fast::hash(body.as_bytes());
        format!("{body}crc32: {crc:08x}\n")
    }

    /// Writes the marker, so that it is there completely or not at all, and returns it locked.
    fn write(&self, directory: &Path) -> Result<File, OpenError> {
        let new = directory.join(MARKER_NEW);
        let io = |error| io_error("write the marker file into", directory, error);
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&new)
            .map_err(io)?;
        lock(directory, &file)?;
        file.set_len(0).map_err(io)?;
        file.write_all(self.text().as_bytes()).map_err(io)?;
        file.sync_all().map_err(io)?;
        fail::fail_point!("marker-before-rename");
        fs::rename(&new, directory.join(MARKER)).map_err(io)?;
        fail::fail_point!("marker-after-rename");
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(io)?;
        Ok(file)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Problem {
    Newer(u32),
    Corrupt(String),
}

fn parse(bytes: &[u8]) -> Result<Marker, Problem> {
    let corrupt = |reason: &str| Problem::Corrupt(reason.to_owned());
    let text = std::str::from_utf8(bytes).map_err(|_| corrupt("it is not text"))?;
    let mut lines = text.lines();
    if lines.next() != Some(MAGIC) {
        return Err(corrupt("its first line is another one"));
    }
    // The format comes first and without the checksum, so that a newer one is told from damage.
    let format: u32 = field(lines.next(), "format")?
        .parse()
        .map_err(|_| corrupt("its format is not a number"))?;
    if format > FORMAT {
        return Err(Problem::Newer(format));
    }
    let (body, crc) = text
        .rsplit_once("crc32: ")
        .ok_or_else(|| corrupt("its checksum is missing"))?;
    let crc = u32::from_str_radix(crc.trim_end(), 16)
        .map_err(|_| corrupt("its checksum is not a number"))?;
    if crc32fast::hash(body.as_bytes()) != crc {
        return Err(corrupt("its checksum does not match"));
    }
    let cluster = field(lines.next(), "cluster")?.to_owned();
    let node_id = field(lines.next(), "node")?
        .parse()
        .map_err(|_| corrupt("its node id is not a number"))?;
    let ready = match field(lines.next(), "state")? {
        "ready" => true,
        "empty" => false,
        _ => return Err(corrupt("its state is unknown")),
    };
    Ok(Marker {
        owner: Owner { cluster, node_id },
        ready,
    })
}

fn field<'a>(line: Option<&'a str>, name: &str) -> Result<&'a str, Problem> {
    line.and_then(|line| line.strip_prefix(name)?.strip_prefix(": "))
        .ok_or_else(|| Problem::Corrupt(format!("its {name} is missing")))
}

fn io_error(operation: &'static str, path: &Path, source: io::Error) -> OpenError {
    OpenError::Io {
        operation,
        path: path.to_owned(),
        source,
    }
}
