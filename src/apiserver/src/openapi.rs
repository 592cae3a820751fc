//! The OpenAPI documents, made when they are first asked for and kept.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, ETAG, HeaderName, HeaderValue, IF_NONE_MATCH, LAST_MODIFIED, VARY,
};
use http::{HeaderMap, Response, StatusCode};
use kontiki_api::Resource;
use kontiki_schema::openapi::Api;
use parking_lot::Mutex;
use serde_json::json;
use sha2::{Digest, Sha512};

use crate::body::Body;
use crate::request::Query;
use crate::respond;
use crate::version;

/// How clients ask for the protobuf form of version 2; the first is a misspelling that lived on.
const PROTOBUF_V2: [&str; 2] = [
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
];

#[derive(Clone)]
struct Document {
    bytes: Bytes,
    etag: String,
}

impl Document {
    fn new(bytes: Vec<u8>) -> Document {
        // It is kept for ever: without the room that it was given to grow.
        let bytes = bytes.into_boxed_slice();
        let etag = Sha512::digest(&bytes)
            .iter()
            .map(|b| format!("{b:02X}"))
            .collect();
        Document {
            bytes: bytes.into(),
            etag,
        }
    }
}

/// The documents of what is served.
pub(crate) struct OpenApi {
    resources: Vec<&'static Resource>,
    started: jiff::Timestamp,
    v2: OnceLock<Document>,
    v2_protobuf: OnceLock<Document>,
    /// Only names that exist are remembered: a client cannot fill the maps.
    v3: Mutex<BTreeMap<String, Document>>,
    /// The index names every document, and most are never asked for.
    v3_etags: Mutex<BTreeMap<String, String>>,
}

impl OpenApi {
    pub(crate) fn new(resources: Vec<&'static Resource>, started: jiff::Timestamp) -> OpenApi {
        OpenApi {
            resources,
            started,
            v2: OnceLock::new(),
            v2_protobuf: OnceLock::new(),
            v3: Mutex::default(),
            v3_etags: Mutex::default(),
        }
    }

    fn api(&self) -> Api<'_> {
        Api {
            resources: &self.resources,
            version: version::KUBERNETES,
        }
    }

    fn v3_document(&self, name: &str) -> Option<Document> {
        let mut all = self.v3.lock();
        if let Some(d) = all.get(name) {
            return Some(d.clone());
        }
        let made = self.api().v3(name).map(Document::new)?;
        all.insert(name.to_owned(), made.clone());
        Some(made)
    }

    fn v3_etag(&self, name: &str) -> Option<String> {
        let mut all = self.v3_etags.lock();
        if let Some(etag) = all.get(name) {
            return Some(etag.clone());
        }
        let etag = self.api().v3(name).map(Document::new)?.etag;
        all.insert(name.to_owned(), etag.clone());
        Some(etag)
    }

    /// `/openapi/v2`.
    pub(crate) fn v2(&self, headers: &HeaderMap) -> Response<Body> {
        let accept = headers
            .get(http::header::ACCEPT)
            .and_then(|a| a.to_str().ok())
            .unwrap_or_default();
        let mut r = if PROTOBUF_V2.iter().any(|p| accept.contains(p)) {
            let d = self
                .v2_protobuf
                .get_or_init(|| Document::new(self.api().v2_protobuf()));
            self.document(d, PROTOBUF_V2[1], headers)
        } else {
            let d = self.v2.get_or_init(|| Document::new(self.api().v2()));
            self.document(d, "application/json", headers)
        };
        r.headers_mut()
            .append(VARY, HeaderValue::from_static("Accept-Encoding"));
        r.headers_mut()
            .append(VARY, HeaderValue::from_static("Accept"));
        r
    }

    /// `/openapi/v3`: where the documents are.
    pub(crate) fn v3_index(&self) -> Response<Body> {
        let paths: serde_json::Map<_, _> = self
            .api()
            .v3_names()
            .into_iter()
            .filter_map(|n| {
                let etag = self.v3_etag(&n)?;
                let url = format!("/openapi/v3/{n}?hash={etag}");
                Some((n, json!({"serverRelativeURL": url})))
            })
            .collect();
        let mut r = respond::typed(
            StatusCode::OK,
            "text/plain; charset=utf-8",
            json!({"paths": paths}).to_string(),
        );
        self.dated(&mut r);
        r
    }

    /// `/openapi/v3/{name}`. A document that is asked for by its hash may be kept for ever.
    pub(crate) fn v3(&self, name: &str, q: &Query, headers: &HeaderMap) -> Response<Body> {
        let Some(d) = self.v3_document(name) else {
            let mut r = Response::new(Body::empty());
            *r.status_mut() = StatusCode::NOT_FOUND;
            return r;
        };
        let hash = q.get("hash");
        if !hash.is_empty() && hash != d.etag {
            let mut r = Response::new(Body::empty());
            *r.status_mut() = StatusCode::MOVED_PERMANENTLY;
            if let Ok(v) = HeaderValue::from_str(&format!("/openapi/v3/{name}?hash={}", d.etag)) {
                r.headers_mut().insert(http::header::LOCATION, v);
            }
            return r;
        }
        let mut r = self.document(&d, "application/json", headers);
        if !hash.is_empty() {
            r.headers_mut()
                .insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
            let year = self.started + jiff::SignedDuration::from_hours(24 * 365);
            if let Ok(v) = HeaderValue::from_str(&http_date(year)) {
                r.headers_mut().insert(http::header::EXPIRES, v);
            }
        }
        r.headers_mut()
            .append(VARY, HeaderValue::from_static("Accept-Encoding"));
        r.headers_mut()
            .append(VARY, HeaderValue::from_static("Accept"));
        r
    }

    fn document(
        &self,
        d: &Document,
        content_type: &'static str,
        headers: &HeaderMap,
    ) -> Response<Body> {
        let etag = format!("\"{}\"", d.etag);
        let known = headers
            .get(IF_NONE_MATCH)
            .and_then(|v| v.to_str().ok())
            .is_some_and(|v| v.contains(&etag));
        let mut r = if known {
            let mut r = Response::new(Body::empty());
            *r.status_mut() = StatusCode::NOT_MODIFIED;
            r
        } else {
            respond::typed(StatusCode::OK, content_type, d.bytes.clone())
        };
        if let Ok(v) = HeaderValue::from_str(&etag) {
            r.headers_mut().insert(ETAG, v);
        }
        self.dated(&mut r);
        r
    }

    fn dated(&self, r: &mut Response<Body>) {
        r.headers_mut().insert(
            HeaderName::from_static("accept-ranges"),
            HeaderValue::from_static("bytes"),
        );
        if let Ok(v) = HeaderValue::from_str(&http_date(self.started)) {
            r.headers_mut().insert(LAST_MODIFIED, v);
        }
    }
}

/// A time as HTTP writes it.
fn http_date(t: jiff::Timestamp) -> String {
    t.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}
