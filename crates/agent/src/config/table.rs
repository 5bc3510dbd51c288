//! Reads keys out of a TOML table one by one, and knows file, line and key when something is wrong.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{}: cannot be read: {source}", file.display())]
    Unreadable { file: PathBuf, source: std::io::Error },
    #[error("{}:{line}: not TOML: {message}", file.display())]
    Syntax { file: PathBuf, line: usize, message: String },
    #[error("{}:{line}: {key}: found {found}, expected {expected}", file.display())]
    Value { file: PathBuf, line: usize, key: String, found: String, expected: String },
    #[error("{}: {key}: not set, expected {expected}", file.display())]
    Missing { file: PathBuf, key: String, expected: String },
    #[error("{}: {key}: {problem}", file.display())]
    Unusable { file: PathBuf, key: String, problem: String },
}

/// One table of the file, emptied key by key.
pub(super) struct Table<'t> {
    file: &'t Path,
    text: &'t str,
    /// `None` is the top of the file.
    name: Option<&'static str>,
    /// Where it begins in the text.
    start: usize,
    keys: DeTable<'t>,
}

type Found<'t> = Spanned<DeValue<'t>>;

/// A value, or the command that prints it.
pub(super) enum Word {
    Text(String),
    Command(String, Vec<String>),
}

impl<'t> Table<'t> {
    pub(super) fn parse(file: &'t Path, text: &'t str) -> Result<Self, ConfigError> {
        match DeTable::parse(text) {
            Ok(keys) => Ok(Self { file, text, name: None, start: 0, keys: keys.into_inner() }),
            Err(error) => Err(ConfigError::Syntax {
                file: file.to_owned(),
                line: line_at(text, error.span().map_or(0, |span| span.start)),
                message: error.message().to_owned(),
            }),
        }
    }

    /// The table `[name]`; an empty one when the file does not have it.
    pub(super) fn table(&mut self, name: &'static str) -> Result<Self, ConfigError> {
        self.table_in(name, name)
    }

    pub(super) fn optional_table(&mut self, name: &'static str) -> Result<Option<Self>, ConfigError> {
        self.optional_table_in(name, name)
    }

    /// The table `[firmware.slots]` is that of the key `slots` in `[firmware]`; `name` is its whole name.
    pub(super) fn table_in(&mut self, key: &'static str, name: &'static str) -> Result<Self, ConfigError> {
        let found = self.optional_table_in(key, name)?;
        Ok(found.unwrap_or_else(|| self.inner(name, 0, DeTable::new())))
    }

    pub(super) fn required_table_in(
        &mut self,
        key: &'static str,
        name: &'static str,
    ) -> Result<Self, ConfigError> {
        self.optional_table_in(key, name)?.ok_or_else(|| self.missing(key, &format!("a table [{name}]")))
    }

    pub(super) fn optional_table_in(
        &mut self,
        key: &'static str,
        name: &'static str,
    ) -> Result<Option<Self>, ConfigError> {
        let Some((_, value)) = self.keys.remove_entry(key) else { return Ok(None) };
        Ok(Some(self.as_table(key, name, value)?))
    }

    /// `[name]`, or `[[name]]` any number of times.
    pub(super) fn tables(&mut self, name: &'static str) -> Result<Vec<Self>, ConfigError> {
        self.tables_in(name, name)
    }

    /// The same for `[[policy.windows]]`, or the key `windows` in `[policy]`; `name` is its whole name.
    pub(super) fn tables_in(
        &mut self,
        key: &'static str,
        name: &'static str,
    ) -> Result<Vec<Self>, ConfigError> {
        let Some((_, value)) = self.keys.remove_entry(key) else { return Ok(Vec::new()) };
        let span = value.span();
        match value.into_inner() {
            DeValue::Array(tables) => {
                tables.into_iter().map(|table| self.as_table(key, name, table)).collect()
            }
            other => Ok(vec![self.as_table(key, name, Spanned::new(span, other))?]),
        }
    }

    fn as_table(&self, key: &str, name: &'static str, value: Found<'t>) -> Result<Self, ConfigError> {
        let (start, wrong) = (value.span().start, self.wrong(key, &value, "a table"));
        match value.into_inner() {
            DeValue::Table(keys) => Ok(self.inner(name, start, keys)),
            _ => Err(wrong),
        }
    }

    fn inner(&self, name: &'static str, start: usize, keys: DeTable<'t>) -> Self {
        Self { file: self.file, text: self.text, name: Some(name), start, keys }
    }

    pub(super) fn string(
        &mut self,
        key: &'static str,
        expected: &str,
    ) -> Result<Option<String>, ConfigError> {
        self.read(key, expected, |value| value.as_str().filter(|s| !s.is_empty()).map(str::to_owned))
    }

    /// One that is not repeated when it is wrong.
    pub(super) fn secret(
        &mut self,
        key: &'static str,
        expected: &str,
    ) -> Result<Option<String>, ConfigError> {
        let Some((_, value)) = self.keys.remove_entry(key) else { return Ok(None) };
        match value.get_ref().as_str().filter(|text| !text.is_empty()) {
            Some(text) => Ok(Some(text.to_owned())),
            None => Err(ConfigError::Value {
                file: self.file.to_owned(),
                line: line_at(self.text, value.span().start),
                key: self.qualified(key),
                found: "something else".to_owned(),
                expected: expected.to_owned(),
            }),
        }
    }

    pub(super) fn required_string(
        &mut self,
        key: &'static str,
        expected: &str,
    ) -> Result<String, ConfigError> {
        self.string(key, expected)?.ok_or_else(|| self.missing(key, expected))
    }

    /// A relative path counts from the configuration file.
    pub(super) fn path(&mut self, key: &'static str) -> Result<Option<PathBuf>, ConfigError> {
        let folder = self.file.parent().unwrap_or(Path::new("")).to_owned();
        Ok(self.string(key, "a path")?.map(|path| folder.join(path)))
    }

    pub(super) fn required_path(&mut self, key: &'static str) -> Result<PathBuf, ConfigError> {
        self.path(key)?.ok_or_else(|| self.missing(key, "a path"))
    }

    /// A path; or what is none, and counts from nowhere.
    pub(super) fn path_unless(
        &mut self,
        key: &'static str,
        is_none: fn(&str) -> bool,
    ) -> Result<Option<PathBuf>, ConfigError> {
        let folder = self.file.parent().unwrap_or(Path::new("")).to_owned();
        let text = self.string(key, "a path")?;
        Ok(text.map(|text| if is_none(&text) { text.into() } else { folder.join(text) }))
    }

    /// Everything that is left: names of the user's, each with a string.
    pub(super) fn strings_by_name(
        &mut self,
        expected: &str,
    ) -> Result<BTreeMap<String, String>, ConfigError> {
        let mut strings = BTreeMap::new();
        for (key, value) in std::mem::take(&mut self.keys) {
            let Some(string) = value.get_ref().as_str().filter(|string| !string.is_empty()) else {
                return Err(self.wrong(key.get_ref(), &value, expected));
            };
            strings.insert(key.get_ref().to_string(), string.to_owned());
        }
        Ok(strings)
    }

    /// The same, where each is a string or a table with a command.
    pub(super) fn words(&mut self) -> Result<BTreeMap<String, Word>, ConfigError> {
        const EXPECTED: &str = "a string, or { command = [\"/usr/bin/program\", \"argument\"] }";
        let mut words = BTreeMap::new();
        for (key, value) in std::mem::take(&mut self.keys) {
            let word = match value.get_ref() {
                DeValue::String(text) if !text.is_empty() => Some(Word::Text(text.to_string())),
                DeValue::Table(table) if table.len() == 1 => table
                    .get("command")
                    .and_then(|value| command(value.get_ref()))
                    .map(|(program, arguments)| Word::Command(program, arguments)),
                _ => None,
            };
            let word = word.ok_or_else(|| self.wrong(key.get_ref(), &value, EXPECTED))?;
            words.insert(key.get_ref().to_string(), word);
        }
        Ok(words)
    }

    /// The same with paths.
    pub(super) fn paths(&mut self) -> Result<BTreeMap<String, PathBuf>, ConfigError> {
        let folder = self.file.parent().unwrap_or(Path::new(""));
        let named = self.strings_by_name("a path")?.into_iter();
        Ok(named.map(|(name, path)| (name, folder.join(path))).collect())
    }

    pub(super) fn boolean(&mut self, key: &'static str) -> Result<Option<bool>, ConfigError> {
        self.read(key, "true or false", DeValue::as_bool)
    }

    pub(super) fn required_integer(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u64>,
    ) -> Result<u64, ConfigError> {
        let expected = whole_number(&range);
        self.integer(key, range)?.ok_or_else(|| self.missing(key, &expected))
    }

    pub(super) fn integer(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u64>, ConfigError> {
        let expected = whole_number(&range);
        self.read(key, &expected, |value| {
            let number = value.as_integer()?;
            let number = u64::from_str_radix(number.as_str(), number.radix()).ok()?;
            Some(number).filter(|number| range.contains(number))
        })
    }

    pub(super) fn seconds(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<Duration>, ConfigError> {
        Ok(self.integer(key, range)?.map(Duration::from_secs))
    }

    /// An argument list: a program and its arguments, for no shell.
    pub(super) fn command(
        &mut self,
        key: &'static str,
    ) -> Result<Option<(String, Vec<String>)>, ConfigError> {
        const EXPECTED: &str = "an array of strings, the program first: [\"/usr/bin/program\", \"argument\"]";
        self.read(key, EXPECTED, |value| command(value))
    }

    pub(super) fn required_command(
        &mut self,
        key: &'static str,
    ) -> Result<(String, Vec<String>), ConfigError> {
        self.command(key)?.ok_or_else(|| self.missing(key, "an array of strings, the program first"))
    }

    /// Several of them.
    pub(super) fn commands(&mut self, key: &'static str) -> Result<Vec<(String, Vec<String>)>, ConfigError> {
        const EXPECTED: &str = "an array of commands: [[\"/usr/bin/program\", \"argument\"]]";
        let all =
            |value: &DeValue<'t>| value.as_array()?.iter().map(|words| command(words.get_ref())).collect();
        Ok(self.read(key, EXPECTED, all)?.unwrap_or_default())
    }

    pub(super) fn strings(&mut self, key: &'static str, expected: &str) -> Result<Vec<String>, ConfigError> {
        Ok(self.read(key, expected, strings)?.unwrap_or_default())
    }

    /// What is left was not understood, and may be a typing error in something that matters.
    pub(super) fn finish(self) -> Result<(), ConfigError> {
        match self.keys.iter().next() {
            None => Ok(()),
            Some((key, _)) => Err(ConfigError::Value {
                file: self.file.to_owned(),
                line: line_at(self.text, key.span().start),
                key: self.qualified(key.get_ref()),
                found: "an unknown key".to_owned(),
                expected: "a key that packaging/fleethand.toml lists".to_owned(),
            }),
        }
    }

    /// This table has a key like another table of its kind, where each must have its own.
    pub(super) fn again(&self, key: &str, value: &str) -> ConfigError {
        ConfigError::Value {
            file: self.file.to_owned(),
            line: line_at(self.text, self.start),
            key: self.qualified(key),
            found: format!("{value:?} for the second time"),
            expected: "another one in each table".to_owned(),
        }
    }

    pub(super) fn unusable(&self, key: &str, problem: impl std::fmt::Display) -> ConfigError {
        ConfigError::Unusable {
            file: self.file.to_owned(),
            key: self.qualified(key),
            problem: problem.to_string(),
        }
    }

    fn read<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        read: impl FnOnce(&DeValue<'t>) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let Some((_, value)) = self.keys.remove_entry(key) else { return Ok(None) };
        match read(value.get_ref()) {
            Some(read) => Ok(Some(read)),
            None => Err(self.wrong(key, &value, expected)),
        }
    }

    fn wrong(&self, key: &str, value: &Found<'_>, expected: &str) -> ConfigError {
        ConfigError::Value {
            file: self.file.to_owned(),
            line: line_at(self.text, value.span().start),
            key: self.qualified(key),
            // As it is written in the file: what may be a secret is read by `secret`, and keys are named by path.
            found: self.text.get(value.span()).unwrap_or_default().chars().take(80).collect(),
            expected: expected.to_owned(),
        }
    }

    pub(super) fn missing(&self, key: &str, expected: &str) -> ConfigError {
        ConfigError::Missing {
            file: self.file.to_owned(),
            key: self.qualified(key),
            expected: expected.to_owned(),
        }
    }

    fn qualified(&self, key: &str) -> String {
        match self.name {
            Some(name) => format!("[{name}] {key}"),
            None => key.to_owned(),
        }
    }
}

fn strings(value: &DeValue<'_>) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|word| word.get_ref().as_str().map(str::to_owned)).collect()
}

fn command(value: &DeValue<'_>) -> Option<(String, Vec<String>)> {
    let mut words = strings(value)?.into_iter();
    let program = words.next().filter(|program| !program.is_empty())?;
    Some((program, words.collect()))
}

fn whole_number(range: &RangeInclusive<u64>) -> String {
    format!("a whole number from {} to {}", range.start(), range.end())
}

fn line_at(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}
