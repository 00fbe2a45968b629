//! Results of commands: each command is executed at most once, also over a restart, and its result can be told again.

use std::sync::Arc;

use baetyl_proto::link::CommandResult;
use prost::Message as _;
use redb::{ReadableTable as _, TableDefinition, TableError};
use tonic::Code;

use crate::db::{Db, DbError};

/// Id to state (one byte), order (8 bytes, big endian) and, when done, the encoded result.
const COMMANDS: TableDefinition<&str, &[u8]> = TableDefinition::new("commands");

const STARTED: u8 = 1;
const DONE: u8 = 2;

/// Bytes before the encoded result.
const HEADER: usize = 9;

/// How many commands are remembered. The cloud repeats a command within minutes, not after hundreds of others.
const REMEMBERED: usize = 256;

/// Larger results are told once and not kept: they would wear the flash.
const MAX_KEPT: usize = 64 * 1024;

/// What is known about a command.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Begun {
    /// Never seen; from now on it counts as started.
    New,
    /// It runs, or ran when this program was ended.
    Started,
    /// It has ended with this.
    Done(CommandResult),
}

/// The memory of commands; cheap to clone. All functions block: call them through [`crate::blocking`].
#[derive(Clone, Debug)]
pub(crate) struct Commands {
    db: Arc<Db>,
}

impl Commands {
    /// Opens the memory. Commands that were running when the program ended are done now, as aborted: nobody knows how
    /// far they came, and they are not repeated. Their results are given back, to be told.
    ///
    /// # Errors
    /// What the database says.
    pub(crate) fn open(db: Arc<Db>) -> Result<(Self, Vec<CommandResult>), DbError> {
        let interrupted = db.read(|transaction| {
            let table = match transaction.open_table(COMMANDS) {
                Ok(table) => table,
                Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                Err(error) => return Err(error.into()),
            };
            let mut interrupted = Vec::new();
            for row in table.iter()? {
                let (id, value) = row?;
                if value.value().first() == Some(&STARTED) {
                    interrupted.push(aborted(id.value()));
                }
            }
            Ok(interrupted)
        })?;
        let commands = Self { db };
        for result in &interrupted {
            commands.finish(result)?;
        }
        Ok((commands, interrupted))
    }

    /// Marks a command as started unless it is known. Durable when this returns: only then may it be executed.
    ///
    /// # Errors
    /// What the database says; the command must not be executed then.
    pub(crate) fn begin(&self, id: &str) -> Result<Begun, DbError> {
        self.db.write(|transaction| {
            let mut table = transaction.open_table(COMMANDS)?;
            let known = table.get(id)?.map(|value| value.value().to_vec());
            if let Some(known) = known {
                let done = known.first() == Some(&DONE);
                let result = known
                    .get(HEADER..)
                    .and_then(|rest| CommandResult::decode(rest).ok());
                return Ok(match result {
                    Some(result) if done => Begun::Done(result),
                    _ => Begun::Started,
                });
            }
            let mut rows = Vec::new();
            for row in table.iter()? {
                let (id, value) = row?;
                rows.push((order(value.value()), id.value().to_owned()));
            }
            rows.sort();
            let next = rows.last().map_or(1, |(order, _)| order + 1);
            let surplus = (rows.len() + 1).saturating_sub(REMEMBERED);
            for (_, oldest) in rows.iter().take(surplus) {
                table.remove(oldest.as_str())?;
            }
            table.insert(id, record(STARTED, next, None).as_slice())?;
            Ok(Begun::New)
        })
    }

    /// Remembers how a command ended.
    ///
    /// # Errors
    /// What the database says.
    pub(crate) fn finish(&self, result: &CommandResult) -> Result<(), DbError> {
        let id = result.command_id.as_str();
        let mut kept = result.clone();
        if kept.payload.len() > MAX_KEPT {
            kept.payload = bytes::Bytes::new();
            kept.message = format!(
                "the result of {} bytes was told once and is not kept",
                result.payload.len()
            );
        }
        self.db.write(|transaction| {
            let mut table = transaction.open_table(COMMANDS)?;
            let order = table.get(id)?.map_or(0, |value| order(value.value()));
            table.insert(id, record(DONE, order, Some(&kept)).as_slice())?;
            Ok(())
        })
    }
}

/// The result of a command of which nobody knows how far it came.
fn aborted(id: &str) -> CommandResult {
    CommandResult {
        command_id: id.to_owned(),
        code: Code::Aborted.into(),
        message:
            "the node was restarted while the command ran; it is not repeated, send it with a \
                  new id if it is still wanted"
                .to_owned(),
        payload: bytes::Bytes::new(),
    }
}

fn record(state: u8, order: u64, result: Option<&CommandResult>) -> Vec<u8> {
    let mut bytes = vec![state];
    bytes.extend(order.to_be_bytes());
    if let Some(result) = result {
        bytes.extend(result.encode_to_vec());
    }
    bytes
}

fn order(record: &[u8]) -> u64 {
    record
        .get(1..HEADER)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db;

    fn result(id: &str, payload: usize) -> CommandResult {
        CommandResult {
            command_id: id.to_owned(),
            payload: vec![1; payload].into(),
            ..CommandResult::default()
        }
    }

    fn open(dir: &tempfile::TempDir) -> (Commands, Vec<CommandResult>) {
        let db = db::open(&dir.path().join("sync.redb")).unwrap().file;
        Commands::open(Arc::new(db)).unwrap()
    }

    #[test]
    fn a_command_begins_once_and_its_result_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let (commands, _) = open(&dir);
        assert_eq!(commands.begin("c1").unwrap(), Begun::New);
        assert_eq!(commands.begin("c1").unwrap(), Begun::Started);
        commands.finish(&result("c1", 10)).unwrap();
        drop(commands);
        let (commands, interrupted) = open(&dir);
        assert_eq!(interrupted, []);
        assert_eq!(commands.begin("c1").unwrap(), Begun::Done(result("c1", 10)));
    }

    #[test]
    fn a_command_that_was_cut_off_by_a_restart_is_aborted_and_never_repeated() {
        let dir = tempfile::tempdir().unwrap();
        let (commands, _) = open(&dir);
        commands.begin("c1").unwrap();
        drop(commands);
        let (commands, interrupted) = open(&dir);
        assert_eq!(interrupted.len(), 1);
        assert_eq!(interrupted[0].code, i32::from(Code::Aborted));
        assert_eq!(
            commands.begin("c1").unwrap(),
            Begun::Done(interrupted[0].clone())
        );
    }

    #[test]
    fn the_oldest_commands_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let (commands, _) = open(&dir);
        for n in 0..=REMEMBERED {
            commands.begin(&format!("c{n}")).unwrap();
        }
        assert_eq!(commands.begin("c1").unwrap(), Begun::Started);
        assert_eq!(commands.begin("c0").unwrap(), Begun::New);
    }

    #[test]
    fn a_large_result_is_not_kept_and_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let (commands, _) = open(&dir);
        commands.begin("c1").unwrap();
        commands.finish(&result("c1", MAX_KEPT + 1)).unwrap();
        let Begun::Done(kept) = commands.begin("c1").unwrap() else {
            panic!("not done");
        };
        assert!(kept.payload.is_empty() && kept.message.contains("not kept"));
    }
}
