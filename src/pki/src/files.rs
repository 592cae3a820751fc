//! Files of keys and certificates: written aside, synced and renamed; keys only for their owner.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::Error;

/// Reads a text file; `None` if it is not there.
///
/// # Errors
/// It is there and cannot be read.
pub fn read(path: &Path) -> Result<Option<String>, Error> {
    match std::fs::read_to_string(path) {
        Ok(s) => Ok(Some(s)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Read {
            path: path.display().to_string(),
            source,
        }),
    }
}

/// Writes a file so that a crash leaves the old content or the new. `secret` makes it readable by its owner alone.
///
/// # Errors
/// It cannot be written.
pub fn write(path: &Path, content: &str, secret: bool) -> Result<(), Error> {
    let aside = path.with_extension("new");
    let result = (|| {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let mode = if secret { 0o600 } else { 0o644 };
        let mut f = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&aside)?;
        f.write_all(content.as_bytes())?;
        f.sync_all()?;
        std::fs::rename(&aside, path)
    })();
    result.map_err(|source| Error::Write {
        path: path.display().to_string(),
        source,
    })
}
