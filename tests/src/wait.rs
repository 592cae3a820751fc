//! Waiting for conditions with a deadline.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(50);

/// Waits until the condition gives a value. `what` names it in the error.
///
/// # Errors
/// The deadline passed; the message has the condition's last reason.
pub fn until<T>(
    what: &str,
    deadline: Duration,
    mut condition: impl FnMut() -> Result<T>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        match condition() {
            Ok(v) => return Ok(v),
            Err(e) if start.elapsed() > deadline => bail!("{what}: not within {deadline:?}: {e:#}"),
            Err(_) => std::thread::park_timeout(INTERVAL),
        }
    }
}
