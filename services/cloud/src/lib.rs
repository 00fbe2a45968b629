//! Cloud management suite.
