//! `a=b, a==b, a!=b, a in (x,y), a notin (x), a, !a`, joined by commas (AND).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{LabelError, validate_key, validate_value};

/// What a requirement asks of a label.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Operator {
    /// The label has this value.
    Equals(String),
    /// The label is absent or has another value.
    NotEquals(String),
    /// The label has one of these values.
    In(BTreeSet<String>),
    /// The label is absent or has none of these values.
    NotIn(BTreeSet<String>),
    /// The label is there.
    Exists,
    /// The label is absent.
    Absent,
}

/// One requirement of a selector.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// What is asked of it.
    pub operator: Operator,
}

impl Requirement {
    /// Whether a set of labels meets it.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        match &self.operator {
            Operator::Equals(wanted) => value == Some(wanted),
            Operator::NotEquals(unwanted) => value != Some(unwanted),
            Operator::In(wanted) => value.is_some_and(|value| wanted.contains(value)),
            Operator::NotIn(unwanted) => !value.is_some_and(|value| unwanted.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::Absent => value.is_none(),
        }
    }
}

/// A conjunction of requirements.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Selector {
    requirements: Vec<Requirement>,
}

/// Text that is no selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// The syntax is broken.
    #[error("selector \"{selector}\" is invalid at character {at}: {message}")]
    Syntax {
        /// The text.
        selector: String,
        /// Where, counted in characters from 1.
        at: usize,
        /// What is wrong.
        message: String,
    },
    /// A key or value is no label key or value.
    #[error("selector \"{selector}\" is invalid: {label}")]
    Label {
        /// The text.
        selector: String,
        /// What is wrong.
        label: LabelError,
    },
}

impl Selector {
    /// The requirements, in the order they were written.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// True for the empty selector.
    pub fn matches_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// For lists: whether a set of labels meets all requirements. The empty selector matches everything.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.requirements
            .iter()
            .all(|requirement| requirement.matches(labels))
    }

    /// For applications: whether a node with these labels runs it. The empty selector matches no node.
    pub fn matches_app_node(&self, node_labels: &BTreeMap<String, String>) -> bool {
        !self.matches_everything() && self.matches(node_labels)
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |values: &BTreeSet<String>| {
            values
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join(",")
        };
        let key = &self.key;
        match &self.operator {
            Operator::Equals(value) => write!(f, "{key}={value}"),
            Operator::NotEquals(value) => write!(f, "{key}!={value}"),
            Operator::In(values) => write!(f, "{key} in ({})", list(values)),
            Operator::NotIn(values) => write!(f, "{key} notin ({})", list(values)),
            Operator::Exists => write!(f, "{key}"),
            Operator::Absent => write!(f, "!{key}"),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, requirement) in self.requirements.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            fmt::Display::fmt(requirement, f)?;
        }
        Ok(())
    }
}

impl FromStr for Selector {
    type Err = SelectorError;
    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let tokens = tokenize(text);
        Parser {
            text,
            tokens,
            at: 0,
        }
        .selector()
    }
}

impl TryFrom<String> for Selector {
    type Error = SelectorError;
    fn try_from(text: String) -> Result<Self, SelectorError> {
        text.parse()
    }
}

impl From<Selector> for String {
    fn from(selector: Selector) -> String {
        selector.to_string()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Equals,
    NotEquals,
    Not,
    Comma,
    Open,
    Close,
}

impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Word(word) => word,
            Self::Equals => "=",
            Self::NotEquals => "!=",
            Self::Not => "!",
            Self::Comma => ",",
            Self::Open => "(",
            Self::Close => ")",
        })
    }
}

/// Tokens with the byte offset they begin at.
fn tokenize(text: &str) -> Vec<(usize, Token<'_>)> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        let (token, length) = match first {
            ' ' | '\t' | '\r' | '\n' => {
                at += 1;
                continue;
            }
            ',' => (Token::Comma, 1),
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            '=' if rest.starts_with("==") => (Token::Equals, 2),
            '=' => (Token::Equals, 1),
            '!' if rest.starts_with("!=") => (Token::NotEquals, 2),
            '!' => (Token::Not, 1),
            _ => {
                let end = rest
                    .find([' ', '\t', '\r', '\n', ',', '(', ')', '=', '!'])
                    .unwrap_or(rest.len());
                (Token::Word(&rest[..end]), end)
            }
        };
        tokens.push((at, token));
        at += length;
    }
    tokens
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<(usize, Token<'a>)>,
    at: usize,
}

impl<'a> Parser<'a> {
    fn selector(mut self) -> Result<Selector, SelectorError> {
        let mut requirements = Vec::new();
        if self.tokens.is_empty() {
            return Ok(Selector { requirements });
        }
        loop {
            requirements.push(self.requirement()?);
            match self.next() {
                None => return Ok(Selector { requirements }),
                Some(Token::Comma) => {}
                Some(token) => {
                    self.at -= 1;
                    return Err(
                        self.error(format!("\"{token}\" stands where ',' or the end is wanted"))
                    );
                }
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        if self.peek() == Some(Token::Not) {
            self.at += 1;
            let key = self.key()?;
            return Ok(Requirement {
                key,
                operator: Operator::Absent,
            });
        }
        let key = self.key()?;
        let operator = match self.peek() {
            None | Some(Token::Comma) => Operator::Exists,
            Some(Token::Equals) => {
                self.at += 1;
                Operator::Equals(self.value(&key)?)
            }
            Some(Token::NotEquals) => {
                self.at += 1;
                Operator::NotEquals(self.value(&key)?)
            }
            Some(Token::Word("in")) => {
                self.at += 1;
                Operator::In(self.values(&key)?)
            }
            Some(Token::Word("notin")) => {
                self.at += 1;
                Operator::NotIn(self.values(&key)?)
            }
            Some(token) => {
                let message = format!(
                    "\"{token}\" stands where one of =, ==, !=, in, notin or ',' is wanted"
                );
                return Err(self.error(message));
            }
        };
        Ok(Requirement { key, operator })
    }

    fn key(&mut self) -> Result<String, SelectorError> {
        match self.peek() {
            Some(Token::Word(key)) => {
                validate_key(key).map_err(|label| self.label_error(label))?;
                self.at += 1;
                Ok(key.to_owned())
            }
            _ => Err(self.error("a label key is wanted".to_owned())),
        }
    }

    /// A value; nothing stands for the empty value, as in Kubernetes.
    fn value(&mut self, key: &str) -> Result<String, SelectorError> {
        let Some(Token::Word(value)) = self.peek() else {
            return Ok(String::new());
        };
        validate_value(key, value).map_err(|label| self.label_error(label))?;
        self.at += 1;
        Ok(value.to_owned())
    }

    fn values(&mut self, key: &str) -> Result<BTreeSet<String>, SelectorError> {
        if self.next() != Some(Token::Open) {
            self.at -= 1;
            return Err(self.error("'(' is wanted".to_owned()));
        }
        let mut values = BTreeSet::new();
        loop {
            values.insert(self.value(key)?);
            match self.next() {
                Some(Token::Comma) => {}
                Some(Token::Close) => return Ok(values),
                _ => {
                    self.at -= 1;
                    return Err(self.error("',' or ')' is wanted".to_owned()));
                }
            }
        }
    }

    fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.at).map(|(_, token)| *token)
    }

    /// The next token. Steps over the end too, so that `at -= 1` always goes back to what was looked at.
    fn next(&mut self) -> Option<Token<'a>> {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn error(&self, message: String) -> SelectorError {
        let offset = self
            .tokens
            .get(self.at)
            .map_or(self.text.len(), |(offset, _)| *offset);
        let at = self.text[..offset].chars().count() + 1;
        SelectorError::Syntax {
            selector: self.text.to_owned(),
            at,
            message,
        }
    }

    fn label_error(&self, label: LabelError) -> SelectorError {
        SelectorError::Label {
            selector: self.text.to_owned(),
            label,
        }
    }
}
