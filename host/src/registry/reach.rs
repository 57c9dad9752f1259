//! What is behind the grants: whom a plugin's runs reach, made of what the operator configured and what the plugin was granted.

use super::limits::LimitSettings;
use super::policy::{self, fits};
use super::stores::{BudgetLimits, TaskStores, spending_name};
use super::{GrantInfo, Job};
use crate::db::{Db, StoreLimits};
use agentry_defence::Defence;
use agentry_outbound::egress::{Client, Egress, HttpGrant, SecretHeader};
use agentry_outbound::llm::Llm;
use agentry_outbound::tools::{Session, ToolGrant, Tools};
use agentry_sandbox::{Access, Spending};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

/// What the operator configured. Cheap to clone.
#[derive(Clone, Default)]
pub struct Reach {
    /// The way out over HTTP.
    pub egress: Option<Egress>,
    /// Headers that are added, each for the plugins of a pattern.
    pub secrets: Arc<Vec<(String, SecretHeader)>>,
    /// Language models.
    pub llm: Option<Llm>,
    /// Tool servers.
    pub tools: Option<Tools>,
    /// `[config]`.
    pub config: Arc<BTreeMap<String, String>>,
    /// `[folders]`.
    pub folders: Arc<BTreeMap<String, PathBuf>>,
    /// Where buckets, memories and budgets are; `None`: there are none.
    pub db: Option<Arc<dyn Db>>,
}

impl std::fmt::Debug for Reach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reach").field("folders", &self.folders).finish_non_exhaustive()
    }
}

/// The same for one build of one plugin: what its grants leave of it.
#[derive(Clone, Default)]
pub(super) struct Granted {
    access: Access,
    stores: Option<Arc<dyn Db>>,
    plugin: Arc<str>,
    budgets: BudgetLimits,
}

/// A grant of something that the operator did not configure, with the remedy.
pub(super) type Missing = String;

impl Reach {
    /// What a plugin's grants come to. `defaults` is what its own `[config]` says.
    pub(super) fn granted(
        &self,
        plugin: &str,
        grants: &BTreeMap<String, GrantInfo>,
        defaults: &BTreeMap<String, String>,
        budgets: BudgetLimits,
    ) -> Result<Granted, Missing> {
        let of = |capability: &str| grants.get(capability).map_or(&[][..], |grant| &grant.granted);
        let names = |capability: &str| of(capability).iter().cloned().collect::<BTreeSet<_>>();
        Ok(Granted {
            access: Access {
                http: self.http(plugin, grants.get("http")),
                models: self.models(of("llm"))?,
                llm: self.llm.clone(),
                tools: self.session(plugin, of("tools"))?,
                bucket_names: names("keyvalue"),
                memory_names: names("memory"),
                config: Arc::new(self.config(of("config"), defaults)),
                folders: self.folders(of("folders"))?,
                ..Access::default()
            },
            stores: self.db.clone(),
            plugin: plugin.into(),
            budgets,
        })
    }

    fn http(&self, plugin: &str, grant: Option<&GrantInfo>) -> Option<Client> {
        let (egress, grant) = (self.egress.as_ref()?, grant.filter(|grant| !grant.granted.is_empty())?);
        let secrets =
            self.secrets.iter().filter(|(pattern, _)| fits(pattern, plugin)).map(|(_, s)| s.clone()).collect();
        Some(egress.client(HttpGrant { requests: policy::requests(&grant.wish, &grant.policy), secrets }))
    }

    fn models(&self, granted: &[String]) -> Result<BTreeSet<String>, Missing> {
        let known = self.llm.as_ref().map(Llm::models).unwrap_or_default();
        let unknown = granted.iter().find(|name| *name != "*" && !known.contains(name));
        match unknown {
            Some(name) => Err(configured("llm", name, &format!("[llm.models.{name}]"), &known)),
            None => Ok(granted.iter().cloned().collect()),
        }
    }

    fn session(&self, plugin: &str, granted: &[String]) -> Result<Option<Session>, Missing> {
        let mut grant = ToolGrant::new();
        for (server, tool) in granted.iter().filter_map(|both| both.split_once('.')) {
            grant.entry(server.to_owned()).or_default().push(tool.to_owned());
        }
        if grant.is_empty() {
            return Ok(None);
        }
        let known = self.tools.as_ref().map(Tools::servers).unwrap_or_default();
        if let Some(name) = grant.keys().find(|name| !known.contains(name)) {
            return Err(configured("tools", name, &format!("[tools.{name}]"), &known));
        }
        Ok(self.tools.as_ref().map(|tools| tools.session(plugin, grant)))
    }

    /// The operator's value of a granted key, or the plugin's own; a key of its own needs no grant.
    fn config(&self, granted: &[String], defaults: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let allowed =
            |key: &str| granted.iter().any(|name| name == key || name == "*") || !Defence::ConfigGrant.stands();
        let operators = self.config.iter().filter(|(key, _)| allowed(key));
        defaults.iter().chain(operators).map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    fn folders(&self, granted: &[String]) -> Result<BTreeMap<String, PathBuf>, Missing> {
        let known: Vec<String> = self.folders.keys().cloned().collect();
        if granted.iter().any(|name| name == "*") || !Defence::FolderGrant.stands() {
            return Ok((*self.folders).clone());
        }
        let folder = |name: &String| match self.folders.get(name) {
            Some(path) => Ok((name.clone(), path.clone())),
            None => Err(configured("folders", name, &format!("[folders] {name}"), &known)),
        };
        granted.iter().map(folder).collect()
    }
}

impl Granted {
    /// Whether a run may change or spend anything outside. Without the defence of a grant it may, whatever is granted.
    pub(super) fn has_effects(&self) -> bool {
        let access = &self.access;
        let grants =
            [Defence::HttpGrant, Defence::ModelGrant, Defence::ToolGrant, Defence::BucketGrant, Defence::MemoryGrant];
        access.http.is_some()
            || !access.models.is_empty()
            || access.tools.is_some()
            || !access.bucket_names.is_empty()
            || !access.memory_names.is_empty()
            || grants.iter().any(|grant| !grant.stands())
    }

    /// What one attempt may reach.
    pub(super) fn access(&self, job: &Job) -> Access {
        let mut access = self.access.clone();
        if let Some(db) = self.stores.clone().filter(|_| self.has_effects()) {
            let writer = job.fence.map(|fence| (job.id, fence));
            let (plugin, budgets) = (self.plugin.clone(), self.budgets.clone());
            let stores = Arc::new(TaskStores::new(db, plugin, writer, StoreLimits::default(), budgets));
            access.buckets = Some(stores.clone());
            access.memories = Some(stores.clone());
            access.budgets = Some(stores);
        }
        access
    }
}

/// What outlasts a run: requests and tokens of a task over all its attempts, by its plugin's limits; and what the operator
/// allows a plugin in a day.
pub(super) fn budgets(limits: &LimitSettings, per_day: &BTreeMap<String, u64>) -> BudgetLimits {
    let all = [Spending::LlmRequests, Spending::LlmTokens, Spending::HttpRequests, Spending::ToolCalls];
    let day = |spending: Spending| Some((spending, *per_day.get(&format!("{}_per_day", spending_name(spending)))?));
    BudgetLimits {
        per_task: [(Spending::LlmRequests, limits.llm_requests), (Spending::LlmTokens, limits.llm_tokens)].into(),
        per_day: all.into_iter().filter_map(day).collect(),
    }
}

fn configured(capability: &str, name: &str, setting: &str, known: &[String]) -> Missing {
    let known = if known.is_empty() { "none is".to_owned() } else { format!("configured are {}", known.join(", ")) };
    format!("capabilities.{capability} grants {name:?}, and the settings have no {setting}; {known}")
}
