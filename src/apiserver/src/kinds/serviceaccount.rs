//! ServiceAccounts.

use jiff::Timestamp;
use serde_json::Value;

use super::columns::{AGE, NAME, named_row};
use crate::strategy::{Column, Strategy};

/// The strategy of serviceaccounts.
pub(super) struct ServiceAccount;

static COLUMNS: [Column; 2] = [NAME, AGE];

impl Strategy for ServiceAccount {
    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        named_row(object, now, [])
    }
}
