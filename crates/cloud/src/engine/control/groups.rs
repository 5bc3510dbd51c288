//! Thing groups and their members.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::executions::thing_name;
use super::jobs::check_tags;
use super::page::Page;
use super::things::{attributes, check_version, merge_attributes};
use super::{Result, empty, invalid, merged, put};
use crate::engine::Engine;
use crate::engine::interface::{ApiError, Time};
use crate::engine::membership::{TargetName, target_name};
use crate::engine::registry::Group;
use crate::engine::store::Row;
use crate::engine::validate::{ARN, DESCRIPTION, Input, THING_NAME};

const MOST_DEPTH: usize = 7;
const MOST_GROUPS_OF_A_THING: usize = 10;

fn group_name(input: &Input) -> Result<String> {
    Ok(input.need("thingGroupName", input.text("thingGroupName", &THING_NAME)?)?)
}

type Properties = (Option<String>, BTreeMap<String, String>, bool);

/// `thingGroupProperties`: description, attributes, and whether these are added to those that are there.
fn properties(input: &Input) -> Result<Properties> {
    let Some(part) = input.child("thingGroupProperties")? else { return Ok((None, BTreeMap::new(), true)) };
    let (attributes, merge) = attributes(&part)?;
    Ok((part.text("thingGroupDescription", &DESCRIPTION)?, attributes, merge))
}

impl Engine {
    fn group_arn(&self, name: &str) -> String {
        self.arn(&format!("thinggroup/{name}"))
    }

    fn group_answer(&self, group: &Group) -> Value {
        let arn = self.group_arn(&group.name);
        json!({"thingGroupName": group.name, "thingGroupArn": arn, "thingGroupId": group.id})
    }

    fn group(&self, name: &str) -> Result<&Group> {
        let missing = || ApiError::not_found(format!("Thing group {name} does not exist"));
        self.registry.groups.get(name).ok_or_else(missing)
    }

    pub(super) fn create_group(&mut self, now: Time, input: &Input) -> Result {
        let name = group_name(input)?;
        let parent = input.text("parentGroupName", &THING_NAME)?;
        let (description, attributes, _) = properties(input)?;
        check_tags(input)?;
        if let Some(old) = self.registry.groups.get(&name) {
            if old.parent == parent && old.description == description && old.attributes == attributes {
                return Ok(self.group_answer(old));
            }
            let message = format!("Thing group {name} already exists with different properties");
            return Err(ApiError::already_exists(message, &old.id, &self.group_arn(&name)));
        }
        if let Some(parent) = &parent {
            // The model knows no ResourceNotFoundException here.
            if !self.registry.groups.contains_key(parent) {
                return Err(invalid(format!("Parent thing group {parent} does not exist")));
            }
            if self.registry.path(parent).len() >= MOST_DEPTH {
                return Err(invalid(format!("Thing groups can be {MOST_DEPTH} levels deep")));
            }
        }
        let group = Group {
            name: name.clone(),
            id: self.new_id(),
            parent: parent.clone(),
            description,
            attributes,
            version: 1,
            created_at: now,
            members: BTreeSet::new(),
            children: BTreeSet::new(),
        };
        let answer = self.group_answer(&group);
        if let Some(parent) = parent.and_then(|parent| self.registry.groups.get_mut(&parent)) {
            parent.children.insert(name.clone());
        }
        self.registry.groups.insert(name.clone(), group);
        self.dirty.note(|| Row::Group(name));
        Ok(answer)
    }

    pub(super) fn describe_group(&self, input: &Input) -> Result {
        let group = self.group(&group_name(input)?)?;
        let mut properties = merged(json!({"attributePayload": {"attributes": group.attributes}}), empty());
        put(&mut properties, "thingGroupDescription", group.description.clone());
        let mut metadata = merged(json!({"creationDate": group.created_at.to_number()}), empty());
        if let Some(parent) = &group.parent {
            let path = self.registry.path(parent);
            let path: Vec<Value> = path.iter().map(|group| self.group_entry(&group.name)).collect();
            put(&mut metadata, "parentGroupName", Some(parent.clone()));
            put(&mut metadata, "rootToParentThingGroups", Some(path));
        }
        let mut answer = merged(
            json!({"version": group.version, "thingGroupProperties": properties, "thingGroupMetadata": metadata}),
            empty(),
        );
        answer.extend(merged(self.group_answer(group), empty()));
        Ok(answer.into())
    }

    fn group_entry(&self, name: &str) -> Value {
        json!({"groupName": name, "groupArn": self.group_arn(name)})
    }

    pub(super) fn update_group(&mut self, input: &Input) -> Result {
        let name = group_name(input)?;
        input.need("thingGroupProperties", input.child("thingGroupProperties")?)?;
        let (description, new, merge) = properties(input)?;
        let mut group = self.group(&name)?.clone();
        check_version(input, group.version)?;
        group.attributes = merge_attributes(&group.attributes, new, merge);
        group.description = description.or(group.description);
        group.version += 1;
        let version = group.version;
        self.registry.groups.insert(name.clone(), group);
        self.dirty.note(|| Row::Group(name));
        Ok(json!({"version": version}))
    }

    /// A group that is not there is deleted already.
    pub(super) fn delete_group(&mut self, now: Time, input: &Input) -> Result {
        let name = group_name(input)?;
        let Some(group) = self.registry.groups.get(&name) else { return Ok(empty()) };
        check_version(input, group.version)?;
        if !group.children.is_empty() {
            return Err(invalid(format!("Thing group {name} has child groups and cannot be deleted")));
        }
        let (members, parent) = (group.members.clone(), group.parent.clone());
        let before: Vec<_> = members.iter().map(|thing| self.followed(thing)).collect();
        for thing in &members {
            self.leave(thing, &name);
        }
        if let Some(parent) = parent.and_then(|parent| self.registry.groups.get_mut(&parent)) {
            parent.children.remove(&name);
        }
        self.registry.groups.remove(&name);
        for (thing, before) in members.iter().zip(before) {
            self.membership_changed(now, thing, &before);
        }
        self.dirty.note(|| Row::Group(name));
        Ok(empty())
    }

    pub(super) fn list_groups(&self, input: &Input) -> Result {
        let page = Page::of(input, "ListThingGroups")?;
        let prefix = input.text("namePrefixFilter", &THING_NAME)?;
        let parent = input.text("parentGroup", &THING_NAME)?;
        let recursive = input.flag("recursive")?.unwrap_or(true);
        if let Some(parent) = &parent {
            self.group(parent)?;
        }
        let fits = |group: &Group| {
            let below = match &parent {
                None => recursive || group.parent.is_none(),
                Some(parent) if recursive => {
                    group.name != *parent && self.registry.path(&group.name).iter().any(|g| g.name == *parent)
                }
                Some(parent) => group.parent.as_ref() == Some(parent),
            };
            below && prefix.as_ref().is_none_or(|prefix| group.name.starts_with(prefix))
        };
        let groups =
            self.registry.groups.values().filter(|group| fits(group)).map(|group| group.name.clone());
        Ok(self.page_of_groups(&page, groups))
    }

    fn page_of_groups(&self, page: &Page, names: impl Iterator<Item = String>) -> Value {
        let names = names.filter(|name| page.after().is_none_or(|after| name.as_str() > after));
        let (groups, token) = page.take(names.map(|name| (name.clone(), self.group_entry(&name))));
        let mut answer = merged(json!({"thingGroups": groups}), empty());
        put(&mut answer, "nextToken", token);
        answer.into()
    }

    /// Thing and group, each by name or by ARN.
    fn thing_and_group(&self, input: &Input) -> Result<(String, String)> {
        let of = |name: &str, arn: &str| -> Result<String> {
            let by_arn = input.text(arn, &ARN)?;
            let by_arn = match by_arn.as_deref().map(|text| self.own_resource(text).and_then(target_name)) {
                None => None,
                Some(Some(TargetName::Thing(found))) if name == "thingName" => Some(found.to_owned()),
                Some(Some(TargetName::Group(found))) if name == "thingGroupName" => Some(found.to_owned()),
                Some(_) => return Err(invalid(format!("The {arn} is not valid"))),
            };
            Ok(input.need(name, input.text(name, &THING_NAME)?.or(by_arn))?)
        };
        let (thing, group) = (of("thingName", "thingArn")?, of("thingGroupName", "thingGroupArn")?);
        self.thing(&thing)?;
        self.group(&group)?;
        Ok((thing, group))
    }

    pub(super) fn add_to_group(&mut self, now: Time, input: &Input) -> Result {
        let (thing, group) = self.thing_and_group(input)?;
        let groups = &self.thing(&thing)?.groups;
        if !groups.contains(&group) && groups.len() >= MOST_GROUPS_OF_A_THING {
            return Err(invalid(format!("A thing can be in {MOST_GROUPS_OF_A_THING} thing groups")));
        }
        let before = self.followed(&thing);
        if let Some(entry) = self.registry.things.get_mut(&thing) {
            entry.groups.insert(group.clone());
        }
        if let Some(entry) = self.registry.groups.get_mut(&group) {
            entry.members.insert(thing.clone());
        }
        self.membership_changed(now, &thing, &before);
        self.dirty.note(|| Row::Thing(thing));
        Ok(empty())
    }

    pub(super) fn remove_from_group(&mut self, now: Time, input: &Input) -> Result {
        let (thing, group) = self.thing_and_group(input)?;
        let before = self.followed(&thing);
        self.leave(&thing, &group);
        self.membership_changed(now, &thing, &before);
        Ok(empty())
    }

    fn leave(&mut self, thing: &str, group: &str) {
        if let Some(entry) = self.registry.things.get_mut(thing) {
            entry.groups.remove(group);
        }
        if let Some(entry) = self.registry.groups.get_mut(group) {
            entry.members.remove(thing);
        }
        self.dirty.note(|| Row::Thing(thing.to_owned()));
    }

    pub(super) fn list_things_in_group(&self, input: &Input) -> Result {
        let page = Page::of(input, "ListThingsInThingGroup")?;
        let name = group_name(input)?;
        let group = self.group(&name)?;
        let recursive = input.flag("recursive")?.unwrap_or(false);
        let members = if recursive { self.registry.members(&name) } else { group.members.clone() };
        let members =
            members.into_iter().filter(|name| page.after().is_none_or(|after| name.as_str() > after));
        let (things, token) = page.take(members.map(|name| (name.clone(), name)));
        let mut answer = merged(json!({"things": things}), empty());
        put(&mut answer, "nextToken", token);
        Ok(answer.into())
    }

    pub(super) fn list_groups_for_thing(&self, input: &Input) -> Result {
        let page = Page::of(input, "ListThingGroupsForThing")?;
        let thing = self.thing(&thing_name(input)?)?;
        Ok(self.page_of_groups(&page, thing.groups.iter().cloned()))
    }
}
