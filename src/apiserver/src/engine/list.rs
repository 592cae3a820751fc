//! Lists: from the cache as it is now, or page by page from the store's history at one revision.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use kontiki_api::field::{Error, Path};
use kontiki_api::{ApiError, fields, labels};
use kontiki_raft::{Range, Revision, StoreError};
use serde::{Deserialize, Serialize};

use super::{Engine, read, unavailable};
use crate::cache::{Entry, Filter};
use crate::keys;
use crate::registry::Kind;
use crate::request::Query;

/// How many objects are read at a time while a page is looked for whose objects must match a selector.
const SCAN_OBJECTS: usize = 1000;

/// How exact a list must meet the resourceVersion that it asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Match {
    #[default]
    Unset,
    Exact,
    NotOlderThan,
}

/// What a list or deletecollection asks for.
#[derive(Clone, Debug, Default)]
pub(crate) struct ListOptions {
    pub(crate) labels: labels::Selector,
    pub(crate) fields: fields::Selector,
    pub(crate) limit: usize,
    pub(crate) token: String,
    /// `None` wants the newest state.
    pub(crate) revision: Option<u64>,
    pub(crate) matching: Match,
}

/// A list, or a page of one.
pub(crate) struct List {
    pub(crate) entries: Vec<Arc<Entry>>,
    pub(crate) revision: u64,
    /// The token of the next page; empty on the last.
    pub(crate) token: String,
    /// How many objects come after this page, where that is known.
    pub(crate) remaining: Option<u64>,
}

impl ListOptions {
    /// Reads the options of a list from its query.
    pub(crate) fn from_query(q: &Query, kind: &Kind) -> Result<ListOptions, ApiError> {
        let mut errors = Vec::new();
        let (revision, matching) = (q.get("resourceVersion"), q.get("resourceVersionMatch"));
        let token = q.get("continue");
        let path = Path::new("resourceVersionMatch");
        let parsed = match matching {
            "" => Match::Unset,
            "Exact" => Match::Exact,
            "NotOlderThan" => Match::NotOlderThan,
            _ => Match::Unset,
        };
        if !matching.is_empty() {
            if revision.is_empty() {
                errors.push(Error::forbidden(
                    &path,
                    "resourceVersionMatch is forbidden unless resourceVersion is provided",
                ));
            }
            if !token.is_empty() {
                errors.push(Error::forbidden(
                    &path,
                    "resourceVersionMatch is forbidden when continue is provided",
                ));
            }
            if parsed == Match::Unset {
                errors.push(Error::not_supported(
                    &path,
                    matching,
                    &["Exact", "NotOlderThan", ""],
                ));
            }
            if parsed == Match::Exact && revision == "0" {
                let detail =
                    "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
                errors.push(Error::forbidden(&path, detail));
            }
        }
        if q.has("sendInitialEvents") {
            errors.push(Error::forbidden(
                &Path::new("sendInitialEvents"),
                "sendInitialEvents is forbidden for list",
            ));
        }
        if !errors.is_empty() {
            return Err(ApiError::invalid("meta.k8s.io", "ListOptions", "", &errors));
        }
        let (labels, fields) = selectors(q, kind)?;
        if !token.is_empty() && !revision.is_empty() && revision != "0" {
            return Err(ApiError::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        let limit = match q.get("limit") {
            "" => 0,
            n => n.parse::<i64>().map_err(|_| not_a_number(n))?,
        };
        Ok(ListOptions {
            labels,
            fields,
            limit: usize::try_from(limit).unwrap_or(0),
            token: token.to_owned(),
            revision: parse_revision(revision)?,
            matching: parsed,
        })
    }
}

fn not_a_number(n: &str) -> ApiError {
    ApiError::bad_request(format!("strconv.ParseInt: parsing {n:?}: invalid syntax"))
}

/// Reads a resourceVersion; empty is `None`.
pub(super) fn parse_revision(text: &str) -> Result<Option<u64>, ApiError> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        let why = format!("strconv.ParseUint: parsing {text:?}: invalid syntax");
        let e = Error::invalid(&Path::new("resourceVersion"), text, why);
        ApiError::bad_request(format!("invalid resource version: {e}"))
    })
}

/// Reads the selectors of a query and checks that the kind has the fields.
pub(crate) fn selectors(
    q: &Query,
    kind: &Kind,
) -> Result<(labels::Selector, fields::Selector), ApiError> {
    let labels = labels::Selector::parse(q.get("labelSelector")).map_err(ApiError::bad_request)?;
    let mut fields =
        fields::Selector::parse(q.get("fieldSelector")).map_err(ApiError::bad_request)?;
    fields
        .terms
        .retain(|t| !(t.field.is_empty() && t.value.is_empty()));
    let own = kind.strategy.selectable_fields();
    for t in &mut fields.terms {
        if !kind.is_storage_version() {
            t.field = crate::convert::stored_field(kind.resource, &t.field);
        }
        let f = t.field.as_str();
        let known = f == "metadata.name" || (f == "metadata.namespace") || own.contains(&f);
        if !known {
            return Err(ApiError::bad_request(if own.is_empty() {
                format!(
                    "{f:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
                )
            } else {
                format!("field label not supported: {f}")
            }));
        }
    }
    Ok((labels, fields))
}

/// What a continue token says.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Token {
    #[serde(rename = "v", default)]
    version: String,
    #[serde(rename = "rv", default)]
    revision: i64,
    #[serde(default)]
    start: String,
}

const TOKEN_VERSION: &str = "meta.k8s.io/v1";
/// The revision of a token that goes on with whatever is there by then.
const INCONSISTENT: i64 = -1;

impl Token {
    fn encode(start: &str, revision: i64) -> String {
        let t = Token {
            version: TOKEN_VERSION.into(),
            revision,
            start: format!("{start}\0"),
        };
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&t).expect("a token is written to memory"))
    }

    fn decode(text: &str) -> Result<Token, ApiError> {
        let refuse = |why: String| {
            ApiError::bad_request(format!(
                "invalid continue token: continue key is not valid: {why}"
            ))
        };
        let trimmed = text.trim_end_matches('=');
        let bytes = URL_SAFE_NO_PAD
            .decode(trimmed)
            .or_else(|_| STANDARD_NO_PAD.decode(trimmed))
            .or_else(|_| URL_SAFE.decode(text))
            .map_err(|e| refuse(e.to_string()))?;
        let t: Token = serde_json::from_slice(&bytes).map_err(|e| refuse(e.to_string()))?;
        match t.version.as_str() {
            TOKEN_VERSION if t.revision == 0 => Err(refuse(format!(
                "incorrect encoded start resourceVersion (version {TOKEN_VERSION})"
            ))),
            TOKEN_VERSION if t.start.is_empty() => Err(refuse(format!(
                "encoded start key empty (version {TOKEN_VERSION})"
            ))),
            TOKEN_VERSION if t.start.split('/').any(|p| p == "..") => {
                Err(refuse("the start key is outside of the list".into()))
            }
            TOKEN_VERSION => Ok(t),
            other => Err(refuse(format!(
                "server does not recognize this encoded version {other}"
            ))),
        }
    }
}

impl Engine {
    /// Lists the objects of a namespace (empty: of all), or a page of them.
    pub(crate) async fn list(
        &self,
        kind: &Kind,
        namespace: &str,
        o: &ListOptions,
    ) -> Result<List, ApiError> {
        let filter = Filter::new(
            namespace,
            o.labels.clone(),
            o.fields.clone(),
            !kind.resource.namespaced,
        );
        if !o.token.is_empty() {
            return self.list_on(kind, namespace, &filter, o).await;
        }
        let exact = o.matching == Match::Exact || (o.matching == Match::Unset && o.limit > 0);
        match o.revision {
            Some(r) if r > 0 && exact => {
                self.reach(r).await?;
                let place = Place {
                    kind,
                    namespace,
                    start: String::new(),
                };
                return self
                    .page(&place, &filter, o.limit, Some(r))
                    .map_err(|e| history(&e));
            }
            Some(r) => self.reach(r).await?,
            None => {}
        }
        let now = match o.revision {
            None => self.catch_up().await?,
            Some(_) => self.store.applied_revision().0,
        };
        let snapshot = kind.cache.snapshot(&filter);
        let revision = snapshot.revision.max(now);
        let mut entries = snapshot.entries;
        // Revision 0 is answered whole, as upstream's watch cache does.
        if o.limit == 0 || entries.len() <= o.limit || o.revision == Some(0) {
            return Ok(List {
                entries,
                revision,
                token: String::new(),
                remaining: None,
            });
        }
        let rest = (entries.len() - o.limit) as u64;
        entries.truncate(o.limit);
        let last = entries.last().expect("the limit is not 0");
        let start = relative(last, namespace);
        let token = Token::encode(&start, i64::try_from(revision).unwrap_or(INCONSISTENT));
        let remaining = (!filter.selects()).then_some(rest);
        Ok(List {
            entries,
            revision,
            token,
            remaining,
        })
    }

    /// Goes on with a list where its token says.
    async fn list_on(
        &self,
        kind: &Kind,
        namespace: &str,
        filter: &Filter,
        o: &ListOptions,
    ) -> Result<List, ApiError> {
        let token = Token::decode(&o.token)?;
        let place = Place {
            kind,
            namespace,
            start: token.start.clone(),
        };
        let Ok(revision) = u64::try_from(token.revision) else {
            self.catch_up().await?;
            return self
                .page(&place, filter, o.limit, None)
                .map_err(|e| history(&e));
        };
        self.reach(revision).await?;
        self.page(&place, filter, o.limit, Some(revision)).map_err(|e| match e {
            StoreError::Compacted { .. } => {
                let mut e = ApiError::expired(
                    "The provided continue parameter is too old to display a consistent list result. You can start a new \
                     list without the continue parameter, or use the continue token in this response to retrieve the \
                     remainder of the results. Continuing with the provided token results in an inconsistent list - \
                     objects that were created, modified, or deleted between the time the first chunk was returned and \
                     now may show up in the list.",
                );
                let token = Token { revision: INCONSISTENT, ..token };
                e.0.continue_token = Token::encode(token.start.trim_end_matches('\0'), INCONSISTENT);
                e
            }
            e => history(&e),
        })
    }

    /// A page from the store's history.
    fn page(
        &self,
        at: &Place<'_>,
        filter: &Filter,
        limit: usize,
        revision: Option<u64>,
    ) -> Result<List, StoreError> {
        let prefix = at.prefix();
        let mut range = Range::prefix(prefix.clone());
        if !at.start.is_empty() {
            range.start = range.start.max(format!("{prefix}{}", at.start).into());
        }
        let mut at_revision = revision.map(Revision);
        let mut entries = Vec::new();
        let exact = limit > 0 && !filter.selects();
        loop {
            let chunk = if limit == 0 {
                0
            } else if exact {
                limit
            } else {
                SCAN_OBJECTS.max(limit)
            };
            let page = self.store.range(range.clone(), at_revision, chunk)?;
            at_revision = Some(page.revision);
            let total = page.kvs.len();
            for (i, kv) in page.kvs.iter().enumerate() {
                let Some((_, place)) = keys::split(&kv.key) else {
                    continue;
                };
                let entry = Entry::new(place, &kv.value, kv.mod_revision.0, at.kind.strategy)
                    .map_err(|e| StoreError::Invalid {
                        reason: e.to_string(),
                    })?;
                if filter.matches(&entry) {
                    entries.push(Arc::new(entry));
                }
                let more = page.more || i + 1 < total;
                if limit > 0 && entries.len() == limit && more {
                    let last = entries.last().expect("there is one");
                    let shown = match revision {
                        Some(r) => i64::try_from(r).unwrap_or(INCONSISTENT),
                        None => i64::try_from(page.revision.0).unwrap_or(INCONSISTENT),
                    };
                    let token = Token::encode(&relative(last, at.namespace), shown);
                    let remaining = exact.then_some(page.remaining);
                    return Ok(List {
                        entries,
                        revision: page.revision.0,
                        token,
                        remaining,
                    });
                }
            }
            if !page.more {
                return Ok(List {
                    entries,
                    revision: page.revision.0,
                    token: String::new(),
                    remaining: None,
                });
            }
            range = range.after(&page.kvs.last().expect("there is more").key);
        }
    }
}

/// Where a page begins.
struct Place<'a> {
    kind: &'a Kind,
    namespace: &'a str,
    start: String,
}

impl Place<'_> {
    fn prefix(&self) -> String {
        let slash = if self.namespace.is_empty() { "" } else { "/" };
        format!("{}{}{slash}", self.kind.cache.prefix(), self.namespace)
    }
}

/// The object's place as seen from the list: without the namespace of the request.
fn relative(e: &Entry, namespace: &str) -> String {
    if namespace.is_empty() {
        keys::place(&e.namespace, &e.name)
    } else {
        e.name.to_string()
    }
}

fn history(e: &StoreError) -> ApiError {
    match e {
        StoreError::FutureRevision { requested, current } => {
            read::too_large(requested.0, current.0)
        }
        e => unavailable(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_and_foreign_ones_are_refused() {
        let t = Token::decode(&Token::encode("ns/a", 7)).expect("own token");
        assert_eq!((t.start.as_str(), t.revision), ("ns/a\0", 7));
        for bad in ["garbage", "eyJ2IjoieCJ9", "e30", "!"] {
            assert_eq!(Token::decode(bad).expect_err(bad).code(), 400);
        }
    }
}
