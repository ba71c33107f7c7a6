//! A policy as a TOML file. Keys that are not known are refused: a typing error must not let
//! anybody in.
//!
//! ```toml
//! unknown = "report"          # or "allow": what cannot be told counts as allowed
//!
//! [[allow]]
//! port = "tcp/22"             # tcp/8000-8100, tcp/*, or a list of these
//! from = ["10.0.0.0/8", "lan"]
//! via = "eth0"                # only by this interface
//! program = "sshd"            # only if that is what listens
//! ```

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Expectation, Origin, Policy, PortRange, RULES_MAX, RuleError};

/// A policy that cannot be read, and in which line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {fault}")]
pub struct DocumentError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong in a line of a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Not TOML.
    #[error("{0}")]
    Syntax(String),
    /// A key that means nothing.
    #[error("`{key}` is no key of {place}; there are: {}", known.join(", "))]
    Key {
        /// The key.
        key: String,
        /// Where it stands.
        place: &'static str,
        /// The keys that mean something there.
        known: &'static [&'static str],
    },
    /// A key that must be there.
    #[error("[[allow]] needs `{0}`")]
    Missing(&'static str),
    /// A value of the wrong type.
    #[error("`{key}` must be {wanted}, not {found}")]
    Type {
        /// The key.
        key: &'static str,
        /// What it takes.
        wanted: &'static str,
        /// What stands there.
        found: &'static str,
    },
    /// A value that means nothing.
    #[error("`unknown` is \"report\" or \"allow\", not {0:?}")]
    Unknown(String),
    /// An empty text or list.
    #[error("`{0}` is empty")]
    Empty(&'static str),
    /// A port or a source that means nothing.
    #[error(transparent)]
    Rule(#[from] RuleError),
    /// No rule at all.
    #[error(
        "the policy has no [[allow]], so it says nothing; if nobody but this computer may reach \
         anything, write: [[allow]] port = [\"tcp/*\", \"udp/*\"] from = \"self\""
    )]
    NoRules,
    /// Too many of them.
    #[error("more than {RULES_MAX} rules")]
    TooManyRules,
}

const TOP_KEYS: &[&str] = &["allow", "unknown"];
const RULE_KEYS: &[&str] = &["port", "from", "via", "program"];

type Value<'i> = Spanned<DeValue<'i>>;

/// A text, and where it stands.
struct Text<'t> {
    text: &'t str,
    span: Range<usize>,
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    /// If it is not TOML, or says something that has no meaning here.
    pub fn from_toml(text: &str) -> Result<Self, DocumentError> {
        let reader = Reader { text };
        let table = DeTable::parse(text).map_err(|error| {
            let at = error.span().unwrap_or(0..0);
            reader.fault(at, Fault::Syntax(error.message().to_owned()))
        })?;
        reader.policy(table.get_ref())
    }
}

struct Reader<'t> {
    text: &'t str,
}

impl Reader<'_> {
    fn fault(&self, span: Range<usize>, fault: impl Into<Fault>) -> DocumentError {
        let before = self.text.as_bytes().iter().take(span.start);
        let line = 1 + before.filter(|byte| **byte == b'\n').count();
        DocumentError { line, fault: fault.into() }
    }

    fn policy(&self, table: &DeTable<'_>) -> Result<Policy, DocumentError> {
        self.check_keys(table, "a policy", TOP_KEYS)?;
        let allow_unknown = match table.get("unknown") {
            None => false,
            Some(value) => {
                let Text { text, span } = self.text("unknown", value)?;
                match text {
                    "report" => false,
                    "allow" => true,
                    other => return Err(self.fault(span, Fault::Unknown(other.to_owned()))),
                }
            }
        };
        let Some(allow) = table.get("allow") else {
            return Err(self.fault(0..0, Fault::NoRules));
        };
        let wanted = "a list of tables, written [[allow]]";
        let entries = allow.get_ref().as_array();
        let entries = entries.ok_or_else(|| self.wrong_type("allow", wanted, allow))?;
        if entries.is_empty() {
            return Err(self.fault(allow.span(), Fault::NoRules));
        }
        if entries.len() > RULES_MAX {
            return Err(self.fault(allow.span(), Fault::TooManyRules));
        }
        let mut rules = Vec::with_capacity(entries.len());
        for entry in entries.iter() {
            let table = entry.get_ref().as_table();
            let table = table.ok_or_else(|| self.wrong_type("allow", wanted, entry))?;
            rules.push(self.rule(table, entry.span())?);
        }
        Ok(Policy { rules, allow_unknown })
    }

    fn rule(&self, table: &DeTable<'_>, span: Range<usize>) -> Result<Expectation, DocumentError> {
        self.check_keys(table, "[[allow]]", RULE_KEYS)?;
        let needed = |key: &'static str| {
            table.get(key).ok_or_else(|| self.fault(span.clone(), Fault::Missing(key)))
        };
        let optional = |key: &'static str| -> Result<Option<String>, DocumentError> {
            let Some(value) = table.get(key) else { return Ok(None) };
            let Text { text, span } = self.text(key, value)?;
            if text.is_empty() {
                return Err(self.fault(span, Fault::Empty(key)));
            }
            Ok(Some(text.to_owned()))
        };
        let ports: Vec<PortRange> = self.parsed(&self.texts("port", needed("port")?)?)?;
        let from: Vec<Origin> = self.parsed(&self.texts("from", needed("from")?)?)?;
        Ok(Expectation {
            ports,
            from,
            via: optional("via")?,
            program: optional("program")?,
            line: Some(self.fault(span.clone(), Fault::NoRules).line),
        })
    }

    fn parsed<T: std::str::FromStr<Err = RuleError>>(
        &self,
        texts: &[Text<'_>],
    ) -> Result<Vec<T>, DocumentError> {
        let one = |text: &Text<'_>| {
            text.text.parse().map_err(|error: RuleError| self.fault(text.span.clone(), error))
        };
        texts.iter().map(one).collect()
    }

    fn check_keys(
        &self,
        table: &DeTable<'_>,
        place: &'static str,
        known: &'static [&'static str],
    ) -> Result<(), DocumentError> {
        for key in table.keys() {
            if !known.contains(&key.get_ref().as_ref()) {
                let fault = Fault::Key { key: key.get_ref().to_string(), place, known };
                return Err(self.fault(key.span(), fault));
            }
        }
        Ok(())
    }

    fn wrong_type(&self, key: &'static str, wanted: &'static str, at: &Value<'_>) -> DocumentError {
        let found = at.get_ref().type_str();
        self.fault(at.span(), Fault::Type { key, wanted, found })
    }

    fn text<'v>(&self, key: &'static str, value: &'v Value<'_>) -> Result<Text<'v>, DocumentError> {
        let text = value.get_ref().as_str();
        let text = text.ok_or_else(|| self.wrong_type(key, "a text in quotes", value))?;
        Ok(Text { text, span: value.span() })
    }

    /// A text, or a list of them.
    fn texts<'v>(
        &self,
        key: &'static str,
        value: &'v Value<'_>,
    ) -> Result<Vec<Text<'v>>, DocumentError> {
        let wanted = "a text in quotes, or a list of texts";
        if value.get_ref().is_str() {
            return Ok(vec![self.text(key, value)?]);
        }
        let list = value.get_ref().as_array();
        let list = list.ok_or_else(|| self.wrong_type(key, wanted, value))?;
        if list.is_empty() {
            return Err(self.fault(value.span(), Fault::Empty(key)));
        }
        let one = |inner| self.text(key, inner);
        list.iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_as_it_is_written() {
        let text = "# ours\nunknown = \"allow\"\n\n[[allow]]\nport = \"tcp/22\"\n\
                    from = [\"10.0.0.0/8\", \"lan\"]\nvia = \"eth0\"\nprogram = \"sshd\"\n\n\
                    [[allow]]\nport = [\"tcp/80\", \"tcp/443\"]\nfrom = \"any\"\n";
        let policy = Policy::from_toml(text).expect(text);
        assert!(policy.allow_unknown);
        let rules: Vec<String> = policy.rules.iter().map(ToString::to_string).collect();
        let expected =
            ["tcp/22 from 10.0.0.0/8, lan via eth0 program sshd", "tcp/80, tcp/443 from any"];
        assert_eq!(rules, expected);
        assert_eq!(policy.rules[0].line, Some(4));
        assert_eq!(policy.rules[1].line, Some(10));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let rule = "[[allow]]\nport = \"tcp/22\"\nfrom = \"lan\"\n";
        for (text, message) in [
            ("", "line 1: the policy has no [[allow]]"),
            ("unknown = \"allow\"\n", "line 1: the policy has no [[allow]]"),
            ("allow = []\n", "line 1: the policy has no [[allow]]"),
            ("[allow]\nport = 1\n", "line 1: `allow` must be a list of tables"),
            ("[[allow]]\n", "line 1: [[allow]] needs `port`"),
            ("\n[[allow]]\nport = \"tcp/22\"\n", "line 2: [[allow]] needs `from`"),
            ("[[allow]]\nport = 22\nfrom = \"lan\"", "line 2: `port` must be a text"),
            ("[[allow]]\nport = \"22\"\nfrom = \"lan\"", "line 2: `22` says no protocol"),
            ("[[allow]]\nport = \"tcp/22\"\nfrom = []", "line 3: `from` is empty"),
            ("[[allow]]\nport = \"tcp/22\"\nfrom = [1]", "line 3: `from` must be a text"),
            ("[[allow]]\nport = \"tcp/22\"\nfrom = \"lna\"", "line 3: `lna` is not self"),
            (
                &format!("{rule}form = \"lan\"\n"),
                "line 4: `form` is no key of [[allow]]; there are: port, from, via, program",
            ),
            (&format!("deny = 1\n{rule}"), "line 1: `deny` is no key of a policy"),
            (&format!("unknown = true\n{rule}"), "line 1: `unknown` must be a text"),
            (&format!("unknown = \"fail\"\n{rule}"), "line 1: `unknown` is \"report\""),
            (&format!("{rule}via = \"\"\n"), "line 4: `via` is empty"),
            (&format!("{rule}from = \"any\"\n"), "line 4: duplicate key"),
            ("[[allow]\n", "line 1: "),
        ] {
            let error = Policy::from_toml(text).expect_err(text).to_string();
            assert!(error.starts_with(message), "{text}: {error}");
        }
    }
}
