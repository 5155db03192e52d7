//! `docs/config.md`, written from the keys themselves.

use super::BrokerConfig;

/// The reference of every key as Markdown.
pub fn reference() -> String {
    let mut page = String::from(HEAD);
    for (section, about, keys) in BrokerConfig::keys() {
        page.push_str(&format!("\n## `{section}`\n\n{about}\n\n"));
        page.push_str("| key | kind | default | range | meaning |\n| --- | --- | --- | --- | --- |\n");
        for key in keys {
            let default =
                if key.default.is_empty() { "(empty)".to_owned() } else { format!("`{}`", key.default) };
            page.push_str(&format!(
                "| `{}` | {} | {default} | {} | {} |\n",
                key.path, key.kind, key.range, key.meaning
            ));
        }
    }
    page
}

const HEAD: &str = "# Configuration

<!-- Written from the code by `altair check-config --reference > docs/config.md`; a test fails when it is stale. -->

A broker reads, in this order, each layer over the one before: its defaults, a config file, the environment, flags.

- **File**: `--config FILE`, else `$ALTAIR_CONFIG`, else `./altair.yaml`, else `/etc/altair/altair.yaml`; YAML or JSON. `${VAR}`
  and `${VAR:-default}` in values are replaced from the environment (`$${` stands for a plain `${`).
- **Environment**: `ALTAIR_` and the key with `__` for the dot: `ALTAIR_STORAGE__DATA_DIR=/var/lib/altair`. Lists take commas.
- **Flags**: `--set storage.data_dir=/var/lib/altair`, and short ones for the usual keys (`altair serve --help`).

Durations are written `500ms`, `30s`, `7d` (a bare number is milliseconds), sizes `64KiB`, `16MiB`, `1GiB` (a bare number is
bytes). `altair check-config` prints every value and where it came from, or everything that is wrong, with file and line.
";
