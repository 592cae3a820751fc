//! The database: one RocksDB that holds the Raft log and the state, each in column families of its own.
//!
//! All writes go into one write-ahead log in the order in which they were made. An entry's effects
//! are written after the entry itself is durable, so whatever tail a crash takes away, the state
//! that is left never knows more than the log that is left. Only the log thread syncs.

pub(crate) mod collect;
pub(crate) mod keys;
pub(crate) mod read;
pub(crate) mod state;

use std::path::Path;

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType,
    DBRecoveryMode, InfoLogger, LogLevel, Options, WriteBatch,
};

/// Single values: the vote, what is applied, what is purged.
pub(crate) const META: &str = rocksdb::DEFAULT_COLUMN_FAMILY_NAME;
/// Raft entries by index.
pub(crate) const LOG: &str = "log";
/// The current record of each key.
pub(crate) const CURRENT: &str = "current";
/// What a key held before a revision changed it, by key and that revision.
pub(crate) const UNDO: &str = "undo";
/// Which keys each revision changed.
pub(crate) const CHANGES: &str = "changes";
/// Keys by the end of their time to live.
pub(crate) const TTL: &str = "ttl";

/// Memory for blocks read from files, shared by all column families.
const BLOCK_CACHE_BYTES: usize = 8 * 1024 * 1024;
/// Memory for writes before they go to a file, for column families that hold values.
const VALUES_MEMTABLE_BYTES: usize = 4 * 1024 * 1024;
/// The same, for those that hold small rows.
const ROWS_MEMTABLE_BYTES: usize = 1024 * 1024;
/// The write-ahead log is cut at this size; opening after a crash reads at most this much.
const WAL_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Threads that flush and compact.
const BACKGROUND_JOBS_MAX: i32 = 2;
/// Files that stay open.
const OPEN_FILES_MAX: i32 = 256;

/// An open database.
pub(crate) struct Db {
    db: DB,
}

impl Db {
    /// Opens the database, or creates it. An existing one that lacks something is not repaired.
    pub(crate) fn open(path: &Path, create: bool) -> Result<Db, rocksdb::Error> {
        let cache = Cache::new_lru_cache(BLOCK_CACHE_BYTES);
        let mut options = Options::default();
        options.create_if_missing(create);
        options.create_missing_column_families(create);
        // A torn tail is what a crash leaves. Damage anywhere else is refused, not skipped: it
        // would silently take back writes that were acknowledged.
        options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
        options.set_max_total_wal_size(WAL_BYTES_MAX);
        options.set_max_background_jobs(BACKGROUND_JOBS_MAX);
        options.set_max_open_files(OPEN_FILES_MAX);
        // Its messages come into our log; a log file of its own would be written even into a
        // database that is refused.
        options.set_info_logger(InfoLogger::new_callback_logger(LogLevel::Warn, log_message));
        options.set_stats_dump_period_sec(0);
        options.set_stats_persist_period_sec(0);
        options.set_skip_stats_update_on_db_open(true);
        // Waiting writers would spin; there are two of them, and the processor has better things to do.
        options.set_enable_write_thread_adaptive_yield(false);
        let families = [
            (META, ROWS_MEMTABLE_BYTES, DBCompressionType::None),
            (LOG, VALUES_MEMTABLE_BYTES, DBCompressionType::None),
            (CURRENT, VALUES_MEMTABLE_BYTES, DBCompressionType::Lz4),
            (UNDO, VALUES_MEMTABLE_BYTES, DBCompressionType::Lz4),
            (CHANGES, ROWS_MEMTABLE_BYTES, DBCompressionType::Lz4),
            (TTL, ROWS_MEMTABLE_BYTES, DBCompressionType::Lz4),
        ]
        .map(|(name, memtable_bytes, compression)| {
            ColumnFamilyDescriptor::new(name, family_options(&cache, memtable_bytes, compression))
        });
        Ok(Db {
            db: DB::open_cf_descriptors(&options, path, families)?,
        })
    }

    pub(crate) fn raw(&self) -> &DB {
        &self.db
    }

    pub(crate) fn family(&self, name: &'static str) -> &ColumnFamily {
        self.db
            .cf_handle(name)
            .expect("all column families are opened with the database")
    }

    /// Writes a batch to the write-ahead log and the memtables, without waiting for the disk.
    pub(crate) fn write(&self, batch: WriteBatch) -> Result<(), rocksdb::Error> {
        self.db.write(batch)
    }

    /// Makes everything that has been written durable. Other writers go on meanwhile.
    pub(crate) fn sync(&self) -> Result<(), rocksdb::Error> {
        self.db.flush_wal(true)
    }
}

fn log_message(level: LogLevel, message: &str) {
    let message = message.trim_end();
    match level {
        LogLevel::Error | LogLevel::Fatal => tracing::error!(target: "rocksdb", "{message}"),
        LogLevel::Warn => tracing::warn!(target: "rocksdb", "{message}"),
        // Headers pass every level: the whole of its options, at each start.
        _ => tracing::debug!(target: "rocksdb", "{message}"),
    }
}

fn family_options(cache: &Cache, memtable_bytes: usize, compression: DBCompressionType) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_bloom_filter(10.0, false);
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(memtable_bytes);
    options.set_compression_type(compression);
    options.set_level_compaction_dynamic_level_bytes(true);
    options
}
