//! The remote API source: HTTPS to the masters.
