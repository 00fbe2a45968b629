//! What function runtimes for interpreted languages share.
