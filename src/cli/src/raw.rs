//! `kontiki get --raw PATH`: one GET, the answer as it came.

use std::io::Write;

use anyhow::{Result, bail};
use bytes::Bytes;
use kontiki_client::Remote;

/// Prints the answer to a GET of this path.
///
/// # Errors
/// The server cannot be reached or refuses; the message is its own.
pub async fn run(client: &Remote, path: &str, out: &mut dyn Write) -> Result<()> {
    if !path.starts_with('/') {
        bail!("{path:?} is not a path; write it as /api/v1/nodes");
    }
    let answer = client
        .raw(http::Method::GET, path, "", Bytes::new())
        .await?;
    out.write_all(&answer.body)?;
    if !answer.body.ends_with(b"\n") {
        out.write_all(b"\n")?;
    }
    Ok(())
}
