//! Things.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use serde_json::{Value, json};

use super::executions::thing_name;
use super::page::Page;
use super::{Result, empty, invalid, merged, put};
use crate::engine::Engine;
use crate::engine::compat::DeletedThing;
use crate::engine::interface::{ApiError, Time};
use crate::engine::registry::Thing;
use crate::engine::store::Row;
use crate::engine::validate::{ATTRIBUTE_NAME, ATTRIBUTE_VALUE, Input, THING_NAME};

/// Attributes of a thing without a type, and with one.
const MOST_ATTRIBUTES: (usize, usize) = (3, 50);

/// `attributePayload`: the attributes, and whether they are added to those that are there.
pub(super) fn attributes(input: &Input) -> Result<(BTreeMap<String, String>, bool)> {
    let Some(payload) = input.child("attributePayload")? else { return Ok((BTreeMap::new(), true)) };
    let attributes = payload.map("attributes", &ATTRIBUTE_NAME, &ATTRIBUTE_VALUE, usize::MAX)?;
    Ok((attributes.unwrap_or_default(), payload.flag("merge")?.unwrap_or(false)))
}

/// An attribute that is set to nothing is removed.
pub(super) fn merge_attributes(
    old: &BTreeMap<String, String>,
    new: BTreeMap<String, String>,
    merge: bool,
) -> BTreeMap<String, String> {
    let mut merged = if merge { old.clone() } else { BTreeMap::new() };
    merged.extend(new);
    merged.retain(|_, value| !value.is_empty());
    merged
}

pub(super) fn check_version(input: &Input, found: i64) -> Result<()> {
    match input.integer("expectedVersion", i64::MIN..=i64::MAX)? {
        Some(expected) if expected != found => {
            Err(ApiError::version_conflict(format!("Expected version {expected} but found version {found}")))
        }
        _ => Ok(()),
    }
}

fn check_attributes(thing: &Thing) -> Result<()> {
    let most = if thing.type_name.is_some() { MOST_ATTRIBUTES.1 } else { MOST_ATTRIBUTES.0 };
    if thing.attributes.len() > most {
        let has = thing.attributes.len();
        return Err(invalid(format!("Thing {} has {has} attributes, and may have {most}", thing.name)));
    }
    Ok(())
}

impl Engine {
    fn thing_answer(&self, thing: &Thing) -> Value {
        json!({"thingName": thing.name, "thingArn": self.thing_arn(&thing.name), "thingId": thing.id})
    }

    fn thing_arn(&self, name: &str) -> String {
        self.arn(&format!("thing/{name}"))
    }

    pub(super) fn thing(&self, name: &str) -> Result<&Thing> {
        self.registry
            .things
            .get(name)
            .ok_or_else(|| ApiError::not_found(format!("Thing {name} does not exist")))
    }

    pub(super) fn create_thing(&mut self, input: &Input) -> Result {
        let name = thing_name(input)?;
        let attributes = merge_attributes(&BTreeMap::new(), attributes(input)?.0, false);
        let mut thing = Thing {
            name: name.clone(),
            id: String::new(),
            type_name: input.text("thingTypeName", &THING_NAME)?,
            billing_group: input.text("billingGroupName", &THING_NAME)?,
            attributes,
            version: 1,
            groups: BTreeSet::new(),
        };
        check_attributes(&thing)?;
        if let Some(old) = self.registry.things.get(&name) {
            let same = old.type_name == thing.type_name
                && old.attributes == thing.attributes
                && old.billing_group == thing.billing_group;
            if same {
                return Ok(self.thing_answer(old));
            }
            let message = format!("Thing {name} already exists in account with different properties");
            return Err(ApiError::already_exists(message, &old.id, &self.thing_arn(&name)));
        }
        thing.id = self.new_id();
        let answer = self.thing_answer(&thing);
        self.registry.things.insert(name.clone(), thing);
        self.dirty.note(|| Row::Thing(name));
        Ok(answer)
    }

    pub(super) fn describe_thing(&self, input: &Input) -> Result {
        let thing = self.thing(&thing_name(input)?)?;
        let mut answer = self.thing_members(thing);
        answer.extend(merged(json!({"defaultClientId": thing.name, "thingId": thing.id}), empty()));
        put(&mut answer, "billingGroupName", thing.billing_group.clone());
        Ok(answer.into())
    }

    fn thing_members(&self, thing: &Thing) -> serde_json::Map<String, Value> {
        let mut members = merged(
            json!({
                "thingName": thing.name,
                "thingArn": self.thing_arn(&thing.name),
                "attributes": thing.attributes,
                "version": thing.version,
            }),
            empty(),
        );
        put(&mut members, "thingTypeName", thing.type_name.clone());
        members
    }

    pub(super) fn update_thing(&mut self, input: &Input) -> Result {
        let name = thing_name(input)?;
        let (new, merge) = attributes(input)?;
        let type_name = input.text("thingTypeName", &THING_NAME)?;
        let untype = input.flag("removeThingType")?.unwrap_or(false);
        if untype && type_name.is_some() {
            return Err(invalid("thingTypeName and removeThingType cannot be used together"));
        }
        let mut thing = self.thing(&name)?.clone();
        check_version(input, thing.version)?;
        thing.attributes = merge_attributes(&thing.attributes, new, merge);
        thing.type_name = type_name.or(thing.type_name.filter(|_| !untype));
        thing.version += 1;
        check_attributes(&thing)?;
        self.registry.things.insert(name.clone(), thing);
        self.dirty.note(|| Row::Thing(name));
        Ok(empty())
    }

    /// A thing that is not there is deleted already.
    pub(super) fn delete_thing(&mut self, now: Time, input: &Input) -> Result {
        let name = thing_name(input)?;
        let Some(thing) = self.registry.things.get(&name) else { return Ok(empty()) };
        check_version(input, thing.version)?;
        for group in thing.groups.clone() {
            if let Some(group) = self.registry.groups.get_mut(&group) {
                group.members.remove(&name);
            }
        }
        self.registry.things.remove(&name);
        self.thing_gone(now, &name, self.settings.compat.deleted_thing == DeletedThing::Deleted);
        self.dirty.note(|| Row::Thing(name));
        Ok(empty())
    }

    pub(super) fn list_things(&self, input: &Input) -> Result {
        let page = Page::of(input, "ListThings")?;
        let type_name = input.text("thingTypeName", &THING_NAME)?;
        let attribute = input.text("attributeName", &ATTRIBUTE_NAME)?;
        let value = input.text("attributeValue", &ATTRIBUTE_VALUE)?;
        let prefix = input.flag("usePrefixAttributeValue")?.unwrap_or(false);
        let from = page.after().map_or(Bound::Unbounded, Bound::Excluded);
        let fits = |thing: &Thing| {
            let found = attribute.as_ref().map(|name| thing.attributes.get(name));
            (type_name.is_none() || thing.type_name == type_name)
                && match (found, &value) {
                    (None, _) => true,
                    (Some(found), None) => found.is_some(),
                    (Some(found), Some(value)) if prefix => {
                        found.is_some_and(|found| found.starts_with(value))
                    }
                    (Some(found), Some(value)) => found == Some(value),
                }
        };
        let things = self.registry.things.range::<str, _>((from, Bound::Unbounded)).map(|(_, thing)| thing);
        let entries =
            things.filter(|thing| fits(thing)).map(|thing| (thing.name.clone(), self.thing_members(thing)));
        let (things, token) = page.take(entries);
        let mut answer = merged(json!({"things": things}), empty());
        put(&mut answer, "nextToken", token);
        Ok(answer.into())
    }
}
