//! Objects on web servers.
