//! Schemas of every kind: checking, defaulting, patches, field ownership, OpenAPI.
