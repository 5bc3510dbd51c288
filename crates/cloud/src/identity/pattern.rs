//! Resources of a policy: text with `*` (any characters), `?` (one) and `${…}` variables.

/// What a connection puts in the place of `${…}`. None: the variable has no value here.
pub(crate) trait Variables {
    fn value(&self, name: &str) -> Option<&str>;
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Token {
    Char(char),
    One,
    Many,
}

/// A pattern whose variables have been filled in; the values count literally, also where they hold `*`.
#[derive(Clone, Debug)]
pub(crate) struct Pattern(Box<[Token]>);

impl Pattern {
    /// None when a variable has no value: what it stands in then applies to nothing.
    pub(crate) fn compile(text: &str, variables: &dyn Variables) -> Option<Self> {
        let mut tokens = Vec::with_capacity(text.len());
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let inside = rest.strip_prefix("${").and_then(|after| after.split_once('}'));
            if let Some((name, after)) = inside {
                // `${*}`, `${?}` and `${$}` are how the language writes these characters themselves.
                let value = if matches!(name, "*" | "?" | "$") { name } else { variables.value(name)? };
                tokens.extend(value.chars().map(Token::Char));
                rest = after;
                continue;
            }
            tokens.push(match first {
                '*' => Token::Many,
                '?' => Token::One,
                other => Token::Char(other),
            });
            rest = rest.get(first.len_utf8()..).unwrap_or_default();
        }
        Some(Self(tokens.into()))
    }

    /// Linear in practice and never worse than length × length: one point to go back to, the last `*`.
    pub(crate) fn matches(&self, text: impl Iterator<Item = char> + Clone) -> bool {
        let (mut at, mut text) = (0, text);
        let mut last_star = None;
        loop {
            let token = self.0.get(at).copied();
            if token == Some(Token::Many) {
                at += 1;
                last_star = Some((at, text.clone()));
                continue;
            }
            match (token, text.next()) {
                (None, None) => return true,
                (Some(Token::One), Some(_)) => at += 1,
                (Some(Token::Char(wanted)), Some(found)) if wanted == found => at += 1,
                (_, None) => return false,
                _ => match &mut last_star {
                    None => return false,
                    Some((after_star, from)) => {
                        from.next();
                        (at, text) = (*after_star, from.clone());
                    }
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Thing(Option<&'static str>);
    impl Variables for Thing {
        fn value(&self, name: &str) -> Option<&str> {
            (name == "thing").then_some(self.0).flatten()
        }
    }

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("a", "a", true),
            ("*", "", true),
            ("*", "anything/at/all", true),
            ("a*c", "abbc", true),
            ("a*c", "abb", false),
            ("a*b*c", "a-b-b-c", true),
            ("*aab", "aaaaab", true),
            ("?", "", false),
            ("?", "é", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("x/${thing}/y", "x/lamp*/y", true),
            ("x/${thing}/y", "x/lampshade/y", false),
            ("$aws/things/${thing}/*", "$aws/things/lamp*/jobs/get", true),
            ("${*}", "*", true),
            ("${*}", "a", false),
            ("${unclosed", "${unclosed", true),
        ] {
            let compiled = Pattern::compile(pattern, &Thing(Some("lamp*"))).unwrap();
            assert_eq!(compiled.matches(text.chars()), expected, "{pattern} on {text}");
        }
        assert!(Pattern::compile("x/${thing}", &Thing(None)).is_none());
        assert!(Pattern::compile("x/${unknown}", &Thing(Some("a"))).is_none());
    }

    proptest::proptest! {
        #[test]
        fn agrees_with_recursion(pattern in "[ab*?]{0,8}", text in "[ab]{0,8}") {
            fn naive(pattern: &[char], text: &[char]) -> bool {
                match (pattern.split_first(), text.split_first()) {
                    (None, None) => true,
                    (Some(('*', rest)), _) if naive(rest, text) => true,
                    (Some(('*', _)), Some((_, tail))) => naive(pattern, tail),
                    (Some((p, rest)), Some((t, tail))) => (*p == '?' || p == t) && naive(rest, tail),
                    _ => false,
                }
            }
            let compiled = Pattern::compile(&pattern, &Thing(None)).unwrap();
            let expected = naive(&pattern.chars().collect::<Vec<_>>(), &text.chars().collect::<Vec<_>>());
            proptest::prop_assert_eq!(compiled.matches(text.chars()), expected);
        }
    }
}
