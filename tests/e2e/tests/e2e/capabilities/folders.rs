//! Settings and folders that the operator hands to a plugin.

use std::os::unix::fs::symlink;

use e2e::outside::reach::{self, grant, ok, results};
use e2e::{Mode, Site};
use serde_json::{Value, json};

use super::run;

e2e::in_both_modes! {
    a_setting_is_the_operators_before_the_plugins_and_absent_without_a_grant
    a_granted_folder_is_read_and_nothing_else
}

async fn a_setting_is_the_operators_before_the_plugins_and_absent_without_a_grant(mode: Mode) {
    let site = Site::new(mode).await;
    let setup = reach::setup(&site)
        .set("config.region", "the operator's")
        .set("config.colour", "the operator's")
        .set("config.unasked", "the operator's");
    let daemon = setup.start().await;
    let task = reach::reach(["region", "colour", "unasked", "nobody"].map(|key| json!({"config": key})));
    let ended = run(&site, &daemon, task).await;
    let values: Vec<_> = results(&ended).iter().map(|result| ok(result).clone()).collect();
    // Of colour the operator says something, and grants it not.
    assert_eq!(values, [json!("the operator's"), json!("the plugin's own"), Value::Null, Value::Null]);
    daemon.stop().await;
}

async fn a_granted_folder_is_read_and_nothing_else(mode: Mode) {
    let site = Site::new(mode).await;
    let (corpus, theirs) = (site.folder().join("corpus"), site.folder().join("theirs"));
    std::fs::create_dir_all(corpus.join("deep")).unwrap();
    std::fs::create_dir_all(&theirs).unwrap();
    std::fs::write(corpus.join("a"), "the text of a").unwrap();
    std::fs::write(corpus.join("deep/b"), "the text of b").unwrap();
    std::fs::write(theirs.join("secret"), "theirs").unwrap();
    symlink("deep/b", corpus.join("inner")).unwrap();
    symlink("../theirs/secret", corpus.join("outer")).unwrap();
    symlink(theirs.join("secret"), corpus.join("absolute")).unwrap();
    symlink(&theirs, corpus.join("folder")).unwrap();
    let setup = reach::setup(&site)
        .set("folders.corpus", corpus.to_string_lossy().into_owned())
        .set("folders.theirs", theirs.to_string_lossy().into_owned());
    let daemon = grant(setup, "folders", json!(["corpus"])).start().await;

    let read = |path: &str| json!({"read": path});
    let good = [read("/corpus/a"), read("/corpus/deep/b"), read("/corpus/deep/../a"), read("/corpus/inner")];
    let listed = json!({"list_dir": "/corpus"});
    let (outside, secret) =
        (theirs.to_string_lossy().into_owned(), theirs.join("secret").to_string_lossy().into_owned());
    let bad = [
        read("/corpus/../theirs/secret"),
        read("/corpus/deep/../../theirs/secret"),
        read("/corpus/outer"),
        read("/corpus/absolute"),
        read("/corpus/folder/secret"),
        read("/theirs/secret"),
        read("/etc/passwd"),
        read("/corpus//etc/passwd"),
        read("../theirs/secret"),
        read("theirs/secret"),
        read(&secret),
        json!({"list_dir": "/"}),
        json!({"list_dir": "/corpus/.."}),
        json!({"list_dir": "/corpus/folder"}),
        json!({"list_dir": outside}),
        json!({"write": "/corpus/new"}),
        json!({"write": "/corpus/a"}),
        json!({"write": "/corpus/outer"}),
    ];
    let ended = run(&site, &daemon, reach::reach([&good[..], &[listed], &bad].concat())).await;
    let results = results(&ended);
    let texts: Vec<_> = results[..4].iter().map(|result| ok(result).as_str().unwrap_or_default()).collect();
    assert_eq!(texts, ["the text of a", "the text of b", "the text of a", "the text of b"]);
    assert_eq!(ok(&results[4]), &json!(["a", "absolute", "deep", "folder", "inner", "outer"]));
    for (step, result) in bad.iter().zip(&results[5..]) {
        assert!(result.get("error").is_some(), "{step}: {result}");
    }
    assert_eq!(std::fs::read_to_string(corpus.join("a")).unwrap(), "the text of a");
    assert_eq!(std::fs::read_to_string(theirs.join("secret")).unwrap(), "theirs");
    assert!(!corpus.join("new").exists());
    daemon.stop().await;
}
