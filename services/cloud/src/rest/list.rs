//! Lists: Baetyl v2's options, label filter, paging, and the shape `{total, <options>, items}`.

use std::collections::BTreeMap;

use axum::extract::FromRequestParts;
use baetyl_model::labels::Selector;
use baetyl_model::resource::label;
use http::request::Parts;
use serde::Serialize;

use super::error::{ApiError, Mistake};

/// What a list is asked for; echoed in the answer as far as it was given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListOptions {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) selector: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) node_selector: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) field_selector: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) keyword_type: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) keyword: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) alias: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) cluster: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) ready: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) create_sort: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) limit: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) r#continue: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) page_no: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) page_size: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) name: String,
    #[serde(skip)]
    parsed: Selector,
    #[serde(skip)]
    hosts: Selector,
}

/// Most items of a page; who asks for more gets so many.
const MAX_PAGE: u64 = 1000;

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The answer to a list.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ListView<T> {
    /// How many there are after the filters, before paging.
    pub(super) total: usize,
    #[serde(flatten)]
    pub(super) options: ListOptions,
    pub(super) items: Vec<T>,
}

impl<T> ListView<T> {
    /// A list that takes no options.
    pub(super) fn plain(items: Vec<T>) -> Self {
        Self {
            total: items.len(),
            options: ListOptions::default(),
            items,
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ListOptions {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Self::parse(parts.uri.query().unwrap_or_default())
    }
}

impl ListOptions {
    pub(super) fn parse(query: &str) -> Result<Self, ApiError> {
        let mut mistakes = Vec::new();
        let mut options = Self::default();
        for (key, value) in pairs(query) {
            match key.as_str() {
                "selector" => options.selector = value,
                "nodeSelector" => options.node_selector = value,
                "fieldSelector" => options.field_selector = value,
                "keywordType" => options.keyword_type = value,
                "keyword" => options.keyword = value,
                "alias" => options.alias = value,
                "cluster" => options.cluster = value,
                "ready" => options.ready = value,
                "createSort" => options.create_sort = value,
                "continue" => options.r#continue = value,
                "name" => options.name = value,
                "limit" => options.limit = number("limit", &value, &mut mistakes),
                "pageNo" => options.page_no = number("pageNo", &value, &mut mistakes),
                "pageSize" => options.page_size = number("pageSize", &value, &mut mistakes),
                _ => {}
            }
        }
        if options.page_size > 0 && options.page_no == 0 {
            options.page_no = 1;
        }
        options.page_size = options.page_size.min(MAX_PAGE);
        for (field, text, parsed) in [
            ("selector", &options.selector, &mut options.parsed),
            ("nodeSelector", &options.node_selector, &mut options.hosts),
        ] {
            match text.parse() {
                Ok(selector) => *parsed = selector,
                Err(error) => mistakes.push(Mistake::new(field, format!("{error}"))),
            }
        }
        for (field, value, words) in [
            ("cluster", &options.cluster, &["single", "cluster"][..]),
            ("ready", &options.ready, &["online", "offline", "uninstall"]),
            ("createSort", &options.create_sort, &["asc", "desc"]),
        ] {
            if !value.is_empty() && !words.contains(&value.as_str()) {
                mistakes.push(Mistake::new(
                    field,
                    format!("\"{value}\" is not one of {}", words.join(", ")),
                ));
            }
        }
        if mistakes.is_empty() {
            Ok(options)
        } else {
            Err(ApiError::mistakes(mistakes))
        }
    }

    /// Hides what belongs to the system unless the selector speaks of it, as Baetyl v2 does.
    pub(super) fn without_system(self) -> Self {
        if self.selector.contains(label::CLOUD_SYSTEM) {
            return self;
        }
        self.and(&format!("!{}", label::CLOUD_SYSTEM))
    }

    /// Adds a requirement of our own to the selector.
    pub(super) fn and(mut self, requirement: &str) -> Self {
        if !self.selector.is_empty() {
            self.selector.push(',');
        }
        self.selector.push_str(requirement);
        // Ours are written in this program; a test parses each.
        self.parsed = self.selector.parse().unwrap_or_default();
        self
    }

    /// Whether a thing of this name and these labels is asked for.
    pub(super) fn matches(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        self.parsed.matches(labels) && is_like(name, &self.name)
    }

    /// Whether `nodeSelector` means a machine with these labels.
    pub(super) fn means_host(&self, labels: &BTreeMap<String, String>) -> bool {
        self.hosts.matches(labels)
    }

    /// The page that is asked for, with the total.
    pub(super) fn page<T>(self, items: Vec<T>) -> ListView<T> {
        let total = items.len();
        let items = if self.page_size == 0 {
            items
        } else {
            let size = usize::try_from(self.page_size).unwrap_or(usize::MAX);
            let before = usize::try_from(self.page_no.max(1) - 1)
                .unwrap_or(usize::MAX)
                .saturating_mul(size);
            items.into_iter().skip(before).take(size).collect()
        };
        ListView {
            total,
            options: self,
            items,
        }
    }
}

impl<T> ListView<T> {
    /// The same list with other items.
    pub(super) fn with_items<U>(self, items: Vec<U>) -> ListView<U> {
        ListView {
            total: self.total,
            options: self.options,
            items,
        }
    }
}

fn number(field: &str, value: &str, mistakes: &mut Vec<Mistake>) -> u64 {
    // Baetyl v2 takes negative numbers as "not given".
    match value.parse::<i64>() {
        Ok(number) => u64::try_from(number).unwrap_or(0),
        Err(_) => {
            mistakes.push(Mistake::new(field, format!("\"{value}\" is not a number")));
            0
        }
    }
}

/// SQL's LIKE: a pattern without `%` may stand anywhere in the name, `%` stands for any text, letters in any case.
fn is_like(name: &str, pattern: &str) -> bool {
    let (name, pattern) = (name.to_lowercase(), pattern.to_lowercase());
    if !pattern.contains('%') {
        return name.contains(&pattern);
    }
    let mut parts = pattern.split('%');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else {
        return false;
    };
    let parts: Vec<_> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// Keys and values of a query, decoded.
pub(super) fn pairs(query: &str) -> impl Iterator<Item = (String, String)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        })
}

/// The last value of a key in a query.
pub(super) fn last_value(query: &str, key: &str) -> Option<String> {
    pairs(query)
        .filter(|(name, _)| name == key)
        .last()
        .map(|(_, value)| value)
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let hex = after
            .get(..2)
            .and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match (byte, hex) {
            (b'%', Some(decoded)) => {
                bytes.push(decoded);
                rest = &after[2..];
            }
            (b'+', _) => bytes.push(b' '),
            _ => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_as_sql_like_finds_them() {
        for (name, pattern, found) in [
            ("n10", "", true),
            ("n10", "n1", true),
            ("an10", "N1", true),
            ("n20", "n1", false),
            ("n10", "n1%", true),
            ("an10", "n1%", false),
            ("n10", "%0", true),
            ("n10", "n%0", true),
            ("n10", "%1%", true),
            ("n10", "n%2%0", false),
        ] {
            assert_eq!(is_like(name, pattern), found, "{name} {pattern}");
        }
    }

    #[test]
    fn a_page_beyond_the_end_is_empty_and_keeps_the_total() {
        let options = ListOptions::parse("pageNo=99&pageSize=2").unwrap();
        let list = options.page(vec![1, 2, 3]);
        assert_eq!((list.total, list.items.len()), (3, 0));
        let options = ListOptions::parse("pageSize=2").unwrap();
        let list = options.page(vec![1, 2, 3]);
        assert_eq!(
            serde_json::to_value(&list).unwrap(),
            serde_json::json!({
                "total": 3, "pageNo": 1, "pageSize": 2, "items": [1, 2]
            })
        );
    }

    #[test]
    fn all_wrong_options_are_named_at_once() {
        let query = "pageNo=x&selector=a%3D%3D%3Db&nodeSelector=a%3D%3D%3Db&ready=bogus";
        let error = ListOptions::parse(query).unwrap_err();
        let fields: Vec<_> = error
            .mistakes
            .iter()
            .map(|mistake| mistake.field.as_str())
            .collect();
        assert_eq!(fields, ["pageNo", "selector", "nodeSelector", "ready"]);
    }

    #[test]
    fn a_page_has_at_most_a_thousand_items() {
        let list = ListOptions::parse("pageSize=1000000")
            .unwrap()
            .page(vec![(); 1001]);
        assert_eq!((list.total, list.items.len()), (1001, 1000));
    }

    #[test]
    fn what_belongs_to_the_system_is_hidden_unless_it_is_asked_for() {
        let hidden = ListOptions::parse("selector=l%3D1")
            .unwrap()
            .without_system();
        assert_eq!(hidden.selector, "l=1,!baetyl-cloud-system");
        let labels = |system: bool| {
            let mut labels = BTreeMap::from([("l".to_owned(), "1".to_owned())]);
            if system {
                labels.insert(label::CLOUD_SYSTEM.to_owned(), "true".to_owned());
            }
            labels
        };
        assert!(hidden.matches("x", &labels(false)));
        assert!(!hidden.matches("x", &labels(true)));
        let asked = ListOptions::parse("selector=baetyl-cloud-system")
            .unwrap()
            .without_system();
        assert!(asked.matches("x", &labels(true)));
    }
}
