//! Values as editors, shells and files of variables leave them, and paths that are not text.

use super::*;
use std::os::unix::ffi::OsStrExt;

const BROKER: (&str, &str) = ("AGENTRY_BROKER_URL", "\"amqp://guest:guest@127.0.0.1:5672\"");
const DATABASE: (&str, &str) = ("AGENTRY_DATABASE_URL", "'postgres://u:p@127.0.0.1:5432/d'\r");

fn here() -> Setup {
    Setup::new("").env(BROKER.0, BROKER.1).env(DATABASE.0, DATABASE.1)
}

#[test]
fn quotes_around_a_variable_are_not_part_of_its_value() {
    let settings = here().env("AGENTRY_WORKER_SLOTS", "\"7\"").env("AGENTRY_LOG_LEVEL", "'warn'\r").settings();
    let url = settings.database.url.as_ref().map(|url| url.expose().to_owned());
    assert_eq!(url.as_deref(), Some("postgres://u:p@127.0.0.1:5432/d"));
    assert_eq!((settings.worker.slots, settings.log.level), (7, "warn"));
}

#[test]
fn a_byte_order_mark_and_carriage_returns_are_not_part_of_a_file() {
    let setup =
        Setup::new("\u{feff}[worker]\r\nslots = 7\r\n[database]\r\nurl_file = 'url'\r\n").env(BROKER.0, BROKER.1);
    std::fs::write(setup.path("url"), "\u{feff}\"postgres://u:p@127.0.0.1:5432/d\"\r\n").unwrap();
    let settings = setup.settings();
    assert_eq!(settings.worker.slots, 7);
    assert_eq!(settings.database.url.unwrap().expose(), "postgres://u:p@127.0.0.1:5432/d");
    let utf_16: Vec<u8> = "\u{feff}[worker]".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let setup = Setup::new("");
    std::fs::write(setup.path("agentry.toml"), utf_16).unwrap();
    assert!(setup.problem().contains("save it as UTF-8"), "{}", setup.problem());
}

#[test]
fn a_folder_that_is_not_utf_8_is_refused_by_name_where_a_path_depends_on_it() {
    let mut setup = here();
    setup.sources.cwd = setup.folder.path().join(std::ffi::OsStr::from_bytes(b"d\xff"));
    std::fs::create_dir(&setup.sources.cwd).unwrap();
    let problem = setup.problem();
    assert!(problem.contains("is not UTF-8") && problem.contains("write an absolute one"), "{problem}");
    let setup = setup.env("AGENTRY_DATA_DIR", "/tmp/data").env("AGENTRY_PLUGINS_DIR", "/tmp/plugins");
    assert_eq!(setup.settings().data.dir, Path::new("/tmp/data"), "absolute paths do not depend on it");
}

#[test]
fn a_variable_that_is_not_utf_8_is_refused_by_name_if_it_is_ours() {
    let mut setup = here();
    let odd = || std::ffi::OsStr::from_bytes(b"\xff").to_owned();
    setup.sources.env.push(("HOME".into(), odd()));
    setup.sources.env.push((odd(), odd()));
    setup.settings();
    setup.sources.env.push(("AGENTRY_DATA_DIR".into(), odd()));
    assert!(setup.problem().contains("AGENTRY_DATA_DIR"));
}

#[test]
fn an_address_is_read_when_settings_are() {
    for (url, says) in [
        ("amqps://h?cacertfile=/missing/ca.pem", "/missing/ca.pem"),
        ("amqps://h?verify=verify_none", "always verified"),
        ("amqps://h?hartbeat=3", "hartbeat"),
        ("amqps://h?connection_timeout=5", "milliseconds"),
    ] {
        let problem = Setup::new("").env(BROKER.0, url).env(DATABASE.0, DATABASE.1).problem();
        assert!(
            problem.starts_with("broker.url (env AGENTRY_BROKER_URL)") && problem.contains(says),
            "{url}: {problem}"
        );
    }
    let problem = here().env("AGENTRY_BROKER_CA_FILE", "/missing/ca.pem").problem();
    assert!(problem.contains("not amqps://"), "{problem}");
}
