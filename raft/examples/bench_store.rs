//! Measures the replicated store alone: `cargo run --release -p kontiki-raft --example bench_store -- [DIRECTORY] [--no-fsync]`.
//!
//! Each line is one number of writers, each of whom updates keys of its own, one after the other, with values of 1 KB.
//! The processor's time is that of the whole process, so it includes the writers.

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kontiki_raft::{Op, Precondition, RaftStore, Revision, Store, StoreConfig, Txn, TxnOutcome};

const VALUE_BYTES: usize = 1024;
const RUN: Duration = Duration::from_secs(3);
const KEYS_PER_WRITER: usize = 100;
const IDLE: Duration = Duration::from_secs(10);

fn main() -> Result<(), Box<dyn Error>> {
    let mut fsync = true;
    let mut parent = std::env::temp_dir();
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--no-fsync" => fsync = false,
            path => parent = PathBuf::from(path),
        }
    }
    let directory = tempfile::tempdir_in(parent)?;
    let mut config = StoreConfig::new(directory.path().join("data"), "bench");
    config.fsync = fsync;
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(run(config))
}

async fn run(config: StoreConfig) -> Result<(), Box<dyn Error>> {
    let mut out = std::io::stdout();
    let started = Instant::now();
    let store = Arc::new(RaftStore::open(config.clone()).await?);
    writeln!(
        out,
        "open on an empty disk: {:.1} ms",
        started.elapsed().as_secs_f64() * 1e3
    )?;
    writeln!(out, "resident when opened: {} MiB", resident_mib()?)?;
    for writers in [1, 16, 64] {
        let before = store.metrics();
        let (writes, seconds, cpu) = write(&store, writers).await?;
        let after = store.metrics();
        let entries = after.batch_txns.count - before.batch_txns.count;
        let syncs = after.fsync_seconds.count - before.fsync_seconds.count;
        let sync_seconds = after.fsync_seconds.sum - before.fsync_seconds.sum;
        writeln!(
            out,
            "{writers:>3} writers: {:>7.0} writes/s, {:>6.1} us CPU per write, {:>5.1} writes per entry, {:>5.2} ms per fsync",
            writes as f64 / seconds,
            cpu.as_secs_f64() * 1e6 / writes as f64,
            writes as f64 / entries.max(1) as f64,
            sync_seconds * 1e3 / syncs.max(1) as f64,
        )?;
    }
    let cpu = cpu_time();
    let reads = 1_000_000u32;
    let begun = Instant::now();
    for _ in 0..reads {
        store.read_index().await?;
    }
    writeln!(
        out,
        "read index: {:.0} ns",
        begun.elapsed().as_secs_f64() * 1e9 / f64::from(reads)
    )?;
    let begun = Instant::now();
    for n in 0..reads {
        store.get(format!("/bench/{}/{}", n % 16, n % 100).as_bytes(), None)?;
    }
    writeln!(
        out,
        "get: {:.2} us",
        begun.elapsed().as_secs_f64() * 1e6 / f64::from(reads)
    )?;
    writeln!(
        out,
        "reads took {:.2} s of CPU",
        (cpu_time() - cpu).as_secs_f64()
    )?;

    let cpu = cpu_time();
    tokio::time::sleep(IDLE).await;
    let idle = (cpu_time() - cpu).as_secs_f64() / IDLE.as_secs_f64();
    writeln!(
        out,
        "idle: {:.3} % of a core, {} MiB resident",
        idle * 100.0,
        resident_mib()?
    )?;
    drop(store);
    let started = Instant::now();
    let store = RaftStore::open(config).await?;
    writeln!(
        out,
        "open at revision {}: {:.1} ms",
        store.applied_revision(),
        started.elapsed().as_secs_f64() * 1e3
    )?;
    Ok(())
}

async fn write(
    store: &Arc<RaftStore>,
    writers: usize,
) -> Result<(u64, f64, Duration), Box<dyn Error>> {
    let begun = Instant::now();
    let cpu = cpu_time();
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..writers {
        let store = Arc::clone(store);
        tasks.spawn(async move {
            let value = Bytes::from(vec![b'x'; VALUE_BYTES]);
            let mut revisions = vec![None; KEYS_PER_WRITER];
            let mut writes = 0u64;
            while begun.elapsed() < RUN {
                let slot = writes as usize % KEYS_PER_WRITER;
                let key = Bytes::from(format!("/bench/{writer}/{slot}"));
                let preconditions = match revisions[slot] {
                    Some(revision) => vec![Precondition::ModRevision {
                        key: key.clone(),
                        revision,
                    }],
                    None => Vec::new(),
                };
                let ops = vec![Op::Put {
                    key,
                    value: value.clone(),
                    ttl: None,
                }];
                match store.txn(Txn { preconditions, ops }).await {
                    Ok(TxnOutcome::Committed { revision, .. }) => revisions[slot] = Some(revision),
                    other => return Err(format!("{other:?}")),
                }
                writes += 1;
            }
            Ok((
                writes,
                revisions
                    .iter()
                    .flatten()
                    .max()
                    .copied()
                    .unwrap_or(Revision::ZERO),
            ))
        });
    }
    let mut writes = 0;
    for result in tasks.join_all().await {
        writes += result?.0;
    }
    Ok((writes, begun.elapsed().as_secs_f64(), cpu_time() - cpu))
}

/// The processor's time that this process has used.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn resident_mib() -> Result<u64, Box<dyn Error>> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = statm
        .split(' ')
        .nth(1)
        .ok_or("statm has a second field")?
        .parse()?;
    Ok(pages * 4096 / (1 << 20))
}
