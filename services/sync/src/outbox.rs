//! Events on their way up: durable, bounded, in order.
//!
//! Owns the numbers: an event gets the next one when it is put in, and keeps it. The oldest are dropped when the box is
//! full; the hole this leaves is told with the next event that travels. All functions block: call them through
//! [`crate::blocking`].

use std::sync::Arc;

use baetyl_kit::error::chain;
use baetyl_proto::shadow::Event;
use prost::Message as _;
use redb::{
    ReadTransaction, ReadableTable, ReadableTableMetadata as _, TableDefinition, TableError,
    WriteTransaction,
};
use tokio::sync::watch;

use crate::db::{Db, DbError, META};

pub(crate) mod results;

/// Sequence to encoded event.
const EVENTS: TableDefinition<u64, &[u8]> = TableDefinition::new("events");

/// The number the next event gets.
const NEXT: &str = "event_next";
/// The last number the cloud has stored, as far as is known.
const ACKED: &str = "event_acked";
/// Present once the numbers were compared with the cloud's: a database that was lost begins at one again while the
/// cloud has stored higher ones.
const MET: &str = "event_met";

/// Longer texts are cut: an event is a sentence, not a log.
const MAX_TEXT: usize = 4096;

/// The outbox of events; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Outbox {
    db: Arc<Db>,
    limit: u64,
    changed: watch::Sender<()>,
}

impl Outbox {
    /// Keeps at most `limit` events.
    pub(crate) fn new(db: Arc<Db>, limit: u64) -> Self {
        Self {
            db,
            limit: limit.max(1),
            changed: watch::Sender::new(()),
        }
    }

    /// Puts an event in; durable when this returns its number. `sequence` and `dropped` are not read.
    ///
    /// # Errors
    /// What the database says.
    pub(crate) fn put(&self, mut event: Event) -> Result<u64, DbError> {
        cut(&mut event.reason);
        cut(&mut event.message);
        cut(&mut event.about);
        let sequence = self.db.write(|transaction| {
            let sequence = number(transaction, NEXT)?.unwrap_or(1);
            event.sequence = sequence;
            event.dropped = 0;
            set_number(transaction, NEXT, sequence + 1)?;
            let mut events = transaction.open_table(EVENTS)?;
            events.insert(sequence, event.encode_to_vec().as_slice())?;
            while events.len()? > self.limit {
                events.pop_first()?;
            }
            Ok(sequence)
        })?;
        self.changed.send_replace(());
        Ok(sequence)
    }

    /// The last number the cloud has stored, and the last that was given.
    ///
    /// # Errors
    /// What the database says.
    pub(crate) fn numbers(&self) -> Result<(u64, u64), DbError> {
        self.db.read(|transaction| {
            let acked = read_number(transaction, ACKED)?.unwrap_or(0);
            let next = read_number(transaction, NEXT)?.unwrap_or(1);
            Ok((acked, next - 1))
        })
    }

    /// The event with this number, with the hole between it and the one before it, or what the cloud has `stored`; None
    /// when it was dropped or is stored already.
    ///
    /// # Errors
    /// What the database says.
    pub(crate) fn event(&self, sequence: u64, stored: u64) -> Result<Option<Event>, DbError> {
        self.db.read(|transaction| {
            let Some(table) = events(transaction)? else {
                return Ok(None);
            };
            let Some(value) = table.get(sequence)? else {
                return Ok(None);
            };
            let before = table
                .range(..sequence)?
                .next_back()
                .transpose()?
                .map_or(stored, |(key, _)| key.value().max(stored));
            // Written by us in this format; what cannot be read counts as dropped.
            let event = Event::decode(value.value()).ok().map(|event| Event {
                sequence,
                dropped: sequence.saturating_sub(before + 1),
                ..event
            });
            Ok(event)
        })
    }

    /// Forgets what the cloud has stored. On a full disk nothing is forgotten and that is no error: the cloud tells it
    /// again with its next Welcome.
    ///
    /// # Errors
    /// What the database says.
    pub(crate) fn acknowledge(&self, sequence: u64) -> Result<(), DbError> {
        if self.numbers()?.0 >= sequence {
            return Ok(());
        }
        self.store_acknowledged(sequence)
    }

    fn store_acknowledged(&self, sequence: u64) -> Result<(), DbError> {
        let stored = self.db.write(|transaction| {
            set_number(transaction, ACKED, sequence)?;
            transaction
                .open_table(EVENTS)?
                .retain(|key, _| key > sequence)?;
            Ok(())
        });
        match stored {
            Err(error) if error.is_full() => {
                tracing::warn!(error = %chain(&error), "what the cloud has stored is not forgotten yet");
                Ok(())
            }
            other => other,
        }
    }

    /// Compares numbers with the cloud, which says in its Welcome what it stored last. When ours are behind (the
    /// database was lost or put back), everything that waits gets new numbers after the cloud's. Gives the numbers as
    /// [`numbers`](Self::numbers) does.
    ///
    /// # Errors
    /// What the database says.
    pub(crate) fn meet(&self, stored: u64) -> Result<(u64, u64), DbError> {
        let met = self.db.read(|transaction| read_number(transaction, MET))?;
        let (acked, queued) = self.numbers()?;
        let next = queued + 1;
        if met.is_some() && stored < next {
            // Also when the cloud went back: the hole is told with the next event.
            if stored != acked {
                self.store_acknowledged(stored)?;
            }
            return self.numbers();
        }
        self.db.write(|transaction| {
            set_number(transaction, MET, 1)?;
            set_number(transaction, ACKED, stored)?;
            let mut events = transaction.open_table(EVENTS)?;
            let mut waiting = Vec::new();
            while let Some((key, value)) = events.pop_first()? {
                waiting.push((key.value(), value.value().to_vec()));
            }
            // A lost database counted from one, so a hole at its beginning is kept.
            let first = waiting.first().map_or(next, |(sequence, _)| *sequence);
            let base = if met.is_none() { 1 } else { first };
            let moved = |sequence: u64| sequence - base + stored + 1;
            for (sequence, event) in &waiting {
                events.insert(moved(*sequence), event.as_slice())?;
            }
            set_number(transaction, NEXT, moved(next))?;
            Ok(())
        })?;
        self.numbers()
    }

    /// Moves whenever an event was put in.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

fn events(
    transaction: &ReadTransaction,
) -> Result<Option<redb::ReadOnlyTable<u64, &'static [u8]>>, redb::Error> {
    match transaction.open_table(EVENTS) {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn number(transaction: &WriteTransaction, key: &str) -> Result<Option<u64>, redb::Error> {
    let table = transaction.open_table(META)?;
    let value = table.get(key)?;
    Ok(value.and_then(|value| value.value().try_into().ok().map(u64::from_be_bytes)))
}

fn read_number(transaction: &ReadTransaction, key: &str) -> Result<Option<u64>, redb::Error> {
    let table = transaction.open_table(META)?;
    let value = table.get(key)?;
    Ok(value.and_then(|value| value.value().try_into().ok().map(u64::from_be_bytes)))
}

fn set_number(transaction: &WriteTransaction, key: &str, number: u64) -> Result<(), redb::Error> {
    transaction
        .open_table(META)?
        .insert(key, number.to_be_bytes().as_slice())?;
    Ok(())
}

fn cut(text: &mut String) {
    text.truncate(text.floor_char_boundary(MAX_TEXT));
}

#[cfg(test)]
mod tests;
