//! RAUC's slots: which one runs, which one a bundle goes to.

use std::collections::HashMap;

use zbus::zvariant::OwnedVariant;

use super::error::RaucError;

/// A slot as `GetSlotStatus` tells of it. Names are RAUC's own (`rootfs.1`): it takes them wherever it asks for a slot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Slot {
    pub name: String,
    pub class: String,
    pub device: String,
    pub bootable: bool,
    pub booted: bool,
    parent: Option<String>,
    /// Of the image that RAUC wrote last, where it keeps a record of that.
    pub sha256: Option<String>,
    /// When that was, and how often it has been.
    installed: String,
}

impl Slot {
    pub(super) fn new(name: String, mut status: HashMap<String, OwnedVariant>) -> Self {
        let mut text = |key: &str| status.remove(key).and_then(|value| String::try_from(value).ok());
        let [class, device] = ["class", "device"].map(|key| text(key).unwrap_or_default());
        let bootable = text("bootname").is_some();
        let booted = text("state").as_deref() == Some("booted");
        let (parent, sha256) = (text("parent"), text("sha256"));
        let when = text("installed.timestamp").unwrap_or_default();
        let count = status.remove("installed.count").and_then(|count| u32::try_from(count).ok());
        let installed = format!("{when} {}", count.unwrap_or_default());
        Self { name, class, device, bootable, booted, parent, sha256, installed }
    }

    /// Another one after whatever RAUC installs here, by whose order ever.
    pub(super) fn stamp(&self) -> String {
        format!("{} {} {}\n", self.name, self.installed, self.sha256.as_deref().unwrap_or("-"))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slots(pub Vec<Slot>);

impl Slots {
    pub(super) fn booted(&self) -> Result<&Slot, RaucError> {
        let booted = self.0.iter().find(|slot| slot.booted);
        booted.ok_or_else(|| RaucError::NoBooted("none of its slots is the booted one".to_owned()))
    }

    /// The one that a bundle goes to. Where there are several, only RAUC knows which, and nobody afterwards.
    pub(super) fn other(&self) -> Result<&Slot, RaucError> {
        let booted = self.booted()?;
        let others: Vec<_> = self
            .0
            .iter()
            .filter(|slot| {
                slot.bootable && !slot.booted && slot.parent.is_none() && slot.class == booted.class
            })
            .collect();
        match others.as_slice() {
            [other] => Ok(other),
            _ => Err(RaucError::NoOther {
                booted: booted.name.clone(),
                class: booted.class.clone(),
                found: others.len(),
            }),
        }
    }

    /// Where an image of this class goes when `written` is the slot that boots next. `None`: only RAUC knows.
    pub(super) fn receives(&self, class: &str, written: &str) -> Option<&Slot> {
        let booted = self.0.iter().find(|slot| slot.booted)?;
        let of_class = self.0.iter().filter(|slot| slot.class == class);
        if let Some(slot) = of_class.clone().find(|slot| self.root(slot) == written) {
            return Some(slot);
        }
        // A class of its own, beside the system's: a bootloader, a rescue system.
        let mut aside = of_class.filter(|slot| slot.parent.is_none() && slot.name != booted.name);
        aside.next().filter(|_| aside.next().is_none())
    }

    /// The slot that this one belongs to.
    fn root<'a>(&'a self, slot: &'a Slot) -> &'a str {
        let mut root = slot;
        // No chain is longer than there are slots.
        for _ in &self.0 {
            let Some(parent) = &root.parent else { break };
            let Some(above) = self.0.iter().find(|slot| slot.name == *parent) else { break };
            root = above;
        }
        &root.name
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn slot(name: &str, bootable: bool, parent: Option<&str>) -> Slot {
        let class = name.split('.').next().unwrap().to_owned();
        Slot { name: name.into(), class, bootable, parent: parent.map(Into::into), ..Slot::default() }
    }

    fn system(booted: &str) -> Slots {
        let mut slots = vec![
            slot("appfs.0", false, Some("rootfs.0")),
            slot("data.0", false, Some("appfs.0")),
            slot("rootfs.0", true, None),
            slot("rootfs.1", true, None),
            slot("appfs.1", false, Some("rootfs.1")),
            slot("data.1", false, Some("appfs.1")),
            slot("rescue.0", true, None),
            slot("spare.0", false, None),
            slot("spare.1", false, None),
        ];
        slots.iter_mut().for_each(|slot| slot.booted = slot.name == booted);
        Slots(slots)
    }

    #[test]
    fn the_other_slot_is_the_one_bootable_slot_of_the_same_class() {
        assert_eq!(system("rootfs.0").other().unwrap().name, "rootfs.1");
        assert_eq!(system("rootfs.1").other().unwrap().name, "rootfs.0");
        let mut three = system("rootfs.0");
        three.0.push(slot("rootfs.2", true, None));
        for (slots, reason) in [
            (system("/dev/nfs"), "booted-slot-unknown"),
            (system("rescue.0"), "not-configured"),
            (three, "not-configured"),
        ] {
            assert_eq!(slots.other().unwrap_err().reason(), reason, "{slots:?}");
        }
    }

    #[test]
    fn an_image_goes_to_the_slot_of_its_class_that_belongs_to_the_written_one() {
        let slots = system("rootfs.0");
        for (class, expected) in [
            ("rootfs", Some("rootfs.1")),
            ("appfs", Some("appfs.1")),
            ("data", Some("data.1")),
            ("rescue", Some("rescue.0")),
            ("spare", None),
            ("nothing", None),
        ] {
            let found = slots.receives(class, "rootfs.1").map(|slot| slot.name.as_str());
            assert_eq!(found, expected, "{class}");
        }
    }

    #[test]
    fn parents_in_a_circle_end() {
        let circle = Slots(vec![slot("a.0", false, Some("b.0")), slot("b.0", false, Some("a.0"))]);
        assert_eq!(circle.receives("a", "rootfs.1"), None);
    }
}
