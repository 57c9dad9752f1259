//! Bytes to letters. UTF-8, and windows-1252 under its many names; anything else is refused rather than shown as garbage.

/// 0x80 to 0x9f of windows-1252, as the Encoding Standard has it; everything else is its own code point.
const WINDOWS_1252: [char; 32] = [
    '\u{20ac}', '\u{81}', '\u{201a}', '\u{192}', '\u{201e}', '\u{2026}', '\u{2020}', '\u{2021}', '\u{2c6}', '\u{2030}',
    '\u{160}', '\u{2039}', '\u{152}', '\u{8d}', '\u{17d}', '\u{8f}', '\u{90}', '\u{2018}', '\u{2019}', '\u{201c}',
    '\u{201d}', '\u{2022}', '\u{2013}', '\u{2014}', '\u{2dc}', '\u{2122}', '\u{161}', '\u{203a}', '\u{153}', '\u{9d}',
    '\u{17e}', '\u{178}',
];

/// How far into HTML an encoding may be declared (HTML Standard, "prescan a byte stream").
const PRESCAN: usize = 1_024;

/// Decodes by the header, then by HTML's own declaration, then by what the bytes are.
pub(crate) fn decode(content_type: Option<&str>, body: &[u8], html: bool) -> Result<String, String> {
    let declared = content_type.and_then(parameter).or_else(|| if html { meta(body) } else { None });
    let utf8 = || {
        let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
        String::from_utf8_lossy(body).into_owned()
    };
    match declared.as_deref() {
        Some("utf-8" | "utf8") => Ok(utf8()),
        Some("iso-8859-1" | "latin1" | "windows-1252" | "cp1252" | "us-ascii" | "ascii") => Ok(windows_1252(body)),
        Some(other) => Err(format!("its text is encoded as {other}; only UTF-8 and windows-1252 are read")),
        None if std::str::from_utf8(body).is_ok() => Ok(utf8()),
        // What browsers assume of a page that declares nothing.
        None if html => Ok(windows_1252(body)),
        None => Err("it declares no encoding and is not UTF-8".into()),
    }
}

fn windows_1252(body: &[u8]) -> String {
    body.iter()
        .map(|&byte| WINDOWS_1252.get(usize::from(byte).wrapping_sub(0x80)).copied().unwrap_or(byte.into()))
        .collect()
}

/// `charset` of a content type.
fn parameter(content_type: &str) -> Option<String> {
    let mut parameters = content_type.split(';').skip(1).filter_map(|parameter| parameter.split_once('='));
    let (_, value) = parameters.find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"))?;
    let value = value.trim().trim_matches(['"', '\'']).to_ascii_lowercase();
    (!value.is_empty()).then_some(value)
}

/// What HTML says about itself.
fn meta(body: &[u8]) -> Option<String> {
    let start = String::from_utf8_lossy(&body[..body.len().min(PRESCAN)]).to_ascii_lowercase();
    let mut tags = start.match_indices("<meta").map(|(at, _)| &start[at..]);
    tags.find_map(|tag| {
        let tag = tag.split('>').next()?;
        let value = tag.split_once("charset")?.1.trim_start().strip_prefix('=')?.trim_start();
        let value = value.trim_start_matches(['"', '\'']);
        let end = value.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ';' | '/')).unwrap_or(value.len());
        (end > 0).then(|| value[..end].to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_decides_then_the_page_then_the_bytes() {
        let page = |declared: &str| format!("<html><head>{declared}</head>caf\u{e9}");
        let utf8 = page("").into_bytes();
        let latin: Vec<u8> = page("").chars().map(|c| c as u8).collect();
        let decoded = |header: Option<&str>, body: &[u8]| decode(header, body, true).unwrap();
        assert!(decoded(Some("text/html; charset=ISO-8859-1"), &latin).ends_with("caf\u{e9}"));
        assert!(decoded(Some("text/html; charset=\"utf-8\""), &utf8).ends_with("caf\u{e9}"));
        assert!(decoded(None, &utf8).ends_with("caf\u{e9}"));
        assert!(decoded(None, &latin).ends_with("caf\u{e9}"), "as browsers do");
        for declared in ["<meta charset=latin1>", "<META http-equiv=x content='text/html; charset=iso-8859-1'/>"] {
            let body: Vec<u8> = page(declared).chars().map(|c| c as u8).collect();
            assert!(decoded(Some("text/html"), &body).ends_with("caf\u{e9}"), "{declared}");
        }
    }

    #[test]
    fn quotes_and_the_euro_are_where_windows_1252_has_them() {
        assert_eq!(windows_1252(b"\x80 \x93a\x94 \xff"), "\u{20ac} \u{201c}a\u{201d} \u{ff}");
    }

    #[test]
    fn another_encoding_is_refused_by_name() {
        let error = decode(Some("text/html; charset=Shift_JIS"), b"", true).unwrap_err();
        assert!(error.contains("shift_jis"), "{error}");
        assert!(decode(Some("text/plain"), b"caf\xe9", false).unwrap_err().contains("declares no encoding"));
    }
}
