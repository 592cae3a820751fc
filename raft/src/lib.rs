//! The replicated, revisioned byte store.
