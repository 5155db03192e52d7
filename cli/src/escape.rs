//! Escapes in separators: shells pass `'\n\n'` as four characters.

/// Turns `\n`, `\t`, `\r`, `\0`, `\\` and `\xNN` into their bytes; everything else stays as it is.
///
/// # Errors
/// What is wrong, for the user.
pub(crate) fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        match chars.next() {
            Some('n') => out.push(b'\n'),
            Some('t') => out.push(b'\t'),
            Some('r') => out.push(b'\r'),
            Some('0') => out.push(0),
            Some('\\') => out.push(b'\\'),
            Some('x') => out.push(hex_byte(&mut chars)?),
            Some(other) => {
                return Err(format!("unknown escape \\{other}: \\n \\t \\r \\0 \\\\ \\xNN are known"));
            }
            None => return Err("a backslash at the end escapes nothing; write \\\\".to_owned()),
        }
    }
    Ok(out)
}

fn hex_byte(chars: &mut std::str::Chars<'_>) -> Result<u8, String> {
    let digits: String = chars.take(2).collect();
    if digits.len() != 2 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err("\\x needs two hexadecimal digits".to_owned());
    }
    u8::from_str_radix(&digits, 16).map_err(|_| format!("\\x{digits} is no hexadecimal byte"))
}

/// A separator on the command line: unescaped, at least one byte.
///
/// # Errors
/// What is wrong, for the user.
pub(crate) fn separator(text: &str) -> Result<Vec<u8>, String> {
    let bytes = unescape(text)?;
    if bytes.is_empty() { Err("a separator needs at least one byte".to_owned()) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_become_their_bytes() {
        for (text, bytes) in [
            (r"\n\n", &b"\n\n"[..]),
            (r"\t|\r", b"\t|\r"),
            (r"\x00\xff\0", &[0, 255, 0]),
            (r"a\\n", br"a\n"),
            ("ü", "ü".as_bytes()),
        ] {
            assert_eq!(unescape(text).unwrap(), bytes);
        }
    }

    #[test]
    fn wrong_escapes_are_refused() {
        for text in [r"\q", r"\", r"\x1", r"\xzz", r"\x+1", r"\xü"] {
            assert!(unescape(text).is_err(), "{text}");
        }
        assert!(separator("").is_err());
    }
}
