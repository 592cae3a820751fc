//! What is to be done about one object, from the state of its owners and its dependents.

use kontiki_api::OwnerReference;

use super::graph::Item;

/// The finalizer of an object that waits for its dependents to be deleted.
pub(super) const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of an object whose dependents are to be set free.
pub(super) const ORPHAN: &str = "orphan";

/// What is known of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OwnerState {
    /// It is there.
    Solid,
    /// It is there, and being deleted in the foreground.
    WaitsForDependents,
    /// It is gone, or another object has its name.
    Absent,
}

/// One step.
#[derive(Clone, Debug)]
pub(super) enum Command {
    /// Deletes the object with this propagation policy.
    Delete(&'static str),
    /// Leaves the object with these owners only.
    KeepOwners(Vec<OwnerReference>),
    /// Leaves the object with these finalizers only.
    KeepFinalizers(Vec<String>),
    /// Leaves each of these dependents with these owners only.
    Orphan(Vec<(Item, Vec<OwnerReference>)>),
    /// Looks at these objects too.
    Wake(Vec<String>),
}

/// The steps for an object, in their order.
pub(super) fn plan(
    item: &Item,
    owners: &[(OwnerReference, OwnerState)],
    dependents: &[Item],
) -> Vec<Command> {
    let m = &item.meta.metadata;
    if item.waits_for(ORPHAN) {
        return orphan(item, dependents);
    }
    if item.waits_for(FOREGROUND) {
        return foreground(item, dependents);
    }
    if m.is_deleting() || owners.is_empty() {
        return Vec::new();
    }
    let with = |state: OwnerState| owners.iter().filter(move |(_, s)| *s == state);
    if with(OwnerState::Solid).next().is_some() {
        let solid: Vec<OwnerReference> = with(OwnerState::Solid).map(|(o, _)| o.clone()).collect();
        // One owner that stays is enough; those that go must not be waited for.
        return if solid.len() < owners.len() {
            vec![Command::KeepOwners(solid)]
        } else {
            Vec::new()
        };
    }
    let waited_for = with(OwnerState::WaitsForDependents).next().is_some();
    if waited_for && !dependents.is_empty() {
        // Its owner waits for all that is below it, so it waits for its own in turn.
        return vec![Command::Delete("Foreground")];
    }
    let has = |f: &str| m.finalizers.iter().any(|x| x == f);
    vec![Command::Delete(if has(ORPHAN) {
        "Orphan"
    } else if has(FOREGROUND) {
        "Foreground"
    } else {
        "Background"
    })]
}

fn without(item: &Item, finalizer: &str) -> Command {
    Command::KeepFinalizers(
        item.meta
            .metadata
            .finalizers
            .iter()
            .filter(|f| *f != finalizer)
            .cloned()
            .collect(),
    )
}

fn orphan(item: &Item, dependents: &[Item]) -> Vec<Command> {
    let uid = &item.meta.metadata.uid;
    let freed: Vec<(Item, Vec<OwnerReference>)> = dependents
        .iter()
        .map(|d| {
            let owners = d
                .meta
                .metadata
                .owner_references
                .iter()
                .filter(|o| o.uid != *uid)
                .cloned();
            (d.clone(), owners.collect())
        })
        .collect();
    let mut commands = Vec::new();
    if !freed.is_empty() {
        commands.push(Command::Orphan(freed));
    }
    commands.push(without(item, ORPHAN));
    commands
}

fn foreground(item: &Item, dependents: &[Item]) -> Vec<Command> {
    let uid = &item.meta.metadata.uid;
    let blocks = |d: &&Item| {
        d.meta
            .metadata
            .owner_references
            .iter()
            .any(|o| o.uid == *uid && o.block_owner_deletion == Some(true))
    };
    let mut commands = Vec::new();
    let leaving: Vec<String> = dependents
        .iter()
        .filter(|d| !d.meta.metadata.is_deleting())
        .map(|d| d.meta.metadata.uid.clone())
        .collect();
    if !leaving.is_empty() {
        commands.push(Command::Wake(leaving));
    }
    if !dependents.iter().any(|d| blocks(&d)) {
        commands.push(without(item, FOREGROUND));
    }
    commands
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kontiki_api::ObjectMeta;
    use kontiki_api::catalogue::known;

    use super::*;
    use crate::views::Meta;

    fn owner(uid: &str, block: bool) -> OwnerReference {
        OwnerReference {
            uid: uid.into(),
            block_owner_deletion: Some(block),
            ..OwnerReference::default()
        }
    }

    fn item(uid: &str, owners: &[OwnerReference], finalizers: &[&str], deleting: bool) -> Item {
        let metadata = ObjectMeta {
            uid: uid.into(),
            owner_references: owners.to_vec(),
            finalizers: finalizers.iter().map(|f| (*f).to_owned()).collect(),
            deletion_timestamp: deleting.then(|| "2026-01-01T00:00:00Z".into()),
            ..ObjectMeta::default()
        };
        Item {
            resource: known::pods(),
            meta: Arc::new(Meta { metadata }),
        }
    }

    fn words(commands: &[Command]) -> Vec<String> {
        commands
            .iter()
            .map(|c| match c {
                Command::Delete(policy) => format!("delete {policy}"),
                Command::KeepOwners(o) => format!(
                    "owners {}",
                    o.iter().map(|o| o.uid.as_str()).collect::<String>()
                ),
                Command::KeepFinalizers(f) => format!("finalizers {}", f.join(",")),
                Command::Orphan(d) => format!("orphan {}", d.len()),
                Command::Wake(u) => format!("wake {}", u.join(",")),
            })
            .collect()
    }

    #[test]
    fn an_object_goes_when_all_of_its_owners_are_gone() {
        use OwnerState::{Absent, Solid, WaitsForDependents};
        let (a, b) = (owner("a", true), owner("b", true));
        let x = item("x", &[a.clone(), b.clone()], &[], false);
        let look = |sa, sb| words(&plan(&x, &[(a.clone(), sa), (b.clone(), sb)], &[]));
        assert_eq!(look(Absent, Absent), ["delete Background"]);
        assert_eq!(look(Absent, Solid), ["owners b"]);
        assert_eq!(look(WaitsForDependents, Solid), ["owners b"]);
        assert!(look(Solid, Solid).is_empty());
        assert_eq!(look(WaitsForDependents, Absent), ["delete Background"]);
        let below = [item("y", &[owner("x", true)], &[], false)];
        let with_dependents = plan(&x, &[(a.clone(), WaitsForDependents)], &below);
        assert_eq!(words(&with_dependents), ["delete Foreground"]);
    }

    #[test]
    fn what_has_no_owner_or_is_leaving_is_let_be() {
        assert!(plan(&item("x", &[], &[], false), &[], &[]).is_empty());
        let a = owner("a", true);
        let x = item("x", std::slice::from_ref(&a), &["other"], true);
        assert!(plan(&x, &[(a, OwnerState::Absent)], &[]).is_empty());
    }

    #[test]
    fn foreground_deletion_waits_for_blocking_dependents() {
        let x = item("x", &[], &["keep", FOREGROUND], true);
        let blocking = item("d", &[owner("x", true)], &[], false);
        assert_eq!(
            words(&plan(&x, &[], std::slice::from_ref(&blocking))),
            ["wake d"]
        );
        let leaving = item("d", &[owner("x", true)], &["f"], true);
        assert!(
            plan(&x, &[], &[leaving]).is_empty(),
            "it waits until the last is gone"
        );
        let free = item("d", &[owner("x", false)], &[], false);
        assert_eq!(
            words(&plan(&x, &[], &[free])),
            ["wake d", "finalizers keep"]
        );
        assert_eq!(words(&plan(&x, &[], &[])), ["finalizers keep"]);
    }

    #[test]
    fn orphans_are_freed_before_their_owner_goes() {
        let x = item("x", &[], &[ORPHAN], true);
        let d = item("d", &[owner("x", true), owner("y", false)], &[], false);
        let commands = plan(&x, &[], std::slice::from_ref(&d));
        assert_eq!(words(&commands), ["orphan 1", "finalizers "]);
        let Command::Orphan(freed) = &commands[0] else {
            panic!("dependents come first")
        };
        assert_eq!(freed[0].1, [owner("y", false)]);
    }
}
