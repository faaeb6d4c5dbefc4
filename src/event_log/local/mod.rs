//! The embedded back end.
