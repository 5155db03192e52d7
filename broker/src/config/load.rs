//! Puts the layers together: default < file < environment < flag.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::error::{ConfigError, Problem};
use super::tree::{self, Raw};
use super::{BrokerConfig, validate};

/// A config file larger than this is no config file.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Files that are looked for when none is named.
const USUAL_FILES: [&str; 2] = ["altair.yaml", "/etc/altair/altair.yaml"];
/// Environment variables of this shape are config keys: `ALTAIR_STORAGE__DATA_DIR`.
const ENV_PREFIX: &str = "ALTAIR_";

/// Where a value was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// In the config file, at this line and column (from 1).
    File {
        /// The file.
        path: PathBuf,
        /// Line, from 1; 0 if the place is not known.
        line: u64,
        /// Column, from 1.
        column: u64,
    },
    /// In this environment variable.
    Env(String),
    /// By this flag.
    Flag(String),
}

impl Origin {
    /// One word for machines: `default`, `file`, `env` or `flag`.
    pub fn layer(&self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::File { .. } => "file",
            Self::Env(_) => "env",
            Self::Flag(_) => "flag",
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line: 0, .. } => write!(f, "{}", path.display()),
            Self::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Self::Env(name) => write!(f, "env {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// What the layers are made of.
#[derive(Debug, Clone, Default)]
pub struct LoadArgs {
    /// Config file named by a flag; it must exist.
    pub file: Option<PathBuf>,
    /// The process environment.
    pub env: BTreeMap<String, String>,
    /// Keys set by flags: (key, value, name of the flag), the last one wins.
    pub flags: Vec<(String, String, String)>,
}

/// A key's value and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Full name of the key.
    pub path: &'static str,
    /// Value, as it could be written in a file.
    pub value: String,
    /// Where it was set.
    pub origin: Origin,
}

/// A configuration that was read and found right.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The values.
    pub config: BrokerConfig,
    /// Every key with its value and origin, in the order of the documentation.
    pub settings: Vec<Setting>,
    /// The file that was read.
    pub file: Option<PathBuf>,
}

/// Reads and checks the configuration.
///
/// # Errors
/// [`ConfigError::Unreadable`] for a file that cannot be read, [`ConfigError::Invalid`] with every problem found.
pub fn load(args: &LoadArgs) -> Result<Loaded, ConfigError> {
    let mut layers = Layers {
        env: &args.env,
        config: BrokerConfig::default(),
        origins: BTreeMap::new(),
        problems: Vec::new(),
    };
    let file = find_file(args);
    if let Some(path) = &file {
        let text = read_file(path)?;
        layers.add_file(path, &text);
    }
    layers.add_env();
    for (key, value, flag) in &args.flags {
        layers.set(key, &Raw::Text(value.clone()), Origin::Flag(flag.clone()));
    }
    layers.finish(file)
}

fn find_file(args: &LoadArgs) -> Option<PathBuf> {
    if let Some(path) = &args.file {
        return Some(path.clone());
    }
    if let Some(path) = args.env.get("ALTAIR_CONFIG").filter(|path| !path.is_empty()) {
        return Some(PathBuf::from(path));
    }
    USUAL_FILES.iter().map(PathBuf::from).find(|path| path.is_file())
}

// The one file that is read outside the `Disk` seam: it says where the disk is.
fn read_file(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    let about = std::fs::metadata(path).map_err(unreadable)?;
    if !about.is_file() {
        return Err(in_file(path, "this is not a file".to_owned()));
    }
    if about.len() > FILE_BYTES_MAX {
        let len = about.len();
        return Err(in_file(path, format!("the file has {len} bytes; at most {FILE_BYTES_MAX} are read")));
    }
    let bytes = std::fs::read(path).map_err(unreadable)?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        in_file(path, format!("the file is not UTF-8 text (byte {at})"))
    })
}

fn in_file(path: &Path, message: String) -> ConfigError {
    let origin = Origin::File { path: path.to_owned(), line: 0, column: 0 };
    ConfigError::Invalid(vec![Problem { key: String::new(), origin, message, hint: String::new() }])
}

struct Layers<'a> {
    env: &'a BTreeMap<String, String>,
    config: BrokerConfig,
    origins: BTreeMap<String, Origin>,
    problems: Vec<Problem>,
}

impl Layers<'_> {
    fn add_file(&mut self, path: &Path, text: &str) {
        let place = |line, column| Origin::File { path: path.to_owned(), line, column };
        let sections = match tree::parse(text) {
            Ok(Raw::Map(entries)) => entries,
            Ok(Raw::Null) => Vec::new(),
            Ok(other) => {
                self.problem(
                    "",
                    place(1, 1),
                    format!("expected sections with keys, found {}", other.describe()),
                    "",
                );
                return;
            }
            Err(error) => {
                let (line, column) = error.location().map_or((0, 0), |at| (at.line(), at.column()));
                self.problem("", place(line, column), first_line(&error.to_string()), "");
                return;
            }
        };
        for section in sections {
            let origin = place(section.line, section.column);
            self.add_section(&section, &origin, &place);
        }
    }

    fn add_section(&mut self, section: &tree::Entry, origin: &Origin, place: &dyn Fn(u64, u64) -> Origin) {
        if !BrokerConfig::SECTIONS.contains(&section.key.as_str()) {
            let hint = nearest(&section.key);
            self.problem(&section.key, origin.clone(), "unknown key".to_owned(), &hint);
            return;
        }
        match &section.value {
            Raw::Null => {}
            Raw::Map(keys) => {
                for key in keys {
                    let path = format!("{}.{}", section.key, key.key);
                    let origin = place(key.line, key.column);
                    match self.expand(&key.value) {
                        Ok(raw) => self.set(&path, &raw, origin),
                        Err(message) => self.problem(&path, origin, message, ""),
                    }
                }
            }
            other => {
                let message = format!("expected a section with keys, found {}", other.describe());
                self.problem(&section.key, origin.clone(), message, "");
            }
        }
    }

    fn add_env(&mut self) {
        let env = self.env;
        for (name, value) in env {
            let Some(rest) = name.strip_prefix(ENV_PREFIX) else { continue };
            let Some((section, field)) = rest.split_once("__") else { continue };
            let path = format!("{}.{}", section.to_ascii_lowercase(), field.to_ascii_lowercase());
            self.set(&path, &Raw::Text(value.clone()), Origin::Env(name.clone()));
        }
    }

    fn set(&mut self, path: &str, raw: &Raw, origin: Origin) {
        // A duration carries its own unit (`session_timeout: 10s`): its key may be written without the `_ms`.
        let with_unit = format!("{path}_ms");
        for name in [path, &with_unit] {
            let (section, field) = name.split_once('.').unwrap_or((name, ""));
            match self.config.read(section, field, raw) {
                Some(Ok(())) => {
                    self.origins.insert(name.to_owned(), origin);
                    return;
                }
                Some(Err(message)) => return self.problem(name, origin, message, ""),
                None => {}
            }
        }
        self.problem(path, origin, "unknown key".to_owned(), &nearest(path));
    }

    fn problem(&mut self, key: &str, origin: Origin, message: String, hint: &str) {
        self.problems.push(Problem { key: key.to_owned(), origin, message, hint: hint.to_owned() });
    }

    fn finish(mut self, file: Option<PathBuf>) -> Result<Loaded, ConfigError> {
        // A value that could not be read leaves its default: judging combinations then would blame the wrong key.
        if self.problems.is_empty() {
            for (key, message, hint) in validate::problems(&self.config) {
                let origin = self.origins.get(key).cloned().unwrap_or(Origin::Default);
                self.problem(key, origin, message, &hint);
            }
        }
        if !self.problems.is_empty() {
            return Err(ConfigError::Invalid(self.problems));
        }
        let settings = self
            .config
            .shown()
            .into_iter()
            .map(|shown| Setting {
                path: shown.path,
                value: shown.value,
                origin: self.origins.get(shown.path).cloned().unwrap_or(Origin::Default),
            })
            .collect();
        Ok(Loaded { config: self.config, settings, file })
    }

    /// Replaces `${VAR}` and `${VAR:-default}` in texts; `$${` stands for a plain `${`.
    fn expand(&self, raw: &Raw) -> Result<Raw, String> {
        match raw {
            Raw::Text(text) => self.expand_text(text).map(Raw::Text),
            Raw::List(items) => {
                items.iter().map(|item| self.expand(item)).collect::<Result<_, _>>().map(Raw::List)
            }
            other => Ok(other.clone()),
        }
    }

    fn expand_text(&self, text: &str) -> Result<String, String> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            let (before, from) = rest.split_at(at);
            let after = from.strip_prefix("${").unwrap_or(from);
            if let Some(escaped) = before.strip_suffix('$') {
                out.push_str(escaped);
                out.push_str("${");
                rest = after;
                continue;
            }
            out.push_str(before);
            let Some((inside, tail)) = after.split_once('}') else {
                return Err(format!("{text:?} has a ${{ without its }}"));
            };
            out.push_str(&self.variable(inside)?);
            rest = tail;
        }
        out.push_str(rest);
        Ok(out)
    }

    fn variable(&self, inside: &str) -> Result<String, String> {
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        let value = self.env.get(name).map(String::as_str).filter(|value| !value.is_empty());
        value.or(default).map(str::to_owned).ok_or_else(|| {
            format!("environment variable {name} is not set; ${{{name}:-value}} gives it a default")
        })
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

/// The key that was probably meant, or nothing.
fn nearest(path: &str) -> String {
    let field = path.rsplit('.').next().unwrap_or(path);
    let far = (path.chars().count() / 3).max(2);
    BrokerConfig::SECTIONS
        .iter()
        .map(|section| (strsim::damerau_levenshtein(path, section), (*section).to_owned()))
        .chain(BrokerConfig::keys().into_iter().flat_map(|(_, _, keys)| keys).map(|key| {
            let own = key.path.rsplit('.').next().unwrap_or(key.path);
            // The right name in the wrong section is one step away.
            let by_field = strsim::damerau_levenshtein(field, own) + 1;
            (strsim::damerau_levenshtein(path, key.path).min(by_field), key.path.to_owned())
        }))
        .min()
        .filter(|(distance, _)| *distance <= far)
        .map(|(_, name)| name)
        .unwrap_or_default()
}
