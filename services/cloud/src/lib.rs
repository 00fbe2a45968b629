//! Cloud management suite: what operators wish for their nodes, kept, derived, signed, delivered, and what the nodes say.
//!
//! Start at [`store`] (the one database: every change takes the next revision of its namespace), then [`rest`] (how
//! operators write), [`desire`] (what a node shall run at a revision), [`link`] (how it gets there).

pub mod activation;
pub mod auth;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod desire;
pub mod events;
pub mod install;
pub mod link;
mod lock;
pub mod objects;
mod openapi;
pub mod pki;
pub mod report;
pub mod rest;
mod run;
pub mod seal;
pub mod store;

pub use config::Config;
pub use lock::{DataDirLock, LockError};
pub use run::{DATABASE_FILE, Error, lock, open_existing, open_store, run};
