//! Who subscribed to what, so that a topic finds its subscribers without asking each of them.
//!
//! A filter with wildcards is the topic with some of its levels replaced. Few *shapes* of such filters are in use at
//! a time (`…/+/get/+` of ten thousand things is one shape), so a topic is looked up once as it is and once in
//! every shape of its length: as many hash lookups as there are shapes, whatever the number of subscribers.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::topic::{LEVELS, is_reserved, unshared};

/// Where the wildcards of a filter are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Shape {
    /// Levels before the `#`, or all of them.
    levels: usize,
    hash: bool,
    /// Bit n: level n is `+`.
    plus: u32,
}

impl Shape {
    fn of(filter: &str) -> Self {
        let mut shape = Self { levels: 0, hash: false, plus: 0 };
        for level in filter.split('/') {
            match level {
                "#" => shape.hash = true,
                "+" => shape.plus |= 1 << shape.levels.min(31),
                _ => {}
            }
            shape.levels += usize::from(!shape.hash);
        }
        shape
    }

    fn has_wildcards(self) -> bool {
        self.hash || self.plus != 0
    }

    fn fits(self, topic: &[&str]) -> bool {
        let begins_wild = self.plus & 1 != 0 || (self.hash && self.levels == 0);
        let reserved = topic.first().is_some_and(|first| is_reserved(first));
        // `a/#` is not for `a` at AWS: where there is a `#`, a level of the topic must be left for it.
        let length_fits = if self.hash { topic.len() > self.levels } else { topic.len() == self.levels };
        length_fits && !(begins_wild && reserved)
    }

    /// The filter of this shape that matches the topic.
    fn write(self, topic: &[&str], filter: &mut String) {
        filter.clear();
        let mut levels = topic
            .iter()
            .take(self.levels)
            .enumerate()
            .map(|(at, level)| if self.plus & (1 << at.min(31)) != 0 { "+" } else { level });
        filter.push_str(levels.next().unwrap_or_default());
        for level in levels {
            filter.push('/');
            filter.push_str(level);
        }
        if self.hash {
            filter.push_str(if self.levels == 0 { "#" } else { "/#" });
        }
    }
}

#[derive(Debug)]
struct Subscriber {
    client_id: Arc<str>,
    group: Option<Box<str>>,
    options: Options,
}

/// What a subscription asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// QoS 1 rather than 0.
    pub(crate) at_least_once: bool,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Routes {
    filters: HashMap<Box<str>, Vec<Subscriber>>,
    /// How many filters have each shape; those without wildcards are not counted.
    shapes: BTreeMap<Shape, usize>,
}

impl Routes {
    /// Adds a subscription, or replaces it; false when it was there before.
    pub(crate) fn subscribe(&mut self, client_id: &Arc<str>, filter: &str, options: Options) -> bool {
        let Some((group, bare)) = unshared(filter) else { return false };
        let subscribers = self.filters.entry(bare.into()).or_insert_with(|| {
            let shape = Shape::of(bare);
            if shape.has_wildcards() {
                *self.shapes.entry(shape).or_default() += 1;
            }
            Vec::new()
        });
        let same = |known: &&mut Subscriber| known.client_id == *client_id && known.group.as_deref() == group;
        if let Some(known) = subscribers.iter_mut().find(same) {
            known.options = options;
            return false;
        }
        subscribers.push(Subscriber {
            client_id: Arc::clone(client_id),
            group: group.map(Into::into),
            options,
        });
        true
    }

    pub(crate) fn unsubscribe(&mut self, client_id: &str, filter: &str) {
        let Some((group, bare)) = unshared(filter) else { return };
        let Some(subscribers) = self.filters.get_mut(bare) else { return };
        subscribers.retain(|known| *known.client_id != *client_id || known.group.as_deref() != group);
        if !subscribers.is_empty() {
            return;
        }
        self.filters.remove(bare);
        let shape = Shape::of(bare);
        if let Some(count) = self.shapes.get_mut(&shape) {
            *count -= 1;
            if *count == 0 {
                self.shapes.remove(&shape);
            }
        }
    }

    /// Each subscriber once, with the best of its matching subscriptions; one member of each shared group.
    pub(crate) fn matching(&self, topic: &str) -> Vec<(Arc<str>, Options)> {
        let mut found: Vec<&Subscriber> = Vec::new();
        let mut groups: BTreeMap<(&str, &str), Vec<&Subscriber>> = BTreeMap::new();
        self.each(topic, |filter, subscribers| {
            for subscriber in subscribers {
                match &subscriber.group {
                    None => found.push(subscriber),
                    Some(group) => groups.entry((group, filter)).or_default().push(subscriber),
                }
            }
        });
        found.extend(groups.values().filter_map(|members| members.get(fastrand::usize(..members.len()))));
        merged(found)
    }

    /// Whether anyone would get it: cheaper than to make a message for nobody.
    pub(crate) fn any(&self, topic: &str) -> bool {
        let mut any = false;
        self.each(topic, |_, _| any = true);
        any
    }

    fn each<'r>(&'r self, topic: &str, mut visit: impl FnMut(&'r str, &'r [Subscriber])) {
        let mut look_up = |filter: &str| {
            if let Some((filter, subscribers)) = self.filters.get_key_value(filter) {
                visit(filter, subscribers);
            }
        };
        look_up(topic);
        if self.shapes.is_empty() {
            return;
        }
        let levels: Vec<_> = topic.split('/').take(LEVELS + 1).collect();
        let mut filter = String::with_capacity(topic.len() + 2);
        for shape in self.shapes.keys().filter(|shape| shape.fits(&levels)) {
            shape.write(&levels, &mut filter);
            look_up(&filter);
        }
    }
}

fn merged(mut found: Vec<&Subscriber>) -> Vec<(Arc<str>, Options)> {
    if found.len() > 1 {
        // QoS 1 first, so that it is what remains of a client's several subscriptions.
        found.sort_by(|a, b| {
            (&a.client_id, b.options.at_least_once).cmp(&(&b.client_id, a.options.at_least_once))
        });
        found.dedup_by(|later, first| later.client_id == first.client_id);
    }
    found.into_iter().map(|one| (Arc::clone(&one.client_id), one.options)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::topic;
    use super::*;

    fn clients(routes: &Routes, topic: &str) -> BTreeSet<String> {
        routes.matching(topic).into_iter().map(|(client, _)| client.to_string()).collect()
    }

    /// Written without regard to `topic::matches`, by turning the filter into a set of choices for each level.
    fn naive(filter: &str, topic: &str) -> bool {
        fn levels(filter: &[&str], topic: &[&str]) -> bool {
            match (filter, topic) {
                ([], []) => true,
                (["#"], rest) => !rest.is_empty(),
                (["+", filter @ ..], [_, topic @ ..]) => levels(filter, topic),
                ([a, filter @ ..], [b, topic @ ..]) => a == b && levels(filter, topic),
                _ => false,
            }
        }
        let (f, t): (Vec<_>, Vec<_>) = (filter.split('/').collect(), topic.split('/').collect());
        levels(&f, &t) && !(topic.starts_with('$') && (f[0] == "+" || f[0] == "#"))
    }

    proptest! {
        #[test]
        fn agrees_with_a_linear_scan(
            filters in prop::collection::vec("((\\$?[ab]|\\+|)(/([ab]|\\+|)){0,3}(/#)?|#)", 1..20),
            removed in prop::collection::vec(any::<bool>(), 20),
            topics in prop::collection::vec("\\$?[ab]?(/[ab]?){0,4}", 1..10),
        ) {
            let mut routes = Routes::default();
            let mut kept = Vec::new();
            for (n, filter) in filters.iter().enumerate() {
                let client: Arc<str> = format!("client-{n}").into();
                routes.subscribe(&client, filter, Options::default());
                kept.push((client, filter));
            }
            let mut flags = removed.iter();
            kept.retain(|(client, filter)| {
                let remove = *flags.next().unwrap();
                if remove { routes.unsubscribe(client, filter); }
                !remove
            });
            for topic in &topics {
                let expected: BTreeSet<_> = kept.iter()
                    .filter(|(_, filter)| naive(filter, topic))
                    .map(|(client, _)| client.to_string()).collect();
                prop_assert_eq!(clients(&routes, topic), expected, "{}", topic);
                for (_, filter) in &kept {
                    prop_assert_eq!(topic::matches(filter, topic), naive(filter, topic), "{} {}", filter, topic);
                }
            }
            for (client, filter) in kept { routes.unsubscribe(&client, filter); }
            prop_assert!(routes.filters.is_empty() && routes.shapes.is_empty());
        }
    }

    #[test]
    fn one_client_with_several_matches_gets_one_message_at_the_best_qos() {
        let mut routes = Routes::default();
        let client: Arc<str> = "c".into();
        let once = Options { at_least_once: true, ..Options::default() };
        assert!(routes.subscribe(&client, "a/b", Options::default()));
        assert!(routes.subscribe(&client, "a/+", once));
        assert!(!routes.subscribe(&client, "a/b", Options::default()), "known already");
        assert_eq!(routes.matching("a/b"), [(client, once)]);
    }

    #[test]
    fn a_shared_group_gets_each_message_once() {
        let mut routes = Routes::default();
        for member in ["one", "two"] {
            routes.subscribe(&member.into(), "$share/group/a", Options::default());
        }
        routes.subscribe(&"alone".into(), "a", Options::default());
        let seen: BTreeSet<_> = (0..100)
            .flat_map(|_| {
                let found = clients(&routes, "a");
                assert!(found.len() == 2 && found.contains("alone"), "{found:?}");
                found
            })
            .collect();
        assert_eq!(seen.len(), 3, "both members had their turn");
    }

    #[test]
    fn ten_thousand_things_are_one_shape() {
        let mut routes = Routes::default();
        for n in 0..10_000 {
            let client: Arc<str> = format!("thing-{n}").into();
            routes.subscribe(&client, &format!("$aws/things/{client}/jobs/+/get/+"), Options::default());
        }
        assert_eq!(routes.shapes.len(), 1);
        assert_eq!(clients(&routes, "$aws/things/thing-77/jobs/j/get/accepted").len(), 1);
        assert!(!routes.any("$aws/things/thing-77/jobs/j/update/accepted"));
    }
}
