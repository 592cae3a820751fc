//! Patches of the four kinds.

use bytes::Bytes;
use kontiki_api::{ApiError, object};
use serde_json::Value;

use super::update::{Intent, Part};
use super::{Call, Engine, Target, Written, metadata};
use crate::schemas;

/// A patch, as it came in.
pub(crate) enum Patch {
    /// RFC 6902.
    Json(Bytes),
    /// RFC 7386.
    Merge(Bytes),
    /// Strategic merge patch.
    Strategic(Bytes),
    /// Server-side apply; decoded, as it may be YAML.
    Apply(Value),
}

impl Engine {
    /// Patches an object or one of its subresources.
    pub(crate) async fn patch(
        &self,
        t: Target<'_>,
        part: Part,
        patch: &Patch,
        call: &Call<'_>,
    ) -> Result<Written, ApiError> {
        if let Patch::Apply(config) = patch {
            return self.apply(t, part, config, call).await;
        }
        let mut make = |old: &Value| {
            let (new, warnings) =
                schemas::patched(t.kind, old, patch, call.options.field_validation)?;
            call.warn(warnings);
            Ok(new)
        };
        self.modify(t, part, call, Intent::Patch, &mut make).await
    }

    /// Server-side apply: creates what is not there.
    async fn apply(
        &self,
        t: Target<'_>,
        part: Part,
        config: &Value,
        call: &Call<'_>,
    ) -> Result<Written, ApiError> {
        let now = object::time_text(self.now());
        let named = object::name(config);
        if !named.is_empty() && named != t.name {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({named}) does not match the name on the URL ({})",
                t.name
            )));
        }
        let mut config = config.clone();
        metadata::of(&mut config).insert("name".into(), t.name.into());
        super::create::match_namespace(&mut config, t.kind, t.namespace)?;
        let who = (
            call.options.field_manager.as_str(),
            part.subresource(),
            now.as_str(),
        );
        match self.current(t).await {
            Err(e) if e.is_not_found() && part == Part::Object => {
                let new = schemas::apply(t.kind, None, &config, who, call.options.force)?;
                return self.create_applied(t, new, call).await;
            }
            Err(e) => return Err(e),
            Ok(_) => {}
        }
        let mut make = |old: &Value| {
            let new = schemas::apply(t.kind, Some(old), &config, who, call.options.force)?;
            Ok(new)
        };
        self.modify(t, part, call, Intent::Apply, &mut make).await
    }
}
