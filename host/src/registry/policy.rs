//! The operator's half of every grant: `[plugins."NAME-OR-PATTERN"]`.

use super::GrantInfo;
use super::limits::LimitWishes;
use super::pins::Pins;
use super::recording::CallsPolicy;
use agentry_defence::Defence;
use agentry_outbound::pattern::{PatternError, UrlPattern};
use agentry_sandbox::Grants;
use serde::Deserialize;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// What the operator says about the plugins of one name or pattern. `None`: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PluginPolicy {
    /// Whether they run on this host; `true` unless said otherwise.
    pub enabled: Option<bool>,
    /// Most attempts at once on this host, for each plugin of the pattern by itself.
    pub concurrency: Option<u32>,
    /// What they may be granted.
    pub capabilities: CapabilityPolicy,
    /// What holds instead of `limits.default.*`.
    pub limits: LimitWishes,
    /// What they may ask for at most, beside `limits.max.*` of all plugins.
    pub max: LimitWishes,
    /// Where they may come from.
    pub pins: Pins,
    /// What they may use in a day, each for itself, all hosts together: `llm_requests_per_day`, `llm_tokens_per_day`,
    /// `http_requests_per_day`, `tool_calls_per_day`.
    pub budgets: BTreeMap<String, u64>,
    /// What is recorded of their calls, instead of `[calls]`.
    pub calls: CallsPolicy,
}

/// What may be granted; `None`: nothing is said, which allows nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CapabilityPolicy {
    /// `METHOD URL-prefix`; see [`UrlPattern`].
    pub http: Option<Vec<String>>,
    /// Names of configured models.
    pub llm: Option<Vec<String>>,
    /// Tools by server.
    pub tools: Option<BTreeMap<String, Vec<String>>>,
    /// Names of buckets.
    pub keyvalue: Option<Vec<String>>,
    /// Names of memories.
    pub memory: Option<Vec<String>>,
    /// Keys.
    pub config: Option<Vec<String>>,
    /// Names of folders.
    pub folders: Option<Vec<String>>,
}

/// What a plugin's `[capabilities]` asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CapabilityWishes {
    /// `METHOD URL-prefix`; see [`UrlPattern`].
    pub http: Vec<String>,
    /// Names of configured models.
    pub llm: Vec<String>,
    /// Tools by server.
    pub tools: BTreeMap<String, Vec<String>>,
    /// Names of buckets.
    pub keyvalue: Vec<String>,
    /// Names of memories.
    pub memory: Vec<String>,
    /// Keys.
    pub config: Vec<String>,
    /// Names of folders.
    pub folders: Vec<String>,
}

/// A pattern that can never fit, or a policy that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// No plugin's name has such characters.
    #[error(
        "plugins.{pattern:?} fits no plugin: a name has lower-case letters, digits and hyphens, and `*` stands for any of them"
    )]
    Pattern {
        /// The pattern.
        pattern: String,
    },
    /// What stands in `capabilities.http` is no pattern.
    #[error("plugins.{pattern:?}.capabilities.http: {error}")]
    Http {
        /// The pattern of names.
        pattern: String,
        /// What is wrong.
        error: PatternError,
    },
    /// `enabled = false` is how to say that.
    #[error("plugins.{pattern:?}.concurrency is 0; it must be 1 or more, or set enabled = false there")]
    NoConcurrency {
        /// The pattern.
        pattern: String,
    },
}

/// Every policy. Of several that fit a name the most specific one decides, key by key: a name without `*` first, then
/// the pattern with the most characters besides `*`, then alphabetically.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policies(Vec<(String, PluginPolicy)>);

impl Policies {
    /// From the settings, by name or pattern.
    ///
    /// # Errors
    /// A pattern that no plugin's name can fit; a concurrency of 0.
    pub fn new(policies: BTreeMap<String, PluginPolicy>) -> Result<Policies, PolicyError> {
        for (pattern, policy) in &policies {
            let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'*';
            if pattern.is_empty() || !pattern.bytes().all(fits) {
                return Err(PolicyError::Pattern { pattern: pattern.clone() });
            }
            for text in policy.capabilities.http.iter().flatten() {
                text.parse::<UrlPattern>().map_err(|error| PolicyError::Http { pattern: pattern.clone(), error })?;
            }
            if policy.concurrency == Some(0) {
                return Err(PolicyError::NoConcurrency { pattern: pattern.clone() });
            }
        }
        let mut policies: Vec<_> = policies.into_iter().collect();
        policies.sort_by_key(|(pattern, _)| {
            let stars = pattern.bytes().filter(|b| *b == b'*').count();
            (stars > 0, Reverse(pattern.len() - stars), pattern.clone())
        });
        Ok(Policies(policies))
    }

    /// What holds for one plugin.
    pub fn of(&self, name: &str) -> PluginPolicy {
        let mut merged = PluginPolicy::default();
        for (_, policy) in self.0.iter().filter(|(pattern, _)| fits(pattern, name)) {
            let PluginPolicy { enabled, concurrency, capabilities: c, limits, max, pins, budgets, calls } = policy;
            merged.enabled = merged.enabled.or(*enabled);
            merged.concurrency = merged.concurrency.or(*concurrency);
            merged.limits = merged.limits.or(limits);
            merged.max = merged.max.or(max);
            merged.pins = merged.pins.or(pins);
            merged.calls = merged.calls.or(calls);
            for (name, most) in budgets {
                merged.budgets.entry(name.clone()).or_insert(*most);
            }
            let m = &mut merged.capabilities;
            m.http = m.http.take().or_else(|| c.http.clone());
            m.llm = m.llm.take().or_else(|| c.llm.clone());
            m.tools = m.tools.take().or_else(|| c.tools.clone());
            m.memory = m.memory.take().or_else(|| c.memory.clone());
            m.keyvalue = m.keyvalue.take().or_else(|| c.keyvalue.clone());
            m.config = m.config.take().or_else(|| c.config.clone());
            m.folders = m.folders.take().or_else(|| c.folders.clone());
        }
        merged
    }
}

impl PluginPolicy {
    /// Whether they run on this host.
    pub fn is_enabled(&self) -> bool {
        self.enabled.unwrap_or(true)
    }

    /// What a plugin gets: what both its wishes and the policy allow. Neither can widen the other.
    pub fn grants(&self, wishes: &CapabilityWishes) -> BTreeMap<String, GrantInfo> {
        let c = &self.capabilities;
        let flat = |tools: &BTreeMap<String, Vec<String>>| -> Vec<String> {
            tools.iter().flat_map(|(server, tools)| tools.iter().map(move |tool| format!("{server}.{tool}"))).collect()
        };
        let tools = flat(&wishes.tools);
        let allowed_tools = c.tools.as_ref().map(flat);
        let rows: [Row<'_>; 7] = [
            ("http", &wishes.http, &c.http, |wish, policy| meeting(wish, policy).map(|both| both.to_string())),
            ("llm", &wishes.llm, &c.llm, names),
            ("tools", &tools, &allowed_tools, tool_names),
            ("keyvalue", &wishes.keyvalue, &c.keyvalue, names),
            ("memory", &wishes.memory, &c.memory, names),
            ("config", &wishes.config, &c.config, names),
            ("folders", &wishes.folders, &c.folders, names),
        ];
        rows.into_iter()
            .filter(|(_, wish, policy, _)| !wish.is_empty() || policy.is_some())
            .map(|(capability, wish, policy, meet)| {
                let policy = policy.clone().unwrap_or_default();
                let mut granted: Vec<String> = Vec::new();
                for both in wish.iter().flat_map(|w| policy.iter().filter_map(move |p| meet(w, p))) {
                    if !granted.contains(&both) {
                        granted.push(both);
                    }
                }
                (capability.to_owned(), GrantInfo { wish: wish.clone(), policy, granted })
            })
            .collect()
    }
}

/// A capability, its wishes, what the policy says of it, and how the two meet.
type Row<'a> = (&'static str, &'a Vec<String>, &'a Option<Vec<String>>, Meet);

/// What a wish and a line of the policy allow together.
type Meet = fn(&str, &str) -> Option<String>;

/// The same name; `*` on one side leaves it to the other.
fn names(wish: &str, policy: &str) -> Option<String> {
    match (wish, policy) {
        (wish, _) if !Defence::Policy.stands() => Some(wish.to_owned()),
        (wish, "*") => Some(wish.to_owned()),
        ("*", policy) => Some(policy.to_owned()),
        (wish, policy) => (wish == policy).then(|| wish.to_owned()),
    }
}

/// `server.tool`, the tool by [`names`].
fn tool_names(wish: &str, policy: &str) -> Option<String> {
    let ((server, wish), (other, policy)) = (wish.split_once('.')?, policy.split_once('.')?);
    let tool = names(wish, policy).filter(|_| server == other)?;
    Some(format!("{server}.{tool}"))
}

/// What both patterns allow. Both have been checked where they were read. An address that the operator wrote is meant.
fn meeting(wish: &str, policy: &str) -> Option<UrlPattern> {
    let (wish, policy): (UrlPattern, UrlPattern) = (wish.parse().ok()?, policy.parse().ok()?);
    wish.meet(&policy.by_operator())
}

/// Every request that both sides allow.
pub(super) fn requests(wish: &[String], policy: &[String]) -> Vec<UrlPattern> {
    wish.iter().flat_map(|wish| policy.iter().filter_map(|policy| meeting(wish, policy))).collect()
}

/// The capabilities of which anything is granted.
pub(super) fn to_sandbox(grants: &BTreeMap<String, GrantInfo>) -> Grants {
    let granted = grants.iter().filter(|(_, grant)| !grant.granted.is_empty());
    Grants { capabilities: granted.map(|(capability, _)| capability.clone()).collect() }
}

/// Whether a name fits a pattern in which `*` stands for any characters, none included.
pub(super) fn fits(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(head) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return name.ends_with(part);
        }
        // The leftmost place leaves the most for the parts that follow.
        let Some(at) = name.find(part) else { return false };
        name = &name[at + part.len()..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policies(text: &str) -> Result<Policies, PolicyError> {
        Policies::new(toml::from_str(text).unwrap())
    }

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, name, expected) in [
            ("*", "a", true),
            ("fetch-*", "fetch-web", true),
            ("fetch-*", "fetch", false),
            ("*-web", "fetch-web", true),
            ("f*-*b", "fetch-web", true),
            ("f*x*b", "fetch-web", false),
            ("ab*ba", "aba", false),
            ("*a*a", "aa", true),
            ("fetch", "fetch", true),
            ("fetch", "fetch-web", false),
            ("fetch-*", "fetch-", true),
            ("fetch-*", "prefetch-x", false),
            ("a*b*c", "abc", true),
            ("a*b*c", "acb", false),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn the_most_specific_policy_decides_key_by_key() {
        let policies = policies(
            r#"
            ["*"]
            enabled = false
            concurrency = 1
            limits.memory_mib = 64
            calls.bodies = ["http"]
            calls.body_kib = 4
            ["fetch-*"]
            enabled = true
            concurrency = 8
            capabilities.http = ["GET https://a.example"]
            [fetch-web]
            concurrency = 2
            calls.bodies = ["llm"]
            "#,
        )
        .unwrap();
        let policy = policies.of("fetch-web");
        assert!(policy.is_enabled());
        assert_eq!(policy.concurrency, Some(2));
        assert_eq!(policy.limits.memory_mib, Some(64));
        assert_eq!(policy.capabilities.http.as_deref(), Some(&["GET https://a.example".to_owned()][..]));
        assert_eq!((policy.calls.bodies(), policy.calls.body_kib), (&["llm".to_owned()][..], Some(4)));
        assert!(!policies.of("word-count").is_enabled());
    }

    #[test]
    fn nothing_is_granted_that_does_not_stand_on_both_sides() {
        let policies = policies(
            r#"
            ["*"]
            capabilities.http = ["GET https://a.example", "GET https://b.example"]
            capabilities.tools = { search = ["web_search"] }
            "#,
        )
        .unwrap();
        let wishes = CapabilityWishes {
            http: vec!["GET https://a.example".into(), "GET https://c.example".into()],
            llm: vec!["default".into()],
            tools: BTreeMap::from([("search".into(), vec!["web_search".into(), "delete".into()])]),
            ..CapabilityWishes::default()
        };
        let grants = policies.of("a").grants(&wishes);
        assert_eq!(grants["http"].granted, ["GET https://a.example"]);
        assert_eq!(grants["tools"].granted, ["search.web_search"]);
        assert!(grants["llm"].granted.is_empty());
        let capabilities: Vec<_> = to_sandbox(&grants).capabilities.into_iter().collect();
        assert_eq!(capabilities, ["http", "tools"]);
    }

    #[test]
    fn a_policy_that_fits_nothing_is_an_error() {
        assert_eq!(
            policies("[\"Fetch_*\"]").unwrap_err().to_string(),
            "plugins.\"Fetch_*\" fits no plugin: a name has lower-case letters, digits and hyphens, and `*` stands for \
             any of them"
        );
        assert_eq!(
            policies("[a]\nconcurrency = 0").unwrap_err().to_string(),
            "plugins.\"a\".concurrency is 0; it must be 1 or more, or set enabled = false there"
        );
    }
}
