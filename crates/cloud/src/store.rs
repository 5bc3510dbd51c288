//! State that survives a restart: rows of (kind, key, JSON) in SQLite, written before anybody is answered.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::Connection;
use serde_json::Value;

/// A changed row: what is now under (kind, key), or none when it is gone.
pub(crate) type Change = (String, String, Option<Value>);
/// A row as it was kept.
pub(crate) type Row = (String, String, Value);

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the state in {path} cannot be used; is another cloud running on it?")]
    Database { path: String, source: rusqlite::Error },
    #[error("row {kind}/{key} of the state is not JSON")]
    Row { kind: String, key: String, source: serde_json::Error },
    #[error("the state cannot be written")]
    Write(#[from] rusqlite::Error),
}

pub(crate) struct Store {
    connection: Mutex<Connection>,
}

impl Store {
    pub(crate) fn open(path: &Path) -> Result<Store, Error> {
        let open = || -> Result<Connection, rusqlite::Error> {
            let connection = Connection::open(path)?;
            // One cloud at a time, and the second one is told so at once.
            connection.busy_timeout(Duration::ZERO)?;
            connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
            // WAL with NORMAL: a crash of this process loses nothing, a power cut at most the last calls.
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.pragma_update(None, "synchronous", "NORMAL")?;
            connection.execute_batch(
                "CREATE TABLE IF NOT EXISTS state (
                     kind TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (kind, key)
                 ) WITHOUT ROWID",
            )?;
            Ok(connection)
        };
        let connection =
            open().map_err(|source| Error::Database { path: path.display().to_string(), source })?;
        Ok(Store { connection: Mutex::new(connection) })
    }

    pub(crate) fn rows(&self) -> Result<Vec<Row>, Error> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let mut statement = connection.prepare("SELECT kind, key, value FROM state")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, String>(2)?)))?;
        rows.map(|row| {
            let (kind, key, text): (String, String, String) = row?;
            match serde_json::from_str(&text) {
                Ok(value) => Ok((kind, key, value)),
                Err(source) => Err(Error::Row { kind, key, source }),
            }
        })
        .collect()
    }

    /// All of one call's changes, or none of them.
    pub(crate) fn write(&self, changes: impl IntoIterator<Item = Change>) -> Result<(), Error> {
        let mut changes = changes.into_iter().peekable();
        if changes.peek().is_none() {
            return Ok(());
        }
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = connection.transaction()?;
        {
            let mut replace = transaction.prepare("INSERT OR REPLACE INTO state VALUES (?1, ?2, ?3)")?;
            let mut delete = transaction.prepare("DELETE FROM state WHERE kind = ?1 AND key = ?2")?;
            for (kind, key, value) in changes {
                match value {
                    Some(value) => replace.execute((kind, key, value.to_string()))?,
                    None => delete.execute((kind, key))?,
                };
            }
        }
        Ok(transaction.commit()?)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows_come_back_from_the_file_replaced_and_deleted_ones_as_they_should() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let row = |key: &str, value| ("job".to_owned(), key.to_owned(), value);
        {
            let store = Store::open(&path).unwrap();
            store
                .write([
                    row("a", Some(json!(1))),
                    row("b", Some(json!({"x": [2]}))),
                    row("c", Some(json!(3))),
                ])
                .unwrap();
            store.write([row("a", Some(json!("new"))), row("c", None)]).unwrap();
        }
        let rows = Store::open(&path).unwrap().rows().unwrap();
        assert_eq!(
            rows,
            [("job".into(), "a".into(), json!("new")), ("job".into(), "b".into(), json!({"x": [2]}))]
        );
    }

    #[test]
    fn two_cannot_have_the_same_state() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let first = Store::open(&path).unwrap();
        let refused = Store::open(&path).err().unwrap().to_string();
        assert!(refused.contains("another cloud"), "{refused}");
        drop(first);
        assert!(Store::open(&path).is_ok());
    }

    #[test]
    fn a_file_that_is_no_database_is_refused_by_name() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "not a database, but long enough to look at".repeat(50)).unwrap();
        let error = Store::open(file.path()).err().unwrap();
        assert!(error.to_string().contains(&file.path().display().to_string()), "{error}");
    }
}
