//! Runs the pods of one node over CRI.
