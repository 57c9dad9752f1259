use super::*;
use agentry_sdk::serde_json::json;
use std::path::{Path, PathBuf};

/// What the corpus writes down beside each reply.
fn shown(parsed: &Parsed) -> Value {
    match parsed {
        Parsed::Act(Act { thought, tool, arguments, ignored, invented }) => {
            let mut act = json!({"thought": thought, "tool": tool, "arguments": arguments});
            if *ignored > 0 {
                act["ignored"] = json!(ignored);
            }
            if *invented {
                act["invented"] = json!(true);
            }
            json!({"act": act})
        }
        Parsed::Answer { thought, text } => json!({"answer": {"thought": thought, "text": text}}),
        Parsed::Broken(defect) => {
            let debug = format!("{defect:?}");
            let name = debug.split('(').next().unwrap();
            let words =
                name.char_indices().map(|(at, c)| if c.is_uppercase() && at > 0 { format!("_{c}") } else { c.into() });
            json!({"broken": words.collect::<String>().to_ascii_lowercase()})
        }
    }
}

fn corpus() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut texts: Vec<_> = files.filter(|path| path.extension().is_some_and(|extension| extension == "txt")).collect();
    texts.sort();
    texts
}

#[test]
fn every_reply_of_the_corpus_is_read_as_written_beside_it() {
    let texts = corpus();
    assert!(texts.len() >= 40, "{} replies", texts.len());
    let mut wrong = Vec::new();
    for path in texts {
        let reply = std::fs::read_to_string(&path).unwrap();
        let expected = std::fs::read_to_string(path.with_extension("json")).unwrap();
        let expected: Value = serde_json::from_str(&expected).unwrap();
        let found = shown(&parse(&reply));
        if found != expected {
            wrong.push(format!("{}\n  expected {expected}\n  found    {found}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_corpus_has_every_defect_and_every_good_form() {
    let found: Vec<_> = corpus().iter().map(|path| parse(&std::fs::read_to_string(path).unwrap())).collect();
    let has = |wanted: &str| found.iter().any(|parsed| shown(parsed)["broken"] == wanted);
    for defect in [
        "empty",
        "no_label",
        "only_thought",
        "invented",
        "other_form",
        "no_action",
        "bad_name",
        "no_input",
        "bad_json",
        "not_an_object",
        "both",
        "empty_answer",
    ] {
        assert!(has(defect), "{defect}");
    }
    assert!(found.iter().any(|parsed| matches!(parsed, Parsed::Act(act) if act.invented)));
    assert!(found.iter().any(|parsed| matches!(parsed, Parsed::Act(act) if act.ignored > 0)));
    assert!(found.iter().any(|parsed| matches!(parsed, Parsed::Answer { .. })));
}

#[test]
fn every_text_in_the_corpus_has_its_reading_and_nothing_else_lies_there() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("txt") => assert!(path.with_extension("json").is_file(), "{}", path.display()),
            Some("json") => assert!(path.with_extension("txt").is_file(), "{}", path.display()),
            _ => panic!("{}", path.display()),
        }
    }
}

#[test]
fn a_reply_of_a_megabyte_is_read_in_one_pass() {
    let prose = "and so on, Action, Observation, ".repeat(32_000);
    let reply = format!("Thought: {prose}\nAction: calculator\nAction Input: {{\"expression\": \"1\"}}");
    let Parsed::Act(act) = parse(&reply) else { panic!("no action") };
    assert_eq!(act.thought.map(|thought| thought.len()), Some(prose.trim().len()));
    let Parsed::Broken(Defect::BadJson(_)) = parse(&format!("Action: a\nAction Input: {}", "{\"a\":".repeat(100_000)))
    else {
        panic!("an action nested beyond reason")
    };
}

#[test]
fn every_prefix_and_every_suffix_of_the_corpus_is_read_without_a_panic() {
    for path in corpus() {
        let reply = std::fs::read_to_string(&path).unwrap();
        // The long ones are long in the same way.
        for (at, _) in reply.char_indices().take_while(|_| reply.len() < 4_096) {
            let _ = (parse(&reply[..at]), parse(&reply[at..]));
        }
    }
}
