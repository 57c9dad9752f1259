//! What plugins may reach outside, as an operator writes it.

use super::*;
use agentry_outbound::llm::ProviderKind;
use agentry_outbound::tools::Transport;

const ALL: &str = r#"
[http]
private = ["10.1.0.0/16", "127.0.0.1:8080", "::1"]
nameservers = ["10.0.0.2", "[::1]:5353"]
total_seconds = 60
[http.secrets.search]
requests = "GET https://api.example.com"
header = "Authorization"
value = "Bearer ${TOKEN}"
plugins = "fetch-*"
[llm.providers.local]
kind = "openai"
url = "http://127.0.0.1:8080/v1"
key = "${TOKEN}"
headers = { X-Team = "${TOKEN}" }
total_seconds = 30
[llm.providers.claude]
kind = "anthropic"
key = "${file:key}"
[llm.models.default]
provider = "local"
model = "m"
[tools.time]
command = ["mcp-server-time", "--utc"]
env = { TZ = "UTC", TOKEN = "${TOKEN}" }
user = "mcp"
[tools.search]
url = "https://tools.example.com/mcp?key=${TOKEN}"
headers = { Authorization = "Bearer ${TOKEN}" }
call_seconds = 5
[config]
region = "eu"
token = "${TOKEN}"
[folders]
corpus = "."
[plugins."fetch-*"]
capabilities.http = ["GET https://api.example.com"]
budgets.llm_tokens_per_day = 1_000
"#;

fn all() -> Setup {
    let setup = Setup::new(ALL).env("TOKEN", "hunter2");
    std::fs::write(setup.path("key"), "hunter3\n").unwrap();
    setup
}

#[test]
fn everything_outside_is_read() {
    let setup = all();
    let settings = setup.settings();
    let outside = &settings.outside;
    assert_eq!(outside.http.private.len(), 3);
    assert_eq!(outside.http.private[1].port, Some(8_080));
    assert_eq!(outside.http.nameservers, ["10.0.0.2:53".parse().unwrap(), "[::1]:5353".parse().unwrap()]);
    assert_eq!(outside.http.total, Duration::from_secs(60));
    assert_eq!(outside.secrets[0].plugins, "fetch-*");
    assert_eq!(outside.secrets[0].header.value.expose(), "Bearer hunter2");

    let local = &outside.llm.providers["local"];
    assert_eq!((local.kind, local.total), (ProviderKind::OpenAi, Duration::from_secs(30)));
    assert_eq!(local.first_byte, Duration::from_secs(30), "what is a part is no longer than the whole");
    assert_eq!(local.headers["X-Team"].expose(), "hunter2");
    let claude = &outside.llm.providers["claude"];
    assert_eq!(claude.url.as_str(), "https://api.anthropic.com/v1");
    assert_eq!(claude.key.as_ref().unwrap().expose(), "hunter3");
    assert_eq!(outside.llm.models["default"].max_output_tokens, 4_096);

    let Transport::Stdio { command, args, env, user, .. } = &outside.tools["time"].transport else { panic!() };
    assert_eq!(user.as_deref(), Some("mcp"));
    assert_eq!((command.as_str(), args.len(), env["TOKEN"].expose()), ("mcp-server-time", 1, "hunter2"));
    let Transport::Http { headers, .. } = &outside.tools["search"].transport else { panic!() };
    assert_eq!(headers["Authorization"].expose(), "Bearer hunter2");
    assert_eq!(outside.tools["search"].call, Duration::from_secs(5));
    assert_eq!(outside.config["region"], "eu");
    assert_eq!(outside.folders["corpus"], Path::new(&setup.path("")).components().collect::<std::path::PathBuf>());
    assert_eq!(settings.plugins.rules[0].budgets["llm_tokens_per_day"], 1_000);
}

#[test]
fn no_secret_is_shown_and_none_is_in_debug() {
    let settings = all().settings();
    let told: Vec<String> = settings.effective().iter().map(|e| format!("{} = {}", e.key, e.text())).collect();
    let told = format!("{}{settings:?}", told.join("\n"));
    assert!(!told.contains("hunter2") && !told.contains("hunter3"), "{told}");
    for shown in [
        "llm.providers.\"local\".key = ***",
        "llm.providers.\"local\".kind = openai",
        "tools.\"search\".url = ***",
        "http.secrets.\"search\".requests = GET https://api.example.com",
        "config.token = ***",
    ] {
        assert!(told.contains(shown), "{shown}: {told}");
    }
}

#[test]
fn what_is_wrong_outside_is_named_with_its_remedy_and_no_secret() {
    let provider = "[llm.providers.a]\nkind = 'openai'\n";
    let cases = [
        (
            "[llm.providers.a]\nkind = 'openia'",
            "\"openia\" is not allowed; it takes openai, openai-responses, anthropic or gemini",
        ),
        ("[llm.providers.a]\nurl = 'http://a'", "kind in [llm.providers.a]"),
        (&format!("{provider}key = '${{MISSING}}'"), "the variable MISSING is not set"),
        (&format!("{provider}keys = 'hunter2'"), "did you mean key?"),
        (&format!("{provider}key = 7"), "it takes text in quotes"),
        (&format!("{provider}total_seconds = 901"), "more than limits.max.timeout_seconds (900)"),
        (&format!("{provider}total_seconds = 5\nconnect_seconds = 6"), "more than total_seconds (5)"),
        ("[llm.models.a]\nprovider = 'x'", "model in [llm.models.a]"),
        ("[llm]\nprovider = 'x'", "llm.provider"),
        ("[tools.a]\nenv = { A = 'hunter2' }", "needs command (a child process) or url"),
        ("[tools.a]\ncommand = ['x']\nurl = 'https://x'", "set one"),
        ("[tools.a]\ncommand = 'x y'", "it takes a list of texts"),
        ("[tools.a]\nurl = 'https://x'\nuser = 'mcp'", "unknown setting user"),
        ("[tools.a]\nurl = 'hunter2'", "it is no URL"),
        ("[tools.a]\ncommand = ['x']\nheaders = { A = 'hunter2' }", "unknown setting headers"),
        ("[http]\nprivate = ['10.0.0.0/40']", "is not a network such as"),
        ("[http]\nnameservers = ['dns.example']", "is not an address such as"),
        ("[http]\ntotal_seconds = 901", "more than limits.max.timeout_seconds (900)"),
        ("[http.secrets.a]\nrequests = 'GET https://a'\nheader = 'A'", "value in [http.secrets.a]"),
        (
            "[http.secrets.a]\nrequests = 'GET https://a'\nheader = 'A b'\nvalue = 'hunter2'",
            "header in [http.secrets.a]",
        ),
        ("[folders]\na = 'nowhere'", "is not a folder"),
        ("[folders]\n'../a' = '.'", "a folder's name takes"),
        ("[plugins.a]\nbudgets.llm_tokens = 1", "known are llm_requests_per_day"),
    ];
    for (toml, wanted) in cases {
        let problem = Setup::new(toml).problem();
        assert!(problem.contains(wanted), "{toml:?}: {problem}");
        assert!(!problem.contains("hunter2") && !problem.contains('\n'), "{problem}");
    }
}

#[test]
fn proxies_are_read_with_their_credentials_and_shown_without() {
    let text = "[http]\nproxy_file = 'proxy'\n\
        [llm.providers.a]\nkind = 'openai-responses'\nkey = 'k'\nproxy = 'http://me:${PASSWORD}@proxy:3128'\n\
        [tools.b]\nurl = 'https://mcp.example/mcp'\nproxy = 'https://proxy'\n";
    let setup = Setup::new(text).env("PASSWORD", "hunter2");
    std::fs::write(setup.path("proxy"), "http://me:hunter3@proxy:8080\n").unwrap();
    let settings = setup.settings();
    let outside = &settings.outside;
    let shown = |proxy: &Option<agentry_outbound::Proxy>| proxy.as_ref().map(ToString::to_string);
    assert_eq!(shown(&outside.http.proxy).as_deref(), Some("http://proxy:8080"));
    assert_eq!(shown(&outside.llm.providers["a"].proxy).as_deref(), Some("http://proxy:3128"));
    assert_eq!(outside.llm.providers["a"].kind, ProviderKind::OpenAiResponses);
    let Transport::Http { proxy, .. } = &outside.tools["b"].transport else { panic!() };
    for bare in ["proxy.example:3128", "me:hunter2@proxy.example:3128"] {
        let settings = Setup::new(&format!("[http]\nproxy = '{bare}'\n")).settings();
        assert_eq!(shown(&settings.outside.http.proxy).as_deref(), Some("http://proxy.example:3128"), "{bare}");
    }
    assert_eq!(shown(proxy).as_deref(), Some("https://proxy"));
    let told: Vec<String> = settings.effective().iter().map(|e| format!("{} = {}", e.key, e.text())).collect();
    let told = format!("{}{settings:?}", told.join("\n"));
    assert!(!told.contains("hunter2") && !told.contains("hunter3"), "{told}");
    assert!(
        told.contains("llm.providers.\"a\".proxy = ***") && told.contains("http.proxy = http://me:***@proxy:8080"),
        "{told}"
    );
}

#[test]
fn proxy_that_cannot_be_used_is_named_without_its_password() {
    let provider = "[llm.providers.a]\nkind = 'openai'\nkey = 'k'\n";
    for (toml, wanted) in [
        (format!("{provider}proxy = 'socks5://me:hunter2@proxy'"), "SOCKS is not supported"),
        (format!("{provider}proxy = 'http://me:hunter2@proxy/path'"), "a path"),
        ("[http]\nproxy = 'ftp://me:hunter2@proxy'".to_owned(), "http.proxy"),
        ("[http]\nproxy = 'http://me:hunter2@proxy/path'".to_owned(), "http.proxy"),
        ("[tools.a]\ncommand = ['x']\nproxy = 'http://proxy'".to_owned(), "unknown setting proxy"),
    ] {
        let problem = Setup::new(&toml).problem();
        assert!(problem.contains(wanted), "{toml:?}: {problem}");
        assert!(!problem.contains("hunter2") && !problem.contains('\n'), "{problem}");
    }
}

#[test]
fn proxy_of_the_environment_is_a_warning_that_names_the_settings() {
    let setup = Setup::new("").env("HTTPS_PROXY", "http://me:hunter2@proxy:3128").env("all_proxy", "x");
    let warnings = setup.settings().warnings;
    let one: Vec<_> = warnings.iter().filter(|line| line.contains("HTTPS_PROXY, all_proxy")).collect();
    assert_eq!(one.len(), 1, "{warnings:?}");
    for wanted in ["not used", "llm.providers.NAME.proxy", "tools.NAME.proxy", "http.proxy"] {
        assert!(one[0].contains(wanted), "{wanted}: {warnings:?}");
    }
    assert!(!warnings.concat().contains("hunter2"), "{warnings:?}");
}
