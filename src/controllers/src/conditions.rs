//! Conditions: the rules of when their times change.

use crate::views::Condition;

/// The condition of this type.
pub fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.kind == kind)
}

/// Sets a condition. One that has this status and reason stays as it is; the transition time changes with the status.
pub fn set(conditions: &mut Vec<Condition>, mut new: Condition) {
    if let Some(old) = find(conditions, &new.kind) {
        if old.status == new.status && old.reason == new.reason {
            return;
        }
        if old.status == new.status {
            new.last_transition_time
                .clone_from(&old.last_transition_time);
        }
    }
    conditions.retain(|c| c.kind != new.kind);
    conditions.push(new);
}

/// Takes a condition away.
pub fn remove(conditions: &mut Vec<Condition>, kind: &str) {
    conditions.retain(|c| c.kind != kind);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn c(status: &str, reason: &str, time: &str) -> Condition {
        let time = Some(time.to_owned());
        Condition {
            kind: "Ready".into(),
            status: status.into(),
            reason: reason.into(),
            last_transition_time: time.clone(),
            last_update_time: time,
            message: String::new(),
        }
    }

    #[test]
    fn times_change_only_with_what_they_tell() {
        let mut list = vec![c("True", "a", "1")];
        set(&mut list, c("True", "a", "2"));
        assert_eq!(list, [c("True", "a", "1")]);
        set(&mut list, c("True", "b", "2"));
        assert_eq!(
            (
                list[0].last_transition_time.as_deref(),
                list[0].last_update_time.as_deref()
            ),
            (Some("1"), Some("2"))
        );
        set(&mut list, c("False", "b", "3"));
        assert_eq!(list[0].last_transition_time.as_deref(), Some("3"));
        remove(&mut list, "Ready");
        assert!(list.is_empty());
    }
}
