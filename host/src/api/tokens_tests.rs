//! Files of tokens.

use super::*;

#[test]
fn a_token_allows_what_its_line_says() {
    let tokens = Tokens::of("# who\n\ndash read 0123456789abcdef\nops\tfull  fedcba9876543210\n");
    assert_eq!(tokens.find("0123456789abcdef").map(|token| token.scope), Some(Scope::Read));
    assert_eq!(tokens.find("fedcba9876543210").map(|token| token.scope), Some(Scope::Full));
    assert!(tokens.find("fedcba987654321").is_none());
    let marked = Tokens::of("\u{feff}ops full fedcba9876543210\r\n");
    assert!(marked.find("fedcba9876543210").is_some(), "a byte order mark and carriage returns are no part of a line");
    assert!(tokens.find("").is_none());
    assert!(!format!("{tokens:?}").contains("0123456789abcdef"));
}

#[test]
fn a_file_that_is_missing_is_named() {
    let error = Tokens::load(Some(Path::new("/no/such/tokens"))).unwrap_err().to_string();
    assert!(error.contains("/no/such/tokens (api.tokens_file)"), "{error}");
    assert!(Tokens::load(None).unwrap().is_none());
}

#[test]
fn a_bad_line_is_named_and_not_repeated() {
    let cases = [
        ("a read", "line 1 is not"),
        ("\na write 0123456789abcdef", "line 2: the scope"),
        ("a read short", "line 1: the token has fewer"),
        ("a read 0123456789abcdef\na full 0123456789abcdeg", "line 2: the name"),
        ("# nobody", "it holds no token"),
    ];
    for (text, says) in cases {
        let error = parse(text).err().unwrap().to_string();
        assert!(error.contains(says) && !error.contains("0123456789"), "{text}: {error}");
    }
}

#[test]
fn a_changed_file_replaces_the_tokens_and_an_invalid_one_leaves_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens");
    // Replaced, and not written over: another inode, whatever the grain of times is.
    let write = |text: &str| {
        std::fs::write(folder.path().join("new"), text).unwrap();
        std::fs::rename(folder.path().join("new"), &path).unwrap();
    };
    write("dash read 0123456789abcdef\nops full fedcba9876543210\n");
    let tokens = Tokens::load(Some(&path)).unwrap().unwrap();
    let places = tokens.find("fedcba9876543210").unwrap().share;
    write("ops full fedcba9876543211\n");
    assert!(tokens.find("0123456789abcdef").is_some(), "it has not looked");
    tokens.look();
    assert!(tokens.find("0123456789abcdef").is_none() && tokens.find("fedcba9876543210").is_none());
    let renewed = tokens.find("fedcba9876543211").unwrap();
    assert!(Arc::ptr_eq(&renewed.share, &places), "its places are those of its name");
    assert_eq!(tokens.trouble(), None);

    write("ops full fedcba9876543212\nbroken\n");
    tokens.look();
    assert!(tokens.find("fedcba9876543212").is_none() && tokens.find("fedcba9876543211").is_some());
    let trouble = tokens.trouble().unwrap();
    assert!(trouble.contains("line 2 is not") && !trouble.contains("fedcba"), "{trouble}");
    std::fs::remove_file(&path).unwrap();
    tokens.look();
    assert!(tokens.trouble().unwrap().contains("(api.tokens_file)"));
    assert!(tokens.find("fedcba9876543211").is_some());
    write("ops full fedcba9876543213\n");
    tokens.look();
    assert_eq!(tokens.trouble(), None);
    assert!(tokens.find("fedcba9876543213").is_some());
}
