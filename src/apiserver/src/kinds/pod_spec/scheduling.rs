//! Checks of what places a pod: tolerations, spreading, gates.

use kontiki_api::field::{Error, Path};
use kontiki_api::names;
use kontiki_api::object::{int, text};
use serde_json::Value;

use crate::kinds::checks::{Errors, complain, label_selector, member, unsupported};

/// The effects of taints.
pub(in crate::kinds) const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// The tolerations of a pod.
pub(in crate::kinds) fn tolerations(errors: &mut Errors, at: &Path, all: &[Value]) {
    for (i, t) in all.iter().enumerate() {
        let at = at.index(i);
        let (key, operator) = (text(t, &["key"]), text(t, &["operator"]));
        let (value, effect) = (text(t, &["value"]), text(t, &["effect"]));
        if !key.is_empty() {
            complain(errors, &at.child("key"), key, names::qualified_name(key));
        }
        if key.is_empty() && operator != "Exists" {
            let why = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(Error::invalid(&at.child("operator"), operator, why));
        }
        if member(t, "tolerationSeconds").is_some() && effect != "NoExecute" {
            let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.push(Error::invalid(&at.child("effect"), effect, why));
        }
        match operator {
            "" | "Equal" => complain(
                errors,
                &at.child("operator"),
                value,
                names::label_value(value),
            ),
            "Exists" if !value.is_empty() => {
                let why = "value must be empty when `operator` is 'Exists'";
                errors.push(Error::invalid(&at.child("operator"), value, why));
            }
            "Exists" => {}
            other => errors.push(unsupported(
                &at.child("operator"),
                other,
                &["Equal", "Exists"],
            )),
        }
        if !effect.is_empty() && !EFFECTS.contains(&effect) {
            errors.push(unsupported(&at.child("effect"), effect, &EFFECTS));
        }
    }
}

/// The spreading of pods over zones and nodes.
pub(super) fn spread(errors: &mut Errors, at: &Path, all: &[Value]) {
    const ACTIONS: [&str; 2] = ["DoNotSchedule", "ScheduleAnyway"];
    for (i, c) in all.iter().enumerate() {
        let at = at.index(i);
        let skew = int(c, &["maxSkew"]).unwrap_or_default();
        if skew <= 0 {
            errors.push(Error::invalid(
                &at.child("maxSkew"),
                skew,
                "must be greater than zero",
            ));
        }
        let key = text(c, &["topologyKey"]);
        if key.is_empty() {
            errors.push(Error::required(
                &at.child("topologyKey"),
                "can not be empty",
            ));
        } else {
            complain(
                errors,
                &at.child("topologyKey"),
                key,
                names::qualified_name(key),
            );
        }
        let action = text(c, &["whenUnsatisfiable"]);
        if !ACTIONS.contains(&action) {
            errors.push(Error::not_supported(
                &at.child("whenUnsatisfiable"),
                action,
                &ACTIONS,
            ));
        }
        let same = |d: &Value| {
            text(d, &["topologyKey"]) == key && text(d, &["whenUnsatisfiable"]) == action
        };
        if all[..i].iter().any(same) {
            let why = format!("{{{key}, {action}}}");
            errors.push(Error::duplicate(
                &at.child("{topologyKey, whenUnsatisfiable}"),
                why,
            ));
        }
        if let Some(n) = int(c, &["minDomains"]) {
            if n <= 0 {
                errors.push(Error::invalid(
                    &at.child("minDomains"),
                    n,
                    "must be greater than 0",
                ));
            }
            if action != "DoNotSchedule" {
                let why = format!(
                    "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}"
                );
                errors.push(Error::invalid(&at.child("minDomains"), n, why));
            }
        }
        for key in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            if let Some(p) = member(c, key).and_then(Value::as_str)
                && !["Honor", "Ignore"].contains(&p)
            {
                errors.push(Error::not_supported(
                    &at.child(key),
                    p,
                    &["Honor", "Ignore"],
                ));
            }
        }
        if let Some(s) = member(c, "labelSelector") {
            label_selector(errors, &at.child("labelSelector"), s);
        }
    }
}

/// Gates that hold back scheduling.
pub(super) fn gates(errors: &mut Errors, at: &Path, all: &[Value]) {
    for (i, g) in all.iter().enumerate() {
        let name = text(g, &["name"]);
        // Upstream names the item, not its member.
        complain(errors, &at.index(i), name, names::qualified_name(name));
        if all[..i].iter().any(|h| text(h, &["name"]) == name) {
            errors.push(Error::duplicate(&at.index(i).child("name"), name));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::fields;

    #[test]
    fn tolerations_agree_with_their_operator() {
        let mut e = Errors::new();
        let all = json!([{"key": "a", "operator": "Exists", "value": "x"}, {"operator": "Equal"},
            {"key": "a", "operator": "Exists", "effect": "x"}, {"key": "a", "effect": "NoSchedule", "tolerationSeconds": 1}]);
        tolerations(&mut e, &Path::new("t"), all.as_array().expect("a list"));
        assert_eq!(
            fields(&e),
            [
                "t[0].operator",
                "t[1].operator",
                "t[2].effect",
                "t[3].effect"
            ]
        );
    }

    #[test]
    fn spreading_is_by_unique_keys() {
        let mut e = Errors::new();
        let c = json!({"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule"});
        spread(
            &mut e,
            &Path::new("s"),
            &[c.clone(), c, json!({"maxSkew": 0})],
        );
        assert_eq!(
            fields(&e),
            [
                "s[1].{topologyKey, whenUnsatisfiable}",
                "s[2].maxSkew",
                "s[2].topologyKey",
                "s[2].whenUnsatisfiable"
            ]
        );
    }
}
