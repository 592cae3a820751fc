//! The control loops, one file each.
