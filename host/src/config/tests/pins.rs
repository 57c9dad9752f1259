//! Where plugins may come from and what they may ask for, as an operator writes it.

use super::*;

#[test]
fn pins_and_ceilings_of_a_plugin_are_read() {
    let digest = format!("sha256:{}", "0f".repeat(32));
    let setup = Setup::new(&format!(
        "[plugins.fetch]\ndir = 'own'\ndigest = '{digest}'\nlimits.memory_mib = 64\nlimits.max.memory_mib = 64\n\
         [plugins.'*']\ndir = ['own', '.']\ndigest = ['{digest}', '{digest}']\n[plugins.'a-*'.limits.max]\nlog_kib = 7\n"
    ));
    let rules = setup.settings().plugins.rules;
    let own = std::path::PathBuf::from(setup.path("own"));
    let of = |pattern: &str| rules.iter().find(|rule| rule.pattern == pattern).unwrap();
    let fetch = of("fetch");
    assert_eq!((&fetch.pins.dir, &fetch.pins.digest), (&Some(vec![own.clone()]), &Some(vec![digest.clone()])));
    assert_eq!((fetch.limits["memory_mib"], fetch.max["memory_mib"]), (64, 64));
    assert_eq!(of("*").pins.dir.as_ref().map(Vec::len), Some(2));
    assert_eq!(of("*").pins.digest, Some(vec![digest.clone(), digest]));
    assert_eq!((of("a-*").max["log_kib"], of("a-*").pins.clone()), (7, Default::default()));
}

#[test]
fn a_wrong_pin_or_ceiling_is_named_with_what_it_takes() {
    for (toml, wanted) in [
        ("dir = 7", "dir in [plugins.\"a\"] (FOLDER/agentry.toml:2): it takes text in quotes, or a list of such"),
        ("dir = []", "it takes text in quotes, or a list of such"),
        (
            "digest = 'sha256:0F'",
            "\"sha256:0F\" is not a digest; it takes sha256: and 64 hexadecimal digits in lower case",
        ),
        ("limits.max = 7", "it takes limits by name, such as limits.max.memory_mib = 256"),
        (
            "limits.max.memory = 7",
            "limits.max.memory in [plugins.\"a\"] (FOLDER/agentry.toml:2): it is unknown; known are timeout_seconds",
        ),
        (
            "limits.max.memory_mib = 513",
            "513 is not allowed; it takes a whole number from 1 to 512 (limits.max.memory_mib)",
        ),
        ("limits.max.memory_mib = 0", "0 is not allowed"),
        (
            "limits.memory_mib = 65\nlimits.max.memory_mib = 64",
            "limits.memory_mib in [plugins.\"a\"] (FOLDER/agentry.toml:2): 65 is more than limits.max.memory_mib there (64); \
             lower it, or raise that",
        ),
    ] {
        let problem = Setup::new(&format!("[plugins.a]\n{toml}")).problem();
        assert!(problem.contains(wanted), "{toml:?}: {problem}");
    }
}
