//! JSON values as YAML: block style, strings quoted as in JSON (which YAML 1.2 includes) unless they are plainly plain.

use serde_json::Value;

/// A whole document, ending in a newline.
pub(crate) fn to_yaml(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => put_map(&mut out, map, 0, false),
        Value::Array(items) if !items.is_empty() => put_list(&mut out, items, 0),
        other => {
            out.push_str(&scalar(other));
            out.push('\n');
        }
    }
    out
}

fn put_map(out: &mut String, map: &serde_json::Map<String, Value>, depth: usize, after_dash: bool) {
    for (i, (key, value)) in map.iter().enumerate() {
        if i > 0 || !after_dash {
            indent(out, depth);
        }
        out.push_str(&text(key));
        out.push(':');
        put_value(out, value, depth);
    }
}

fn put_list(out: &mut String, items: &[Value], depth: usize) {
    for item in items {
        indent(out, depth);
        out.push('-');
        match item {
            Value::Object(map) if !map.is_empty() => {
                out.push(' ');
                put_map(out, map, depth + 1, true);
            }
            other => put_value(out, other, depth),
        }
    }
}

fn put_value(out: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push('\n');
            put_map(out, map, depth + 1, false);
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            put_list(out, items, depth + 1);
        }
        other => {
            out.push(' ');
            out.push_str(&scalar(other));
            out.push('\n');
        }
    }
}

fn indent(out: &mut String, depth: usize) {
    for _ in 0..depth {
        out.push_str("  ");
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(string) => text(string),
        other => other.to_string(),
    }
}

/// Unquoted only where no reader of any YAML version could see anything but this text.
fn text(string: &str) -> String {
    let starts_plain = string.starts_with(|c: char| c.is_ascii_alphabetic());
    let is_plain = string.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/'));
    let word = string.to_ascii_lowercase();
    let is_reserved =
        ["null", "true", "false", "yes", "no", "on", "off", "y", "n", "nan", "inf"].contains(&word.as_str());
    if starts_plain && is_plain && !is_reserved { string.to_owned() } else { Value::from(string).to_string() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_document_has_its_golden_text() {
        let value = json!({
            "name": "orders", "empty": [], "none": {}, "absent": null, "flag": true,
            "list": [1, "no", {"a": 1, "b": [2]}], "odd key": "line\nbreak", "version": "1.0",
        });
        // Keys come in the order of serde_json's map, which is sorted.
        let expected = "absent: null\nempty: []\nflag: true\nlist:\n  - 1\n  - \"no\"\n  - a: 1\n    b:\n      - 2\n\
                        name: orders\nnone: {}\n\"odd key\": \"line\\nbreak\"\nversion: \"1.0\"\n";
        assert_eq!(to_yaml(&value), expected);
    }

    #[test]
    fn another_reader_reads_back_what_was_written() {
        let value = json!({
            "a": ["x", {"deep": [[1, 2], []]}, "~", "- no", "#", ": ", "0x1", "1e3", "", " "], "b": {"c": "é\u{1}\t\"'"},
        });
        let read: Value = serde_saphyr::from_str(&to_yaml(&value)).unwrap();
        assert_eq!(read, value);
    }
}
