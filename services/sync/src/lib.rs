//! The link of an edge node to its cloud and the content store.
