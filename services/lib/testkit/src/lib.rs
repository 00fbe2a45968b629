//! Hand-written fakes, clocks, identities and waiting helpers for tests.
