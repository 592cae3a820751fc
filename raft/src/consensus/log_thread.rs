//! The thread that writes the Raft log and makes it durable.
//!
//! It takes everything that waits, writes it in one piece, syncs once, and tells all who wait: that
//! is the group commit. All writes of the log go through it, so they never overtake each other, and
//! what a crash leaves of the ones that were not synced has no holes.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;

use openraft::storage::IOFlushed;
use rocksdb::WriteBatch;
use tokio::sync::oneshot;

use super::{Health, Types};
use crate::limits::LOG_QUEUE_MAX;
use crate::metrics::Counters;
use crate::rocks::Db;

/// Who hears that a write is durable.
pub(crate) enum Done {
    /// Raft itself, about appended entries.
    Appended(IOFlushed<Types>),
    /// A caller that waits.
    Caller(oneshot::Sender<io::Result<()>>),
}

/// Puts a write into a batch.
pub(crate) type Fill = Box<dyn FnOnce(&Db, &mut WriteBatch) + Send>;

/// A write to the log.
pub(crate) struct Job {
    /// Puts the write into the batch of its group.
    pub(crate) fill: Fill,
    /// False for what may be lost in a crash and is then simply done again.
    pub(crate) durable: bool,
    pub(crate) done: Done,
}

/// The thread, and the queue in front of it. Dropping it ends the thread after what is queued.
pub(crate) struct LogThread {
    queue: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl LogThread {
    pub(crate) fn start(
        db: Arc<Db>,
        fsync: bool,
        counters: Arc<Counters>,
        health: Arc<Health>,
    ) -> io::Result<LogThread> {
        let (queue, jobs) = sync_channel(LOG_QUEUE_MAX);
        let writer = Writer {
            db,
            fsync,
            counters,
            health,
        };
        let thread = std::thread::Builder::new()
            .name("raft-log".to_owned())
            .spawn(move || writer.run(&jobs))?;
        Ok(LogThread {
            queue: Some(queue),
            thread: Some(thread),
        })
    }

    pub(crate) fn send(&self, job: Job) -> io::Result<()> {
        let queue = self
            .queue
            .as_ref()
            .expect("the queue lives as long as the thread");
        queue
            .send(job)
            .map_err(|_| io::Error::other("the log thread has ended"))
    }
}

impl Drop for LogThread {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the log thread panicked");
        }
    }
}

struct Writer {
    db: Arc<Db>,
    fsync: bool,
    counters: Arc<Counters>,
    health: Arc<Health>,
}

impl Writer {
    fn run(&self, jobs: &Receiver<Job>) {
        let mut waiting = Vec::with_capacity(LOG_QUEUE_MAX);
        while let Ok(first) = jobs.recv() {
            let mut batch = WriteBatch::default();
            let mut durable = false;
            for job in std::iter::once(first).chain(jobs.try_iter().take(LOG_QUEUE_MAX)) {
                (job.fill)(&self.db, &mut batch);
                durable |= job.durable;
                waiting.push(job.done);
            }
            let result = self
                .write(batch)
                .and_then(|()| if durable { self.sync() } else { Ok(()) });
            if let Err(error) = &result {
                self.health.fail(format!("writing the log: {error}"));
            }
            for done in waiting.drain(..) {
                let result = match &result {
                    Ok(()) => Ok(()),
                    Err(error) => Err(io::Error::other(error.to_string())),
                };
                match done {
                    Done::Appended(callback) => callback.io_completed(result),
                    // A caller that is gone does not wait for its answer.
                    Done::Caller(caller) => drop(caller.send(result)),
                }
            }
            if result.is_err() {
                // What is on disk is unknown from here on: nothing may be written after it.
                return;
            }
        }
    }

    fn write(&self, batch: WriteBatch) -> io::Result<()> {
        let bytes = batch.size_in_bytes() as u64;
        self.counters.log_bytes.fetch_add(bytes, Ordering::Relaxed);
        fail::fail_point!("log-before-write");
        fail::fail_point!("log-write-fails", |_| Err(io::Error::other("a test")));
        self.db.write(batch).map_err(io::Error::other)
    }

    fn sync(&self) -> io::Result<()> {
        fail::fail_point!("log-before-sync");
        if self.fsync {
            let started = Instant::now();
            self.db.sync().map_err(io::Error::other)?;
            self.counters
                .fsync_seconds
                .record_duration(started.elapsed());
        }
        fail::fail_point!("log-after-sync");
        Ok(())
    }
}
