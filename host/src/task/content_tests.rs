use super::*;

#[test]
fn character_sets_of_utf_8_are_no_encoding() {
    for encoding in [
        "",
        " ",
        "utf-8",
        "UTF-8",
        "UTF8",
        "utf_8",
        "\"utf-8\"",
        "us-ascii",
        "US-ASCII",
        "ascii",
        "identity",
        "Binary",
        "8bit",
        "8BIT",
        "utf-8-sig",
        "identity, utf-8",
        "charset=utf-8",
        "application/json",
        "json",
        "none",
    ] {
        assert_eq!(check_encoding(encoding), Ok(()), "{encoding}");
    }
}

#[test]
fn compressions_and_other_character_sets_are_rejected_with_the_remedy() {
    for encoding in [
        "gzip",
        "GZIP",
        "x-gzip",
        "deflate",
        "br",
        "zstd",
        "bzip2",
        "lzma",
        "application/x-gzip",
        "gzip:UTF-8",
        "utf-8, gzip",
    ] {
        assert!(check_encoding(encoding).unwrap_err().contains("uncompressed"), "{encoding}");
    }
    for encoding in [
        "iso-8859-1",
        "ISO_8859-15",
        "latin1",
        "utf-16",
        "UTF-16LE",
        "utf-32",
        "windows-1252",
        "cp1252",
        "Shift_JIS",
        "GB2312",
    ] {
        assert!(check_encoding(encoding).unwrap_err().contains("UTF-8"), "{encoding}");
    }
    assert!(check_encoding("base64").unwrap_err().contains("as it is"));
    assert!(check_encoding("rot13").unwrap_err().contains("not known"));
}

#[test]
fn types_that_say_nothing_mean_json() {
    for content_type in [
        "",
        "application/json",
        "Application/JSON; charset=utf-8",
        "application/json;charset=\"UTF-8\"",
        "text/json",
        "application/vnd.api+json",
        "application/cloudevents+json; charset=UTF-8",
        "application/x-json",
        "json",
        "text/plain",
        "text/plain; charset=us-ascii",
        "application/octet-stream",
        "application/data",
        "TEXT/PLAIN",
        "binary/octet-stream",
        "*/*",
        "application/json; v=1; charset=utf8",
        "application/json charset=utf-8",
        "application/json; charset=ISO-8859-1",
        "text/json; charset=windows-1252",
        "application/json; charset=cp1251",
        "application/json; charset=IBM850",
    ] {
        assert_eq!(check_type(content_type), Ok(()), "{content_type}");
    }
}

#[test]
fn other_types_and_their_charsets_are_rejected() {
    for content_type in [
        "application/x-python-serialize",
        "application/x-java-serialized-object",
        "application/x-yaml",
        "text/xml",
        "application/x-msgpack",
        "text/html",
        "application/jsonl",
        "application/x-www-form-urlencoded",
        "avro/binary",
    ] {
        assert!(check_type(content_type).unwrap_err().contains("publish JSON"), "{content_type}");
    }
    for content_type in [
        "text/plain; charset=iso-8859-1",
        "application/json;charset=UTF-16",
        "text/json; charset=utf-7",
        "text/json; charset=ibm037",
    ] {
        assert!(check_type(content_type).unwrap_err().contains("in UTF-8"), "{content_type}");
    }
    assert!(check_type("application/x-python-serialize").unwrap_err().contains("serializer json"));
}

#[test]
fn text_loses_its_mark_and_what_is_no_text_is_named() {
    assert_eq!(text("\u{feff}{}".as_bytes(), None).unwrap(), "{}");
    let why = |body: &[u8], compression| text(body, compression).unwrap_err();
    assert_eq!(why(b"\x1f\x8b\x08", Some("application/x-gzip")).code, "content_encoding");
    assert!(why(b"\x1f\x8b\x08", None).detail.contains("gzip"));
    assert!(why(b"\xff\xfe{\0", None).detail.contains("UTF-16"));
    assert_eq!(why(b"\xff", Some("fast")).code, "not_utf8");
    assert_eq!(text(b"{}", Some("application/x-gzip")).unwrap(), "{}", "its body is JSON all the same");
}
