//! What plugins may reach outside, once it is granted: `[http]`, `[llm.…]`, `[tools.…]`, `[config]`, `[folders]`.

use super::expand::Variables;
use super::file::{Section, Table, TableValue};
use super::layers::Layers;
use super::origin::{Origin, Problem};
use super::reader::{Reader, absolute};
use super::{Limits, plugins};
use agentry_outbound::egress::{EgressSettings, PrivateNetwork, SecretHeader};
use agentry_outbound::llm::{LlmSettings, ModelSettings, ProviderKind, ProviderSettings};
use agentry_outbound::tools::{ServerSettings, Transport};
use agentry_outbound::{Proxy, Secret};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// What is behind the grants. Addresses and values may hold secrets, so that none of it is ever printed.
#[derive(Clone)]
pub struct Outside {
    /// `[http]`.
    pub http: EgressSettings,
    /// `[http.secrets.NAME]`.
    pub secrets: Vec<PluginSecret>,
    /// `[llm.providers.NAME]`, `[llm.models.NAME]`.
    pub llm: LlmSettings,
    /// `[tools.NAME]`.
    pub tools: BTreeMap<String, ServerSettings>,
    /// `[config]`.
    pub config: BTreeMap<String, String>,
    /// `[folders]`, absolute.
    pub folders: BTreeMap<String, PathBuf>,
}

impl std::fmt::Debug for Outside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outside").finish_non_exhaustive()
    }
}

/// A header for the requests of some plugins.
#[derive(Clone, Debug)]
pub struct PluginSecret {
    /// A plugin's name, in which `*` stands for any characters.
    pub plugins: String,
    /// The header.
    pub header: SecretHeader,
}

/// One exchange over HTTP, unless the operator says otherwise.
const TOTAL: Duration = Duration::from_secs(300);

pub(super) fn read(read: &mut Reader, layers: &Layers, limits: &Limits) -> Result<Outside, Problem> {
    let longest = Duration::from_secs(limits.max.timeout_seconds.into());
    let http = http(read, longest)?;
    let tables = |section| layers.tables_of(section).into_iter().map(|table| Entry { table, vars: &layers.variables });
    let named = |section| tables(section).map(|entry| (entry.table.name.clone(), entry));
    let models: BTreeMap<_, _> =
        named(Section::LlmModels).map(|(name, e)| Ok((name, model(&e)?))).collect::<Result<_, _>>()?;
    let providers =
        named(Section::LlmProviders).map(|(name, e)| Ok((name, provider(&e, longest)?))).collect::<Result<_, _>>()?;
    Ok(Outside {
        http,
        secrets: tables(Section::HttpSecrets).map(|entry| secret(&entry)).collect::<Result<_, _>>()?,
        llm: LlmSettings { providers, models },
        tools: named(Section::Tools).map(|(name, e)| Ok((name, server(&e, longest)?))).collect::<Result<_, _>>()?,
        config: tables(Section::Config).next().map_or(Ok(BTreeMap::new()), |entry| values(&entry))?,
        folders: tables(Section::Folders).next().map_or(Ok(BTreeMap::new()), |entry| folders(&entry))?,
    })
}

fn http(read: &mut Reader, longest: Duration) -> Result<EgressSettings, Problem> {
    let connect = read.seconds("http.connect_seconds", 1..=3_600)?;
    let first_byte = read.seconds("http.first_byte_seconds", 1..=604_800)?;
    let idle = read.seconds("http.idle_seconds", 1..=604_800)?;
    let total = read.number_or_auto("http.total_seconds", 1..=604_800, TOTAL.min(longest).as_secs())?;
    if Duration::from_secs(total) > longest {
        let what = format!(
            "{total} is more than limits.max.timeout_seconds ({}), so that no task could wait for it; lower it, or raise that",
            longest.as_secs()
        );
        return Err(Problem::invalid("http.total_seconds", &read.origin("http.total_seconds"), what));
    }
    let nameservers = parsed(read, "http.nameservers", "an address such as 10.0.0.2:53", |text| {
        let bare = |ip: IpAddr| SocketAddr::new(ip, 53);
        text.parse().ok().or_else(|| text.parse().ok().map(bare))
    })?;
    let private = parsed(read, "http.private", "a network such as 10.1.0.0/16 or 127.0.0.1:8080", private_network)?;
    let proxy = read.secret("http.proxy", &["http", "https"], "http://user:password@proxy.example:3128")?;
    let proxy = proxy.map(|url| url.expose().parse::<Proxy>()).transpose();
    let proxy = proxy.map_err(|what| Problem::invalid("http.proxy", &read.origin("http.proxy"), what))?;
    let ca_file = read.path("http.ca_file")?;
    let total = Duration::from_secs(total);
    // What would never be over by itself before the whole is, is over with it.
    let within = |part: Duration| part.min(total);
    Ok(EgressSettings {
        nameservers,
        private,
        proxy,
        ca_file,
        connect: within(connect),
        first_byte: within(first_byte),
        idle: within(idle),
        total,
    })
}

fn parsed<T>(read: &mut Reader, key: &str, takes: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, Problem> {
    let texts = read.list_or_none(key)?;
    let one = |text: &String| {
        let what = || Problem::invalid(key, &read.origin(key), format_args!("{text:?} is not {takes}"));
        parse(text).ok_or_else(what)
    };
    texts.iter().map(one).collect()
}

/// `10.0.0.0/8`, `10.0.0.1`, `10.0.0.1:80`, `[::1]:80`.
pub fn private_network(text: &str) -> Option<PrivateNetwork> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(PrivateNetwork { network: address.ip().into(), port: Some(address.port()) });
    }
    let network = text.parse::<ipnet::IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(ipnet::IpNet::from))?;
    Some(PrivateNetwork { network: network.trunc(), port: None })
}

fn provider(entry: &Entry<'_>, longest: Duration) -> Result<ProviderSettings, Problem> {
    entry.table.only(&[
        "kind",
        "url",
        "key",
        "headers",
        "proxy",
        "ca_file",
        "connect_seconds",
        "first_byte_seconds",
        "idle_seconds",
        "total_seconds",
        "retries",
        "concurrency",
    ])?;
    let (kind, default) =
        match entry.required("kind", "\"openai\", \"openai-responses\", \"anthropic\" or \"gemini\"")?.as_str() {
            "openai" => (ProviderKind::OpenAi, "https://api.openai.com/v1"),
            "openai-responses" => (ProviderKind::OpenAiResponses, "https://api.openai.com/v1"),
            "anthropic" => (ProviderKind::Anthropic, "https://api.anthropic.com/v1"),
            "gemini" => (ProviderKind::Gemini, "https://generativelanguage.googleapis.com/v1beta"),
            other => {
                return Err(entry.wrong(
                    "kind",
                    format_args!("{other:?} is not allowed; it takes openai, openai-responses, anthropic or gemini"),
                ));
            }
        };
    let total = entry.seconds("total_seconds", TOTAL.min(longest), longest)?;
    Ok(ProviderSettings {
        kind,
        url: entry.url("url", Some(default))?,
        key: entry.secret("key")?,
        headers: entry.secrets("headers")?,
        proxy: entry.proxy()?,
        ca_file: entry.path("ca_file")?,
        connect: entry.seconds("connect_seconds", Duration::from_secs(10).min(total), total)?,
        first_byte: entry.seconds("first_byte_seconds", Duration::from_secs(120).min(total), total)?,
        idle: entry.seconds("idle_seconds", Duration::from_secs(60).min(total), total)?,
        total,
        retries: entry.number("retries", 2, 0..=10)?,
        concurrency: entry.number("concurrency", 64, 1..=10_000)?,
    })
}

fn model(entry: &Entry<'_>) -> Result<ModelSettings, Problem> {
    // Prices are read by `super::prices`.
    entry.table.only(&["provider", "model", "max_output_tokens", "price_*"])?;
    Ok(ModelSettings {
        provider: entry.required("provider", "a name of [llm.providers.NAME]")?,
        model: entry.required("model", "the provider's name for a model")?,
        max_output_tokens: entry.number("max_output_tokens", 4_096, 1..=10_000_000)?,
    })
}

fn server(entry: &Entry<'_>, longest: Duration) -> Result<ServerSettings, Problem> {
    let times = ["start_seconds", "call_seconds", "output_kib"];
    let known = |keys: &[&'static str]| entry.table.only(&[keys, &times].concat());
    let transport = match (entry.has("command"), entry.has("url")) {
        (true, false) => {
            known(&["command", "env", "dir", "user"])?;
            let mut words = entry.texts("command")?.into_iter();
            let Some(command) = words.next() else {
                return Err(entry.wrong("command", "it is empty; it takes a program and its arguments"));
            };
            let (env, dir, user) = (entry.secrets("env")?, entry.path("dir")?, entry.text("user")?);
            Transport::Stdio { command, args: words.collect(), env, dir, user }
        }
        (false, true) => {
            known(&["url", "headers", "proxy", "ca_file"])?;
            let (url, headers) = (entry.url("url", None)?, entry.secrets("headers")?);
            Transport::Http { url, headers, proxy: entry.proxy()?, ca_file: entry.path("ca_file")? }
        }
        (true, true) => return Err(entry.wrong("command", "it and url are both set; set one")),
        (false, false) => {
            let what = format!("{} needs command (a child process) or url (streamable HTTP)", entry.table.title());
            return Err(Problem(format!("{}: {what}", entry.table.origin)));
        }
    };
    Ok(ServerSettings {
        transport,
        start: entry.seconds("start_seconds", Duration::from_secs(30).min(longest), longest)?,
        call: entry.seconds("call_seconds", Duration::from_secs(60).min(longest), longest)?,
        output_bytes: u64::from(entry.number("output_kib", 1_024, 1..=65_536)?) * 1_024,
    })
}

fn secret(entry: &Entry<'_>) -> Result<PluginSecret, Problem> {
    entry.table.only(&["requests", "header", "value", "plugins"])?;
    let plugins = entry.text("plugins")?.unwrap_or_else(|| "*".into());
    if !plugins::is_pattern(&plugins) {
        return Err(entry.wrong("plugins", format_args!("{plugins:?} fits no plugin's name")));
    }
    let Some(value) = entry.secret("value")? else {
        return Err(entry.wrong("value", "it is missing; write it like \"Bearer ${API_TOKEN}\""));
    };
    let header = SecretHeader {
        requests: entry.parse("requests", "requests such as \"GET,POST https://api.example.com\"")?,
        name: entry.parse("header", "a header's name such as \"Authorization\"")?,
        value,
    };
    Ok(PluginSecret { plugins, header })
}

fn values(entry: &Entry<'_>) -> Result<BTreeMap<String, String>, Problem> {
    let expanded = |key: &String| {
        let text = entry.text(key)?.unwrap_or_default();
        let value = entry.vars.expand(&text, entry.base()).map_err(|what| entry.wrong(key, what))?;
        Ok((key.clone(), value.expose().to_owned()))
    };
    entry.table.values.keys().map(expanded).collect()
}

fn folders(entry: &Entry<'_>) -> Result<BTreeMap<String, PathBuf>, Problem> {
    let folder = |key: &String| {
        if !plugins::is_word(key) {
            return Err(entry.wrong(key, "a folder's name takes lower-case letters, digits, - and _"));
        }
        let path = entry.path(key)?.unwrap_or_default();
        if !path.is_dir() {
            return Err(entry.wrong(key, format_args!("{} is not a folder", path.display())));
        }
        Ok((key.clone(), path))
    };
    entry.table.values.keys().map(folder).collect()
}

/// One table, read by what its keys take.
struct Entry<'a> {
    table: &'a Table,
    vars: &'a Variables,
}

impl Entry<'_> {
    fn has(&self, key: &str) -> bool {
        self.table.values.contains_key(key)
    }

    fn origin(&self, key: &str) -> &Origin {
        self.table.values.get(key).map_or(&self.table.origin, |(_, origin)| origin)
    }

    /// Where relative paths start.
    fn base(&self) -> &Path {
        self.table.origin.file().and_then(|file| file.parent()).unwrap_or(Path::new("/"))
    }

    fn wrong(&self, key: &str, what: impl Display) -> Problem {
        self.table.invalid(key, self.origin(key), what)
    }

    /// Text; the error never repeats what was found, which may be a secret.
    fn text(&self, key: &str) -> Result<Option<String>, Problem> {
        match self.table.values.get(key) {
            None => Ok(None),
            Some((TableValue(Value::String(text)), _)) => Ok(Some(text.trim().to_owned()).filter(|t| !t.is_empty())),
            Some(_) => Err(self.wrong(key, "it takes text in quotes")),
        }
    }

    fn required(&self, key: &str, takes: &str) -> Result<String, Problem> {
        self.text(key)?.ok_or_else(|| self.wrong(key, format_args!("it is missing; it takes {takes}")))
    }

    fn parse<T: FromStr>(&self, key: &str, takes: &str) -> Result<T, Problem>
    where
        T::Err: Display,
    {
        self.required(key, takes)?.parse().map_err(|error| self.wrong(key, format_args!("{error}; it takes {takes}")))
    }

    fn texts(&self, key: &str) -> Result<Vec<String>, Problem> {
        let Some((TableValue(value), _)) = self.table.values.get(key) else { return Ok(Vec::new()) };
        let texts = value.as_array().map(|items| items.iter().map(|i| i.as_str().map(str::to_owned)).collect());
        texts.flatten().ok_or_else(|| self.wrong(key, "it takes a list of texts"))
    }

    fn url(&self, key: &str, default: Option<&str>) -> Result<url::Url, Problem> {
        let text = match (self.text(key)?, default) {
            (Some(text), _) => text,
            (None, Some(default)) => default.to_owned(),
            (None, None) => return Err(self.wrong(key, "it is missing")),
        };
        // A token may stand in an address; it is not repeated either.
        let expanded = self.vars.expand(&text, self.base()).map_err(|what| self.wrong(key, what))?;
        url::Url::parse(expanded.expose()).map_err(|error| self.wrong(key, format_args!("it is no URL ({error})")))
    }

    fn path(&self, key: &str) -> Result<Option<PathBuf>, Problem> {
        Ok(self.text(key)?.map(|text| absolute(self.base(), &text)))
    }

    fn secret(&self, key: &str) -> Result<Option<Secret>, Problem> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        self.vars.expand(&text, self.base()).map(Some).map_err(|what| self.wrong(key, what))
    }

    /// A proxy, whose address may hold a password.
    fn proxy(&self) -> Result<Option<Proxy>, Problem> {
        let Some(text) = self.secret("proxy")? else { return Ok(None) };
        text.expose().parse().map(Some).map_err(|what: String| self.wrong("proxy", what))
    }

    fn secrets(&self, key: &str) -> Result<BTreeMap<String, Secret>, Problem> {
        let Some((TableValue(value), _)) = self.table.values.get(key) else { return Ok(BTreeMap::new()) };
        let takes = || self.wrong(key, "it takes a table of texts such as { NAME = \"${NAME}\" }");
        let one = |(name, value): (&String, &Value)| {
            let text = value.as_str().ok_or_else(takes)?;
            let value = self.vars.expand(text, self.base());
            Ok((name.clone(), value.map_err(|what| self.wrong(key, format_args!("{name}: {what}")))?))
        };
        value.as_object().ok_or_else(takes)?.iter().map(one).collect()
    }

    fn number(&self, key: &str, default: u32, allowed: std::ops::RangeInclusive<u64>) -> Result<u32, Problem> {
        let number = self.table.number(key, allowed)?;
        Ok(number.map_or(default, |number| u32::try_from(number).unwrap_or(u32::MAX)))
    }

    /// At least a second, and no longer than what it is a part of.
    fn seconds(&self, key: &str, default: Duration, most: Duration) -> Result<Duration, Problem> {
        let number = self.table.number(key, 1..=604_800)?;
        let Some(asked) = number.map(Duration::from_secs) else { return Ok(default) };
        if asked > most {
            let whole = if key == "total_seconds" || self.table.section == Section::Tools {
                "limits.max.timeout_seconds"
            } else {
                "total_seconds"
            };
            return Err(self.wrong(
                key,
                format_args!(
                    "{} is more than {whole} ({}), so that it could never be over first; lower it, or raise that",
                    asked.as_secs(),
                    most.as_secs()
                ),
            ));
        }
        Ok(asked)
    }
}
