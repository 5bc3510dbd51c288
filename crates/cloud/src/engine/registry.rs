//! Things and thing groups, and who is a member of what.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::interface::Time;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Thing {
    pub name: String,
    pub id: String,
    pub type_name: Option<String>,
    pub billing_group: Option<String>,
    pub attributes: BTreeMap<String, String>,
    pub version: i64,
    /// Groups it was put into; their parents follow from these.
    pub groups: BTreeSet<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Group {
    pub name: String,
    pub id: String,
    pub parent: Option<String>,
    pub description: Option<String>,
    pub attributes: BTreeMap<String, String>,
    pub version: i64,
    pub created_at: Time,
    /// Kept at hand; they follow from the rows of things and groups.
    #[serde(skip)]
    pub members: BTreeSet<String>,
    #[serde(skip)]
    pub children: BTreeSet<String>,
}

#[derive(Clone, Debug, Default)]
pub struct Registry {
    pub things: BTreeMap<String, Thing>,
    pub groups: BTreeMap<String, Group>,
}

impl Registry {
    /// Members and children from what the rows say.
    pub fn index(&mut self) {
        let parents: Vec<_> = self.groups.values().map(|g| (g.name.clone(), g.parent.clone())).collect();
        for (name, parent) in parents {
            if let Some(parent) = parent.and_then(|parent| self.groups.get_mut(&parent)) {
                parent.children.insert(name);
            }
        }
        for thing in self.things.values() {
            for group in &thing.groups {
                if let Some(group) = self.groups.get_mut(group) {
                    group.members.insert(thing.name.clone());
                }
            }
        }
    }

    /// The group and its parents, from the root down. Groups are at most 7 deep.
    pub fn path(&self, group: &str) -> Vec<&Group> {
        let mut path = Vec::new();
        let mut next = self.groups.get(group);
        while let Some(group) = next {
            path.push(group);
            next = group.parent.as_ref().and_then(|parent| self.groups.get(parent));
        }
        path.reverse();
        path
    }

    pub fn is_member(&self, thing: &str, group: &str) -> bool {
        let Some(thing) = self.things.get(thing) else { return false };
        thing.groups.iter().any(|name| self.path(name).iter().any(|parent| parent.name == group))
    }

    /// The group's things, with those of the groups below it, by name.
    pub fn members(&self, group: &str) -> BTreeSet<String> {
        let mut members = BTreeSet::new();
        for name in self.below(group) {
            if let Some(group) = self.groups.get(&name) {
                members.extend(group.members.iter().cloned());
            }
        }
        members
    }

    /// The group and every group below it.
    pub fn below(&self, group: &str) -> Vec<String> {
        let mut found = Vec::new();
        let mut open = vec![group.to_owned()];
        while let Some(name) = open.pop() {
            if let Some(group) = self.groups.get(&name) {
                open.extend(group.children.iter().cloned());
                found.push(name);
            }
        }
        found
    }
}
