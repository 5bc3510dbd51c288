//! What the device tells of itself: text from the configuration, and what commands print.

use std::collections::BTreeMap;

use device::CommandSpec;

use super::Error;

/// A serial number, a place: no program's whole output.
const MAX_CHARACTERS: usize = 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parameter {
    Text(String),
    /// Run by the process that asks, with its privileges.
    Command(CommandSpec),
}

pub async fn evaluate(parameters: &BTreeMap<String, Parameter>) -> Result<BTreeMap<String, String>, Error> {
    let mut values = BTreeMap::new();
    for (name, parameter) in parameters {
        let value = match parameter {
            Parameter::Text(text) => text.clone(),
            Parameter::Command(spec) => {
                let printed = device::answer(spec).await;
                let printed = printed.map_err(|source| Error::Command { name: name.clone(), source })?;
                one_line(&printed)
                    .map_err(|problem| Error::Parameter { name: name.clone(), problem })?
                    .to_owned()
            }
        };
        values.insert(name.clone(), value);
    }
    Ok(values)
}

fn one_line(printed: &str) -> Result<&str, &'static str> {
    // Device trees end their strings with a NUL.
    let text = printed.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    match text {
        "" => Err("the command printed nothing"),
        text if text.contains(char::is_control) => Err("the command printed more than one line of text"),
        text if text.chars().count() > MAX_CHARACTERS => Err("the command printed more than 1024 characters"),
        text => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_of_text_is_a_value_and_nothing_else() {
        let long = "x".repeat(MAX_CHARACTERS + 1);
        for (printed, expected) in [
            ("SN-1\n", Ok("SN-1")),
            (" a b \r\n", Ok("a b")),
            ("SN-1\0", Ok("SN-1")),
            ("", Err("the command printed nothing")),
            ("\n", Err("the command printed nothing")),
            ("a\nb", Err("the command printed more than one line of text")),
            (&long, Err("the command printed more than 1024 characters")),
        ] {
            assert_eq!(one_line(printed), expected, "{printed:?}");
        }
    }
}
