//! What the strategies of flow control share.

use kontiki_api::field::{Error, Path};
use serde_json::Value;

use super::checks::Errors;

/// The number at `key`, where it is said, may not be below `least`.
pub(super) fn at_least(
    errors: &mut Errors,
    at: &Path,
    v: &Value,
    key: &str,
    least: i64,
    why: &str,
) {
    if let Some(n) = v.get(key).and_then(Value::as_i64).filter(|n| *n < least) {
        errors.push(Error::invalid(&at.child(key), n, why));
    }
}
