//! What a run by hand may reach: the flags stand in for the operator's settings, so that an author needs nothing else.

use super::super::Failed;
use crate::config::{PluginRule, Settings};
use crate::registry::CapabilityWishes;
use agentry_outbound::Secret;
use agentry_outbound::llm::{ModelSettings, ProviderKind, ProviderSettings};
use agentry_outbound::tools::{ServerSettings, Transport};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// The operator's half of the grants, for this run alone. What plugin.toml asks for is granted as far as it stands here or in
/// the settings; a flag wins over the settings for its capability.
#[derive(clap::Args, Default)]
pub struct Local {
    /// Requests that it may make, such as "GET https://api.example.com"; may be repeated.
    #[arg(long, value_name = "REQUESTS")]
    allow_http: Vec<String>,
    /// A network that is not global and may be reached all the same, such as 127.0.0.1:8080; may be repeated.
    #[arg(long, value_name = "NETWORK")]
    allow_private: Vec<String>,
    /// A server for every model that it asks for: openai, openai-responses, anthropic or gemini, and its address.
    #[arg(long, value_name = "KIND=URL")]
    llm: Option<String>,
    /// The variable of the environment that holds its key.
    #[arg(long, value_name = "VARIABLE", requires = "llm")]
    llm_key: Option<String>,
    /// The server's name for the model; otherwise the name that the plugin asks for.
    #[arg(long, value_name = "MODEL", requires = "llm")]
    model: Option<String>,
    /// A Model Context Protocol server: a command with its arguments, or an address; may be repeated.
    #[arg(long = "tool", value_name = "NAME=COMMAND")]
    tools: Vec<String>,
    /// A value that it reads through wasi:config; may be repeated.
    #[arg(long = "var", value_name = "KEY=VALUE")]
    vars: Vec<String>,
    /// A folder that it may read, as /NAME; may be repeated.
    #[arg(long = "folder", value_name = "NAME=PATH")]
    folders: Vec<String>,
    /// The file of its memories and buckets; otherwise they are gone with the run.
    #[arg(long, value_name = "FILE")]
    pub memory: Option<PathBuf>,
}

impl Local {
    /// Puts the flags into the settings. `models` are the names that the plugin asks for.
    pub fn apply(&self, settings: &mut Settings, models: &[String]) -> Result<(), Failed> {
        if !self.allow_http.is_empty() {
            grant(settings, "http", json!(self.allow_http));
        }
        for text in &self.allow_private {
            let network = crate::config::private_network(text);
            let wrong =
                || Failed::usage(format!("--allow-private takes a network such as 127.0.0.1:8080, not {text:?}"));
            settings.outside.http.private.push(network.ok_or_else(wrong)?);
        }
        self.language_model(settings, models)?;
        let mut servers = BTreeMap::new();
        for (name, command) in pairs("--tool", &self.tools)? {
            settings.outside.tools.insert(name.clone(), server(&command)?);
            servers.insert(name, json!(["*"]));
        }
        if !servers.is_empty() {
            grant(settings, "tools", json!(servers));
        }
        for (key, value) in pairs("--var", &self.vars)? {
            settings.outside.config.insert(key, value);
            grant(settings, "config", json!(["*"]));
        }
        for (name, path) in pairs("--folder", &self.folders)? {
            let path = std::path::absolute(&path).map_err(|e| Failed::usage(format!("--folder {name}={path}: {e}")))?;
            if !path.is_dir() {
                return Err(Failed::usage(format!("--folder {name}: {} is not a folder", path.display())));
            }
            settings.outside.folders.insert(name, path);
            grant(settings, "folders", json!(["*"]));
        }
        // They are in the author's own file, or gone with the run.
        grant(settings, "memory", json!(["*"]));
        grant(settings, "keyvalue", json!(["*"]));
        Ok(())
    }

    /// The flags that stand for what a plugin asks for and none of them gave. For an author whose plugin did not open: the
    /// error itself speaks to operators, of settings.
    pub fn hint(&self, wishes: &CapabilityWishes) -> String {
        let flags = [
            (!wishes.http.is_empty() && self.allow_http.is_empty(), "--allow-http REQUESTS"),
            (!wishes.llm.is_empty() && self.llm.is_none(), "--llm KIND=URL"),
            (!wishes.tools.is_empty() && self.tools.is_empty(), "--tool NAME=COMMAND"),
            (!wishes.config.is_empty() && self.vars.is_empty(), "--var KEY=VALUE"),
            (!wishes.folders.is_empty() && self.folders.is_empty(), "--folder NAME=PATH"),
        ];
        let missing: Vec<_> = flags.iter().filter(|(missing, _)| *missing).map(|(_, flag)| *flag).collect();
        match missing.as_slice() {
            [] => String::new(),
            missing => format!("\nfor this run alone, what it asks for is allowed with {}", missing.join(", ")),
        }
    }

    /// One server for whatever name the plugin asks for.
    fn language_model(&self, settings: &mut Settings, models: &[String]) -> Result<(), Failed> {
        let Some(text) = &self.llm else { return Ok(()) };
        let wrong = |what: &str| {
            Failed::usage(format!("--llm takes KIND=URL, such as openai=http://127.0.0.1:8080/v1: {what}"))
        };
        let (kind, url) = text.split_once('=').ok_or_else(|| wrong("there is no ="))?;
        let kind = match kind {
            "openai" => ProviderKind::OpenAi,
            "openai-responses" => ProviderKind::OpenAiResponses,
            "anthropic" => ProviderKind::Anthropic,
            "gemini" => ProviderKind::Gemini,
            _ => return Err(wrong("the kind is openai, openai-responses, anthropic or gemini")),
        };
        let url = url.parse().map_err(|error: url::ParseError| wrong(&error.to_string()))?;
        let key = match &self.llm_key {
            None => None,
            Some(variable) => match std::env::var(variable) {
                Ok(key) if !key.is_empty() => Some(Secret::new(key)),
                _ => return Err(Failed::usage(format!("--llm-key {variable}: there is no such variable"))),
            },
        };
        let provider = ProviderSettings {
            kind,
            url,
            key,
            headers: BTreeMap::new(),
            proxy: None,
            ca_file: None,
            connect: Duration::from_secs(10),
            first_byte: Duration::from_secs(120),
            idle: Duration::from_secs(60),
            total: Duration::from_secs(300),
            retries: 2,
            concurrency: 64,
        };
        settings.outside.llm.providers.insert(PROVIDER.into(), provider);
        for name in models {
            // A plugin that asks for any will most likely use this one.
            let name = if name == "*" { "default" } else { name };
            let model = ModelSettings {
                provider: PROVIDER.into(),
                model: self.model.clone().unwrap_or_else(|| name.to_owned()),
                max_output_tokens: 4_096,
            };
            settings.outside.llm.models.insert(name.to_owned(), model);
        }
        grant(settings, "llm", json!(["*"]));
        Ok(())
    }
}

/// The provider's name for a run by hand.
const PROVIDER: &str = "run";

/// The policy for every plugin, whatever the settings say of this capability.
fn grant(settings: &mut Settings, capability: &str, value: Value) {
    for rule in &mut settings.plugins.rules {
        rule.capabilities.remove(capability);
    }
    let rules = &mut settings.plugins.rules;
    let at = rules.iter().position(|rule| rule.pattern == "*").unwrap_or_else(|| {
        rules.push(PluginRule::of("*"));
        rules.len() - 1
    });
    rules[at].capabilities.insert(capability.to_owned(), value);
}

fn pairs(flag: &str, texts: &[String]) -> Result<Vec<(String, String)>, Failed> {
    let pair = |text: &String| match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(Failed::usage(format!("{flag} takes NAME=VALUE, not {text:?}"))),
    };
    texts.iter().map(pair).collect()
}

/// An address, or a command whose words are separated by spaces; no shell reads it.
fn server(text: &str) -> Result<ServerSettings, Failed> {
    let transport = match url::Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => {
            Transport::Http { url, headers: BTreeMap::new(), proxy: None, ca_file: None }
        }
        _ => {
            let mut words = text.split_whitespace().map(str::to_owned);
            let command =
                words.next().ok_or_else(|| Failed::usage("--tool takes NAME=COMMAND, and the command is empty"))?;
            Transport::Stdio { command, args: words.collect(), env: path(), dir: None, user: None }
        }
    };
    Ok(ServerSettings {
        transport,
        start: Duration::from_secs(30),
        call: Duration::from_secs(60),
        output_bytes: 1 << 20,
    })
}

/// An author's own shell found the command; what it starts is found the same way.
fn path() -> BTreeMap<String, Secret> {
    std::env::var("PATH").map(|path| BTreeMap::from([("PATH".to_owned(), Secret::new(path))])).unwrap_or_default()
}
