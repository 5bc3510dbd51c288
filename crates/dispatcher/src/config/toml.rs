//! TOML: the document is changed where its value differs, and nowhere else. Comments, order and the way a number is
//! written stay.

use serde_json::{Map, Number, Value as Json};
use toml_edit::{Array, ArrayOfTables, Datetime, DocumentMut, InlineTable, Item, Table, TableLike, Value};

use super::format::{Misfit, step};

pub(super) fn parse(text: &str) -> Result<Json, String> {
    Ok(json_of_table(document(text)?.as_table()))
}

fn document(text: &str) -> Result<DocumentMut, String> {
    text.parse().map_err(|error: toml_edit::TomlError| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        format!("line {}: {}", before.matches('\n').count() + 1, error.message())
    })
}

pub(super) fn rewrite(old: &str, wanted: &Json) -> Result<String, Misfit> {
    let mut document = document(old).unwrap_or_default();
    match wanted {
        Json::Object(members) => reconcile(document.as_table_mut(), members, true, "")?,
        _ => return Err(misfit("", "expected an object")),
    }
    Ok(document.to_string())
}

fn misfit(pointer: &str, problem: &str) -> Misfit {
    Misfit { pointer: pointer.to_owned(), problem: problem.to_owned() }
}

/// Makes the table say `wanted`. `headers`: its tables have lines of their own (`[a.b]`).
fn reconcile(
    table: &mut dyn TableLike,
    wanted: &Map<String, Json>,
    headers: bool,
    at: &str,
) -> Result<(), Misfit> {
    let gone: Vec<_> =
        table.iter().map(|(name, _)| name.to_owned()).filter(|n| !wanted.contains_key(n)).collect();
    for name in gone {
        table.remove(&name);
    }
    for (name, wanted) in wanted {
        let at = step(at, name);
        match table.get_mut(name) {
            None => {
                table.insert(name, fresh(wanted, headers, &at)?);
            }
            Some(item) if json_of(item) == *wanted => {}
            Some(item) => change(item, wanted, headers, &at)?,
        }
    }
    Ok(())
}

/// The item says something else than `wanted`: as little of it as possible becomes new.
fn change(item: &mut Item, wanted: &Json, headers: bool, at: &str) -> Result<(), Misfit> {
    match (&mut *item, wanted) {
        (Item::Table(table), Json::Object(members)) => {
            let headers = !table.is_dotted();
            reconcile(table, members, headers, at)?;
            // Without a header and without members it would not be there at all.
            if table.is_empty() {
                table.set_dotted(false);
                table.set_implicit(false);
            }
        }
        (Item::Value(Value::InlineTable(table)), Json::Object(members)) => {
            reconcile(table, members, false, at)?;
            if table.is_empty() {
                table.set_dotted(false);
            }
        }
        (Item::ArrayOfTables(tables), Json::Array(elements)) if all_objects(elements) => {
            while tables.len() > elements.len() {
                tables.remove(tables.len() - 1);
            }
            for (index, element) in elements.iter().enumerate() {
                let at = step(at, &index.to_string());
                match (tables.get_mut(index), element) {
                    (Some(table), Json::Object(members)) => reconcile(table, members, true, &at)?,
                    _ => tables.push(table_of(element, &at)?),
                }
            }
        }
        (Item::Value(Value::Datetime(time)), Json::String(text)) if text.parse::<Datetime>().is_ok() => {
            if let Ok(new) = text.parse() {
                let decor = time.decor().clone();
                *time = toml_edit::Formatted::new(new);
                *time.decor_mut() = decor;
            }
        }
        (Item::Value(old), wanted) => {
            let mut new = value_of(wanted, at)?;
            // What stands round it: spaces, and the comment at the end of the line.
            *new.decor_mut() = old.decor().clone();
            *old = new;
        }
        (item, wanted) => *item = fresh(wanted, headers, at)?,
    }
    Ok(())
}

fn fresh(wanted: &Json, headers: bool, at: &str) -> Result<Item, Misfit> {
    match wanted {
        Json::Object(_) if headers => Ok(Item::Table(table_of(wanted, at)?)),
        Json::Array(elements) if headers && all_objects(elements) => {
            let mut tables = ArrayOfTables::new();
            for (index, element) in elements.iter().enumerate() {
                tables.push(table_of(element, &step(at, &index.to_string()))?);
            }
            Ok(Item::ArrayOfTables(tables))
        }
        _ => Ok(Item::Value(value_of(wanted, at)?)),
    }
}

fn all_objects(elements: &[Json]) -> bool {
    !elements.is_empty() && elements.iter().all(Json::is_object)
}

fn table_of(wanted: &Json, at: &str) -> Result<Table, Misfit> {
    let mut table = Table::new();
    for (name, value) in wanted.as_object().into_iter().flatten() {
        table.insert(name, fresh(value, true, &step(at, name))?);
    }
    Ok(table)
}

fn value_of(wanted: &Json, at: &str) -> Result<Value, Misfit> {
    Ok(match wanted {
        Json::Null => return Err(misfit(at, "found null, which TOML cannot say")),
        Json::Bool(flag) => (*flag).into(),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => whole.into(),
            (None, Some(float)) if number.is_f64() => float.into(),
            _ => {
                return Err(misfit(at, "found a whole number beyond 64 bits with a sign, all that TOML has"));
            }
        },
        Json::String(text) => text.as_str().into(),
        Json::Array(elements) => {
            let mut array = Array::new();
            for (index, element) in elements.iter().enumerate() {
                array.push(value_of(element, &step(at, &index.to_string()))?);
            }
            array.into()
        }
        Json::Object(members) => {
            let mut table = InlineTable::new();
            for (name, value) in members {
                table.insert(name, value_of(value, &step(at, name))?);
            }
            table.into()
        }
    })
}

fn json_of(item: &Item) -> Json {
    match item {
        Item::None => Json::Null,
        Item::Value(value) => json_of_value(value),
        Item::Table(table) => json_of_table(table),
        Item::ArrayOfTables(tables) => tables.iter().map(|table| json_of_table(table)).collect(),
    }
}

fn json_of_table(table: &dyn TableLike) -> Json {
    table.iter().map(|(name, item)| (name.to_owned(), json_of(item))).collect()
}

/// What JSON does not have becomes its text: dates and times, `inf`, `nan`.
fn json_of_value(value: &Value) -> Json {
    match value {
        Value::String(text) => text.value().as_str().into(),
        Value::Integer(number) => (*number.value()).into(),
        Value::Float(number) => match Number::from_f64(*number.value()) {
            Some(finite) => Json::Number(finite),
            None => number.value().to_string().into(),
        },
        Value::Boolean(flag) => (*flag.value()).into(),
        Value::Datetime(time) => time.value().to_string().into(),
        Value::Array(array) => array.iter().map(json_of_value).collect(),
        Value::InlineTable(table) => json_of_table(table),
    }
}

#[cfg(test)]
mod tests;
