//! Reads a log file to its end and, if wanted, on while it is written and rotated.

use std::fs::Metadata;
use std::io::{self, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use rustix::fs::inotify;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::net::unix::pipe;
use tokio::time::Instant;

use super::format::{Formatter, Options};
use super::tail;

/// The most that is read and given out at a time.
const BLOCK_BYTES: usize = 64 << 10;
/// How often it is looked whether the container still runs, while there is nothing to read.
const ALIVE_CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// How often the file is looked at where the kernel does not tell of changes.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// The runtime may still write this long after a new file or the container's end is seen.
const SETTLE_TIME: Duration = Duration::from_millis(100);
/// Room for the events of one reading of the kernel's queue; what they say does not matter.
const EVENT_BYTES: usize = 4096;

/// Tells whether the container still runs.
pub type Alive = Box<dyn Fn() -> BoxFuture<'static, bool> + Send + Sync>;

/// Reads one container's log. What is not asked for is not read, so a slow client costs one block.
pub struct Reader {
    path: PathBuf,
    file: File,
    formatter: Formatter,
    follow: Option<Follow>,
    block: Vec<u8>,
    ended: bool,
}

struct Follow {
    alive: Alive,
    changes: Changes,
    /// The file that came in the place of the one that is read; taken when that one has been read to its end.
    successor: Option<File>,
    checked: Instant,
    container_ended: bool,
}

impl Reader {
    /// Opens a log.
    ///
    /// # Errors
    /// The file is not there or cannot be read.
    pub async fn open(path: &Path, options: Options, alive: Alive) -> io::Result<Reader> {
        // Before the file is opened, so that no change after it goes unnoticed.
        let follow = options.follow.then(|| Follow {
            alive,
            changes: Changes::below(path.parent().unwrap_or(Path::new("/"))),
            successor: None,
            checked: Instant::now(),
            container_ended: false,
        });
        let mut file = File::open(path).await?;
        if let Some(lines) = options.tail_lines {
            let (mut blocking, stream) = (file.try_clone().await?.into_std().await, options.stream);
            let found =
                tokio::task::spawn_blocking(move || tail::start(&mut blocking, lines, stream))
                    .await;
            let start = found.map_err(io::Error::other)??;
            file.seek(SeekFrom::Start(start)).await?;
        }
        let formatter = Formatter::new(options);
        Ok(Reader {
            path: path.to_owned(),
            file,
            formatter,
            follow,
            block: vec![0; BLOCK_BYTES],
            ended: false,
        })
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let mut out = Vec::new();
        while !self.ended && out.is_empty() {
            if self.formatter.is_exhausted() {
                self.ended = true;
                break;
            }
            let n = self.file.read(&mut self.block).await?;
            if n > 0 {
                self.formatter.feed(&self.block[..n], &mut out);
                continue;
            }
            let Some(follow) = &mut self.follow else {
                self.formatter.finish(&mut out);
                self.ended = true;
                break;
            };
            if let Some(file) = follow.successor.take() {
                self.formatter.finish(&mut out);
                self.file = file;
            } else if let Some(file) = successor(&self.file, &self.path).await? {
                follow.successor = Some(file);
                tokio::time::sleep(SETTLE_TIME).await;
            } else if follow.container_ended {
                self.formatter.finish(&mut out);
                self.ended = true;
            } else if follow.checked.elapsed() >= ALIVE_CHECK_INTERVAL {
                follow.container_ended = !(follow.alive)().await;
                follow.checked = Instant::now();
                if follow.container_ended {
                    tokio::time::sleep(SETTLE_TIME).await;
                }
            } else {
                let check_at = follow.checked + ALIVE_CHECK_INTERVAL;
                drop(tokio::time::timeout_at(check_at, follow.changes.next()).await);
            }
        }
        Ok((!out.is_empty()).then(|| Bytes::from(out)))
    }
}

fn same(a: &Metadata, b: &Metadata) -> bool {
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

/// The file at the path, if it is another one than that which is open.
async fn successor(open: &File, path: &Path) -> io::Result<Option<File>> {
    match tokio::fs::metadata(path).await {
        Ok(m) if !same(&m, &open.metadata().await?) => match File::open(path).await {
            Ok(f) => Ok(Some(f)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        },
        // Between its renaming and the runtime's opening of a new one there is none.
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(None),
    }
}

/// Changes in a directory: the kernel's word where it has one to spare, a timer otherwise.
enum Changes {
    /// A queue of inotify, which is read as a pipe is.
    Told(pipe::Receiver),
    Polled,
}

impl Changes {
    fn below(dir: &Path) -> Changes {
        let told = || -> io::Result<pipe::Receiver> {
            let fd = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
            let what = inotify::WatchFlags::MODIFY
                | inotify::WatchFlags::CREATE
                | inotify::WatchFlags::MOVED_TO;
            inotify::add_watch(&fd, dir, what)?;
            pipe::Receiver::from_owned_fd_unchecked(fd)
        };
        told().map_or_else(
            |e| {
                tracing::debug!(error = %e, dir = %dir.display(), "changes of a log are polled for");
                Changes::Polled
            },
            Changes::Told,
        )
    }

    async fn next(&mut self) {
        match self {
            Changes::Told(queue) => {
                let told = queue.read(&mut [0; EVENT_BYTES]).await;
                if !matches!(told, Ok(1..)) {
                    *self = Changes::Polled;
                }
            }
            Changes::Polled => tokio::time::sleep(POLL_INTERVAL).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    fn line(text: &str) -> String {
        format!("2026-11-20T10:00:00Z stdout F {text}\n")
    }

    fn append(path: &Path, text: &str) {
        let mut f = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .expect("opened");
        f.write_all(line(text).as_bytes()).expect("written");
    }

    async fn open(path: &Path, options: Options, runs: &Arc<AtomicBool>) -> Reader {
        let runs = runs.clone();
        let alive: Alive = Box::new(move || {
            let runs = runs.load(Ordering::SeqCst);
            Box::pin(async move { runs })
        });
        Reader::open(path, options, alive).await.expect("opened")
    }

    async fn next(r: &mut Reader) -> Option<String> {
        let read = tokio::time::timeout(LIMIT, r.next())
            .await
            .expect("in time")
            .expect("read");
        read.map(|b| String::from_utf8(b.to_vec()).expect("UTF-8"))
    }

    #[tokio::test]
    async fn without_following_it_ends_at_the_end() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("0.log");
        for text in ["one", "two", "three"] {
            append(&path, text);
        }
        let runs = Arc::new(AtomicBool::new(true));
        let mut r = open(
            &path,
            Options {
                tail_lines: Some(2),
                ..Options::default()
            },
            &runs,
        )
        .await;
        assert_eq!(next(&mut r).await.as_deref(), Some("two\nthree\n"));
        assert_eq!(next(&mut r).await, None);
        let nowhere = dir.path().join("1.log");
        let missing = Reader::open(
            &nowhere,
            Options::default(),
            Box::new(|| Box::pin(async { true })),
        );
        assert_eq!(
            missing.await.err().map(|e| e.kind()),
            Some(io::ErrorKind::NotFound)
        );
    }

    #[tokio::test]
    async fn following_goes_on_over_a_rotation_and_ends_with_the_container() {
        for polled in [false, true] {
            let dir = tempfile::tempdir().expect("a directory");
            let path = dir.path().join("0.log");
            append(&path, "old");
            let runs = Arc::new(AtomicBool::new(true));
            let mut r = open(
                &path,
                Options {
                    follow: true,
                    tail_lines: Some(0),
                    ..Options::default()
                },
                &runs,
            )
            .await;
            if polled && let Some(f) = &mut r.follow {
                f.changes = Changes::Polled;
            }
            append(&path, "one");
            assert_eq!(next(&mut r).await.as_deref(), Some("one\n"));
            let rotated = dir.path().join("0.log.20261120-100000");
            fs::rename(&path, &rotated).expect("renamed");
            // The runtime goes on with the old file until it is told.
            append(&rotated, "two");
            assert_eq!(next(&mut r).await.as_deref(), Some("two\n"));
            append(&path, "three");
            append(&rotated, "late");
            assert_eq!(next(&mut r).await.as_deref(), Some("late\n"));
            assert_eq!(next(&mut r).await.as_deref(), Some("three\n"));
            append(&path, "last");
            runs.store(false, Ordering::SeqCst);
            assert_eq!(next(&mut r).await.as_deref(), Some("last\n"));
            assert_eq!(next(&mut r).await, None);
        }
    }
}
