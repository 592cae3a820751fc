//! The default roles and bindings, read from a table (`facts/rbac.txt`, whose head explains its form).

use serde_json::{Map, Value, json};

use super::Made;

const TABLE: &str = include_str!("../../facts/rbac.txt");
const GROUP: &str = "rbac.authorization.k8s.io";
/// What the names of the roles of controllers begin with; the rest is the name of the service account.
const CONTROLLER: &str = "system:controller:";
/// What a server brings up to date at its start.
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const AGGREGATE: &str = "rbac.authorization.k8s.io/aggregate-to-";

/// All roles and bindings.
pub(super) fn objects() -> Vec<Made> {
    let mut made: Vec<Made> = Vec::new();
    let lines = TABLE
        .lines()
        .filter(|l| !l.is_empty() && !l.starts_with('#'));
    for line in lines {
        let words: Vec<&'static str> = line.split_whitespace().collect();
        if line.starts_with(' ') {
            let last = made.last_mut().expect("an object comes before its lines");
            add_line(&mut last.object, last.plural, &words);
        } else {
            made.push(head(&words));
        }
    }
    let roles = TABLE.lines().filter_map(|l| l.strip_prefix("clusterrole "));
    made.extend(roles.filter_map(controller_binding));
    made
}

/// What the first line of an object says.
fn head(words: &[&'static str]) -> Made {
    let (plural, namespace, name, rest) = match *words {
        ["clusterrole", name, ref rest @ ..] => ("clusterroles", "", name, rest),
        ["clusterrolebinding", name] => ("clusterrolebindings", "", name, &[][..]),
        ["role", namespace, name] => ("roles", namespace, name, &[][..]),
        ["rolebinding", namespace, name] => ("rolebindings", namespace, name, &[][..]),
        _ => panic!("{words:?} begins no object"),
    };
    let mut object = json!({"metadata": {
        "name": name,
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        "annotations": {AUTOUPDATE: "true"},
    }});
    let mut from = Vec::new();
    for word in rest {
        match word.split_once('=') {
            Some(("to", role)) => {
                object["metadata"]["labels"][format!("{AGGREGATE}{role}")] = "true".into();
            }
            Some(("from", role)) => from.push(selector(role)),
            _ => panic!("{word} says nothing of a role"),
        }
    }
    if !from.is_empty() {
        object["aggregationRule"] = json!({"clusterRoleSelectors": from});
        object["rules"] = Value::Null;
    } else if plural.ends_with("roles") {
        object["rules"] = json!([]);
    }
    Made {
        group: GROUP,
        plural,
        namespace,
        object,
    }
}

fn selector(role: &str) -> Value {
    let labels: Map<String, Value> = [(format!("{AGGREGATE}{role}"), "true".into())]
        .into_iter()
        .collect();
    json!({"matchLabels": labels})
}

fn add_line(object: &mut Value, plural: &str, words: &[&str]) {
    if plural.ends_with("roles") {
        let rules = object["rules"].as_array_mut().expect("a role has rules");
        rules.push(rule(words));
        return;
    }
    let named = |kind: &str, name: &str| json!({"apiGroup": GROUP, "kind": kind, "name": name});
    let subject = match *words {
        [kind @ ("ClusterRole" | "Role"), name] => {
            object["roleRef"] = named(kind, name);
            return;
        }
        ["ServiceAccount", namespace, name] => account(namespace, name),
        [kind, name] => named(kind, name),
        _ => panic!("{words:?} is no subject"),
    };
    match object.get_mut("subjects").and_then(Value::as_array_mut) {
        Some(all) => all.push(subject),
        None => object["subjects"] = json!([subject]),
    }
}

fn account(namespace: &str, name: &str) -> Value {
    json!({"kind": "ServiceAccount", "namespace": namespace, "name": name})
}

fn rule(words: &[&str]) -> Value {
    let split = |list: &str| -> Vec<String> {
        let list = if list == "read" {
            "get,list,watch"
        } else {
            list
        };
        list.split(',').map(String::from).collect()
    };
    match *words {
        ["events"] => rule(&["core,events.k8s.io", "events", "create,patch,update"]),
        ["url", paths, verbs] => json!({"nonResourceURLs": split(paths), "verbs": split(verbs)}),
        [groups, resources, verbs, ref names @ ..] => {
            let groups: Vec<String> = split(groups)
                .into_iter()
                .map(|g| if g == "core" { String::new() } else { g })
                .collect();
            let mut rule =
                json!({"apiGroups": groups, "resources": split(resources), "verbs": split(verbs)});
            if let [names] = names {
                rule["resourceNames"] = json!(split(names));
            }
            rule
        }
        _ => panic!("{words:?} is no rule"),
    }
}

/// A controller's role is bound to the service account that it is named after.
fn controller_binding(role: &'static str) -> Option<Made> {
    let controller = role.strip_prefix(CONTROLLER)?;
    let mut made = head(&["clusterrolebinding", role]);
    made.object["roleRef"] = json!({"apiGroup": GROUP, "kind": "ClusterRole", "name": role});
    made.object["subjects"] = json!([account("kube-system", controller)]);
    Some(made)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use kontiki_api::object::{list, name, text};

    use super::*;

    fn found(plural: &str, wanted: &str) -> Value {
        let all = objects();
        let one = all
            .into_iter()
            .find(|m| m.plural == plural && name(&m.object) == wanted);
        one.unwrap_or_else(|| panic!("there is no {wanted}")).object
    }

    #[test]
    fn every_binding_binds_a_role_that_is_there() {
        let all = objects();
        let roles: BTreeSet<(&str, &str)> = all
            .iter()
            .filter(|m| m.plural.ends_with("roles"))
            .map(|m| (m.namespace, name(&m.object)))
            .collect();
        for m in all.iter().filter(|m| m.plural.ends_with("bindings")) {
            let role = text(&m.object, &["roleRef", "name"]);
            assert!(roles.contains(&(m.namespace, role)), "{role}");
        }
        let keys: BTreeSet<(&str, &str, &str)> = all
            .iter()
            .map(|m| (m.plural, m.namespace, name(&m.object)))
            .collect();
        assert_eq!(keys.len(), all.len(), "each object is there once");
    }

    #[test]
    fn lines_become_rules_and_subjects() {
        let admin = found("clusterroles", "cluster-admin");
        assert_eq!(
            admin["rules"],
            json!([
                {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
                {"nonResourceURLs": ["*"], "verbs": ["*"]},
            ])
        );
        let edit = found("clusterroles", "edit");
        assert_eq!(
            edit["metadata"]["labels"][format!("{AGGREGATE}admin")],
            "true"
        );
        assert_eq!(
            list(&edit, &["aggregationRule", "clusterRoleSelectors"]).len(),
            1
        );
        assert!(edit["rules"].is_null());
        let proxier = found("clusterrolebindings", "system:node-proxier");
        assert_eq!(
            proxier["subjects"],
            json!([{"apiGroup": GROUP, "kind": "User", "name": "system:kube-proxy"}])
        );
        let jobs = found("clusterrolebindings", "system:controller:job-controller");
        assert_eq!(
            jobs["subjects"],
            json!([account("kube-system", "job-controller")])
        );
        let reader = found("roles", "extension-apiserver-authentication-reader");
        assert_eq!(
            reader["rules"][0]["resourceNames"],
            json!(["extension-apiserver-authentication"])
        );
    }
}
