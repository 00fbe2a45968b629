//! Process supervisor of native mode.
