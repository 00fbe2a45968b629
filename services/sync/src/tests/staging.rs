//! Staging over the link: one batch, one flight, resume, and what goes wrong.
