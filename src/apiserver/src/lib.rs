//! The Kubernetes API over the store: authentication, REST engine, watch cache.
