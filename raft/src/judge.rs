//! What a transaction does to a state: a pure function, the same in every store and on every master.

use std::time::Duration;

use bytes::Bytes;

use crate::record::Record;
use crate::{Change, KeyValue, Op, Precondition, Revision, StoreError, Txn, TxnOutcome};

/// The state that a transaction is judged against.
pub(crate) trait View {
    /// What a key holds now, with the effects of all earlier transactions.
    fn get(&mut self, key: &Bytes) -> Result<Option<Record>, StoreError>;
}

/// What changes at one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Effect {
    pub(crate) key: Bytes,
    pub(crate) old: Option<Record>,
    pub(crate) new: Option<Record>,
}

impl Effect {
    /// The change as others see it.
    pub(crate) fn change(&self, revision: Revision) -> Change {
        let create_revision = self
            .new
            .as_ref()
            .or(self.old.as_ref())
            .map_or(Revision::ZERO, |record| record.create_revision);
        Change {
            revision,
            key: self.key.clone(),
            value: self.new.as_ref().map(|record| record.value.clone()),
            previous: self.old.as_ref().map(|record| record.key_value(&self.key)),
            create_revision,
        }
    }
}

/// Judges a transaction in the state after `current`, at the time that came in with it. The effects
/// are empty exactly if it takes no revision.
pub(crate) fn judge(
    view: &mut impl View,
    txn: &Txn,
    current: Revision,
    now_ms: u64,
) -> Result<(TxnOutcome, Vec<Effect>), StoreError> {
    for (index, condition) in txn.preconditions.iter().enumerate() {
        let key = condition.key();
        let record = view.get(key)?;
        if !holds(condition, record.as_ref()) {
            let outcome = TxnOutcome::PreconditionFailed {
                index,
                current: record.map(|record| record.into_key_value(key.clone())),
                revision: current,
            };
            return Ok((outcome, Vec::new()));
        }
    }
    let revision = current.next();
    let mut previous = Vec::with_capacity(txn.ops.len());
    let mut effects = Vec::with_capacity(txn.ops.len());
    for op in &txn.ops {
        let key = op.key();
        let old = view.get(key)?;
        previous.push(old.as_ref().map(|record| record.key_value(key)));
        let new = match op {
            Op::Put { value, ttl, .. } => Some(Record {
                create_revision: old.as_ref().map_or(revision, |old| old.create_revision),
                mod_revision: revision,
                expires_at_ms: ttl.map_or(0, |ttl| deadline_ms(now_ms, ttl)),
                value: value.clone(),
            }),
            Op::Delete { .. } => None,
        };
        if old.is_some() || new.is_some() {
            effects.push(Effect {
                key: key.clone(),
                old,
                new,
            });
        }
    }
    let revision = if effects.is_empty() {
        current
    } else {
        revision
    };
    Ok((TxnOutcome::Committed { revision, previous }, effects))
}

fn holds(condition: &Precondition, record: Option<&Record>) -> bool {
    match condition {
        Precondition::ModRevision { revision, .. } => {
            record.map_or(Revision::ZERO, |record| record.mod_revision) == *revision
        }
        Precondition::Exists { .. } => record.is_some(),
        Precondition::Absent { .. } => record.is_none(),
    }
}

/// When a time to live that starts now runs out; never 0, which would mean that it does not.
fn deadline_ms(now_ms: u64, ttl: Duration) -> u64 {
    let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
    now_ms.saturating_add(ttl_ms).max(1)
}

/// The transaction that removes a key whose time to live has run out, or nothing if the key has
/// been written since.
pub(crate) fn expire(
    view: &mut impl View,
    key: &Bytes,
    now_ms: u64,
) -> Result<Option<Effect>, StoreError> {
    let old = view.get(key)?;
    let due = old
        .as_ref()
        .is_some_and(|record| record.expires_at_ms != 0 && record.expires_at_ms <= now_ms);
    Ok(due.then(|| Effect {
        key: key.clone(),
        old,
        new: None,
    }))
}

/// What a key held, as a key-value.
pub(crate) fn key_value(key: &[u8], record: Option<Record>) -> Option<KeyValue> {
    record.map(|record| record.into_key_value(Bytes::copy_from_slice(key)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Default)]
    struct Plain(BTreeMap<Bytes, Record>);

    impl View for Plain {
        fn get(&mut self, key: &Bytes) -> Result<Option<Record>, StoreError> {
            Ok(self.0.get(key).cloned())
        }
    }

    fn key(name: &'static str) -> Bytes {
        Bytes::from_static(name.as_bytes())
    }

    fn put(name: &'static str, value: &'static str, ttl: Option<Duration>) -> Op {
        Op::Put {
            key: key(name),
            value: key(value),
            ttl,
        }
    }

    fn one_key(expires_at_ms: u64) -> Plain {
        let record = Record {
            create_revision: Revision(3),
            mod_revision: Revision(5),
            expires_at_ms,
            value: key("old"),
        };
        Plain(BTreeMap::from([(key("a"), record)]))
    }

    fn check(
        view: &mut Plain,
        preconditions: Vec<Precondition>,
        ops: Vec<Op>,
    ) -> (TxnOutcome, Vec<Effect>) {
        let txn = Txn { preconditions, ops };
        judge(view, &txn, Revision(7), 1000).unwrap()
    }

    #[test]
    fn a_put_takes_the_next_revision_and_keeps_the_birth() {
        let (outcome, effects) = check(
            &mut one_key(0),
            vec![Precondition::ModRevision {
                key: key("a"),
                revision: Revision(5),
            }],
            vec![
                put("a", "new", Some(Duration::from_secs(1))),
                put("b", "x", None),
            ],
        );
        let TxnOutcome::Committed { revision, previous } = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!(revision, Revision(8));
        assert_eq!(previous[0].as_ref().unwrap().value, "old");
        assert_eq!(previous[1], None);
        let new = effects[0].new.as_ref().unwrap();
        assert_eq!(
            (new.create_revision, new.mod_revision),
            (Revision(3), Revision(8))
        );
        assert_eq!(new.expires_at_ms, 2000);
        assert_eq!(
            effects[1].new.as_ref().unwrap().create_revision,
            Revision(8)
        );
        assert_eq!(
            effects[0].change(Revision(8)).previous.unwrap().value,
            "old"
        );
    }

    #[test]
    fn the_first_precondition_that_fails_is_named() {
        let (outcome, effects) = check(
            &mut one_key(0),
            vec![
                Precondition::Exists { key: key("a") },
                Precondition::Absent { key: key("a") },
            ],
            vec![put("a", "new", None)],
        );
        assert!(effects.is_empty());
        let TxnOutcome::PreconditionFailed {
            index,
            current,
            revision,
        } = outcome
        else {
            panic!("{outcome:?}");
        };
        assert_eq!((index, revision), (1, Revision(7)));
        assert_eq!(current.unwrap().mod_revision, Revision(5));
    }

    #[test]
    fn revision_zero_means_absent() {
        let absent = |name| Precondition::ModRevision {
            key: key(name),
            revision: Revision::ZERO,
        };
        let (outcome, _) = check(&mut one_key(0), vec![absent("b")], vec![]);
        assert!(matches!(outcome, TxnOutcome::Committed { .. }));
        let (outcome, _) = check(&mut one_key(0), vec![absent("a")], vec![]);
        assert!(matches!(
            outcome,
            TxnOutcome::PreconditionFailed { index: 0, .. }
        ));
    }

    #[test]
    fn deleting_what_is_absent_takes_no_revision() {
        let (outcome, effects) = check(&mut one_key(0), vec![], vec![Op::Delete { key: key("b") }]);
        assert!(effects.is_empty());
        assert_eq!(
            outcome,
            TxnOutcome::Committed {
                revision: Revision(7),
                previous: vec![None]
            }
        );
    }

    #[test]
    fn only_what_is_due_expires() {
        assert!(
            expire(&mut one_key(1000), &key("a"), 1000)
                .unwrap()
                .is_some()
        );
        assert!(
            expire(&mut one_key(1001), &key("a"), 1000)
                .unwrap()
                .is_none()
        );
        assert!(expire(&mut one_key(0), &key("a"), 1000).unwrap().is_none());
        assert!(expire(&mut one_key(1), &key("b"), 1000).unwrap().is_none());
    }
}
