//! The fact tables, read into maps.

use std::collections::HashMap;

/// What `list-facts.tsv` says of a property (or, with an empty property, of a definition).
#[derive(Clone, Default)]
pub(crate) struct ListFact {
    pub(crate) list_type: String,
    pub(crate) map_keys: String,
    pub(crate) patch_strategy: String,
    pub(crate) merge_key: String,
}

/// What `go-fields.tsv` says of a property where the rules do not hold.
#[derive(Clone, Default)]
pub(crate) struct GoFact {
    pub(crate) go: String,
    pub(crate) required: String,
    pub(crate) default: String,
    pub(crate) values: String,
}

/// A resource of the catalogue.
pub(crate) struct Kind {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    pub(crate) listed: bool,
}

/// All facts.
pub(crate) struct Facts {
    pub(crate) lists: HashMap<(String, String), ListFact>,
    pub(crate) go: HashMap<(String, String), GoFact>,
    pub(crate) unions: HashMap<String, String>,
    pub(crate) kinds: Vec<Kind>,
    /// Place of a field in its Go struct, by message and field in lower case (a few messages have capitals).
    pub(crate) order: HashMap<(String, String), usize>,
}

fn rows(path: &str) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("cannot read {path}: {e}"));
    text.lines()
        .skip(1)
        .map(|l| l.split('\t').map(str::to_owned).collect())
        .collect()
}

impl Facts {
    pub(crate) fn load() -> Facts {
        let lists = rows("facts/list-facts.tsv").into_iter().map(|r| {
            let fact = ListFact {
                list_type: r[2].clone(),
                map_keys: r[3].clone(),
                patch_strategy: r[4].clone(),
                merge_key: r[5].clone(),
            };
            ((r[0].clone(), r[1].clone()), fact)
        });
        let go = rows("facts/go-fields.tsv").into_iter().map(|r| {
            let fact = GoFact {
                go: r[2].clone(),
                required: r[3].clone(),
                default: r[4].clone(),
                values: r[5].clone(),
            };
            ((r[0].clone(), r[1].clone()), fact)
        });
        let unions = rows("facts/unions.tsv")
            .into_iter()
            .map(|r| (r[0].clone(), format!("{};{}", r[1], r[2])));
        let kinds = rows("../api/resources.tsv")
            .into_iter()
            .filter(|r| r[3].is_empty())
            .map(|r| Kind {
                group: r[0].clone(),
                version: r[1].clone(),
                kind: r[4].clone(),
                listed: r[6].split(',').any(|v| v == "list"),
            });
        let order = rows("facts/protobuf-fields.tsv")
            .into_iter()
            .enumerate()
            .map(|(i, r)| ((r[0].clone(), r[1].to_lowercase()), i));
        Facts {
            lists: lists.collect(),
            go: go.collect(),
            unions: unions.collect(),
            kinds: kinds.collect(),
            order: order.collect(),
        }
    }

    /// The Go fact of a property; a definition of an older version follows its `v1` where it has no row of its own.
    pub(crate) fn go(&self, definition: &str, property: &str) -> GoFact {
        let get = |d: &str| self.go.get(&(d.to_owned(), property.to_owned())).cloned();
        get(definition)
            .or_else(|| get(&stable(definition)?))
            .unwrap_or_default()
    }

    /// The list fact of a property.
    pub(crate) fn list(&self, definition: &str, property: &str) -> ListFact {
        self.lists
            .get(&(definition.to_owned(), property.to_owned()))
            .cloned()
            .unwrap_or_default()
    }

    /// Place of a property in its Go struct, for the order of `required`.
    pub(crate) fn order(&self, definition: &str, property: &str) -> usize {
        let message = definition
            .replacen("io.k8s.", "k8s.io.", 1)
            .replace('-', "_");
        self.order
            .get(&(message, property.to_lowercase()))
            .copied()
            .unwrap_or(usize::MAX)
    }
}

fn stable(definition: &str) -> Option<String> {
    let mut parts: Vec<&str> = definition.split('.').collect();
    let at = parts.len().checked_sub(2)?;
    if !parts[at].contains("alpha") && !parts[at].contains("beta") {
        return None;
    }
    parts[at] = "v1";
    Some(parts.join("."))
}
