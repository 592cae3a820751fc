//! What the tests of the strategies share.

use kontiki_api::field::Error;
use serde_json::Value;

use crate::strategy::{Context, Objects, Strategy};

/// Other objects, as a list of (group, plural, object).
pub(super) struct Fixed(pub(super) Vec<(&'static str, &'static str, Value)>);

impl Objects for Fixed {
    fn get(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        let is = |o: &Value| {
            kontiki_api::object::name(o) == name && kontiki_api::object::namespace(o) == namespace
        };
        self.0
            .iter()
            .find(|(g, p, o)| *g == group && *p == plural && is(o))
            .map(|(_, _, o)| o.clone())
    }

    fn each(&self, group: &str, plural: &str, visit: &mut dyn FnMut(&Value)) {
        self.0
            .iter()
            .filter(|(g, p, _)| *g == group && *p == plural)
            .for_each(|(_, _, o)| visit(o));
    }
}

static NONE: Fixed = Fixed(Vec::new());

/// A context of a cluster without objects.
pub(super) fn cx() -> Context<'static> {
    with(&NONE)
}

/// A context of a cluster with these objects.
pub(super) fn with(objects: &Fixed) -> Context<'_> {
    Context {
        namespace: "ns",
        user: "someone",
        now: "2026-01-01T00:00:00Z",
        dry_run: false,
        objects,
    }
}

/// The fields that errors are about.
pub(super) fn fields(errors: &[Error]) -> Vec<String> {
    errors.iter().map(|e| e.field.clone()).collect()
}

/// The object with its defaults, which a second run may not change.
pub(super) fn idempotent(strategy: &dyn Strategy, mut object: Value) -> Value {
    strategy.default(&mut object);
    let once = object.clone();
    strategy.default(&mut object);
    assert_eq!(object, once, "defaults are not idempotent");
    once
}
