//! Wire and domain: every message that has a domain type converts to it with a named mistake, and from it without one.
//!
//! `TryFrom<wire> for domain` is the border where names, digests and words are checked; `From<domain> for wire` cannot
//! fail. Borrowed forms are not offered: both sides are built to be consumed.

use baetyl_model::name::NameError;

pub mod time;

mod desire;
mod report;
mod resource;
mod stats;

pub use desire::{properties_from_wire, properties_to_wire};

#[cfg(test)]
mod any;
#[cfg(test)]
mod tests;

/// A message that is not what its contract says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// A field that must be there is not.
    #[error("{field} is missing")]
    Missing {
        /// Name of the field in the contract.
        field: &'static str,
    },
    /// A field has a value that breaks its rule.
    #[error("{field}: {message}")]
    Invalid {
        /// Name of the field in the contract.
        field: &'static str,
        /// What is wrong with it.
        message: String,
    },
}

impl From<NameError> for ConvertError {
    fn from(error: NameError) -> Self {
        Self::Invalid {
            field: error.what,
            message: error.to_string(),
        }
    }
}

/// Turns a rule's error into one that names the field.
fn invalid<E: std::fmt::Display>(field: &'static str) -> impl FnOnce(E) -> ConvertError {
    move |error| ConvertError::Invalid {
        field,
        message: error.to_string(),
    }
}

fn missing(field: &'static str) -> impl FnOnce() -> ConvertError {
    move || ConvertError::Missing { field }
}

/// Converts all items or gives the first mistake.
fn all<W, D>(items: Vec<W>) -> Result<Vec<D>, ConvertError>
where
    D: TryFrom<W, Error = ConvertError>,
{
    items.into_iter().map(D::try_from).collect()
}
