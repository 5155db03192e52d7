//! The forms of `-o`: one command makes a [`View`], this file prints it.

use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use serde_json::{Map, Value, json};

use crate::exit::Failure;
use crate::terminal;
use crate::yaml::to_yaml;

/// Version of the JSON that `-o json|yaml|ndjson` prints; raised when a field goes or changes its meaning.
const SCHEMA_VERSION: u32 = 1;

/// What `-o` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns for people; never cut when piped
    Table,
    /// The same with more columns
    Wide,
    /// One JSON document
    Json,
    /// One YAML document
    Yaml,
    /// One JSON object a line
    Ndjson,
    /// Names only, one a line
    Name,
    /// Values only, each followed by the delimiter (consume)
    Value,
    /// The fields of this command's JSON, and nothing else
    Help,
}

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    title: &'static str,
    right: bool,
    wide: bool,
}

impl Column {
    /// Text.
    pub(crate) const fn text(title: &'static str) -> Self {
        Self { title, right: false, wide: false }
    }

    /// A number.
    pub(crate) const fn number(title: &'static str) -> Self {
        Self { title, right: true, wide: false }
    }

    /// Only with `-o wide`.
    pub(crate) const fn wide(self) -> Self {
        Self { wide: true, ..self }
    }
}

/// What a command shows: names, columns, and the fields of its JSON with their meaning.
#[derive(Debug)]
pub(crate) struct Kind {
    /// Key of the list in JSON.
    pub(crate) many: &'static str,
    pub(crate) columns: &'static [Column],
    /// Name, type, meaning.
    pub(crate) fields: &'static [(&'static str, &'static str, &'static str)],
}

/// One thing shown.
#[derive(Debug)]
pub(crate) struct Row {
    /// For `-o name` and `-q`.
    pub(crate) name: String,
    /// One for each column.
    pub(crate) cells: Vec<String>,
    /// The JSON object.
    pub(crate) json: Value,
}

/// The result of a command.
#[derive(Debug)]
pub(crate) struct View {
    kind: &'static Kind,
    rows: Vec<Row>,
    single: bool,
    detail: Option<String>,
    notes: Vec<String>,
}

impl View {
    /// A list of things.
    pub(crate) fn list(kind: &'static Kind, rows: Vec<Row>) -> Self {
        Self { kind, rows, single: false, detail: None, notes: Vec::new() }
    }

    /// One thing: its JSON is the object itself.
    pub(crate) fn one(kind: &'static Kind, row: Row) -> Self {
        Self { single: true, ..Self::list(kind, vec![row]) }
    }

    /// Text that stands in place of the table.
    pub(crate) fn detail(mut self, text: String) -> Self {
        self.detail = Some(text);
        self
    }

    /// A line for people, on standard error: warnings and the next useful command.
    pub(crate) fn note(mut self, line: impl Into<String>) -> Self {
        self.notes.push(line.into());
        self
    }
}

/// Prints views in the form that was asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    format: Format,
    quiet: bool,
}

impl Output {
    pub(crate) fn new(format: Option<Format>, quiet: bool) -> Self {
        let default = if quiet { Format::Name } else { Format::Table };
        Self { format: format.unwrap_or(default), quiet }
    }

    /// True if the output is for people: tables and the lines around them.
    pub(crate) fn is_for_people(self) -> bool {
        !self.quiet && matches!(self.format, Format::Table | Format::Wide)
    }

    /// With `-o help`: prints the fields and returns true; the command then does nothing else.
    pub(crate) fn explain(self, kind: &Kind) -> Result<bool, Failure> {
        if self.format != Format::Help {
            return Ok(false);
        }
        let mut table = plain_table();
        table.set_header(["FIELD", "TYPE", "MEANING"]);
        for (name, kind, meaning) in kind.fields {
            table.add_row([*name, *kind, *meaning]);
        }
        let mut out = io::stdout().lock();
        writeln!(out, "{}", text_of(table))?;
        writeln!(
            out,
            "\nschema version {SCHEMA_VERSION}; -o json of a list is {{\"schema_version\", {:?}: […]}}",
            kind.many
        )?;
        Ok(true)
    }

    /// Prints a view.
    pub(crate) fn show(self, view: View) -> Result<(), Failure> {
        debug_assert!(fields_are_documented(&view), "every JSON field of {} is in its list", view.kind.many);
        let mut out = io::stdout().lock();
        match self.format {
            Format::Table | Format::Wide => {
                let text = match view.detail {
                    Some(text) => text,
                    None => render(view.kind, &view.rows, self.format == Format::Wide),
                };
                writeln!(out, "{text}")?;
            }
            Format::Json => writeln!(out, "{:#}", document(view.kind, view.rows, view.single))?,
            Format::Yaml => write!(out, "{}", to_yaml(&document(view.kind, view.rows, view.single)))?,
            Format::Ndjson => {
                for row in view.rows {
                    writeln!(out, "{}", row.json)?;
                }
            }
            Format::Name => {
                for row in view.rows {
                    writeln!(out, "{}", row.name)?;
                }
            }
            Format::Value | Format::Help => {
                return Err(Failure::usage(
                    "-o value is for consume",
                    "use table, wide, json, yaml, ndjson or name",
                ));
            }
        }
        out.flush()?;
        drop(out);
        if !self.quiet && matches!(self.format, Format::Table | Format::Wide) {
            for line in view.notes {
                terminal::note(&line);
            }
        }
        Ok(())
    }
}

fn fields_are_documented(view: &View) -> bool {
    view.rows.iter().all(|row| match &row.json {
        Value::Object(map) => map.keys().all(|key| view.kind.fields.iter().any(|(name, ..)| name == key)),
        _ => false,
    })
}

fn document(kind: &Kind, mut rows: Vec<Row>, single: bool) -> Value {
    match rows.pop() {
        Some(row) if single => {
            let mut json = row.json;
            if let Value::Object(map) = &mut json {
                map.insert("schema_version".to_owned(), SCHEMA_VERSION.into());
            }
            json
        }
        last => {
            rows.extend(last);
            let items: Vec<Value> = rows.into_iter().map(|row| row.json).collect();
            let mut map = Map::new();
            map.insert("schema_version".to_owned(), json!(SCHEMA_VERSION));
            map.insert(kind.many.to_owned(), Value::Array(items));
            Value::Object(map)
        }
    }
}

/// Columns with two spaces between them; wrapped to the width of a terminal, never cut.
pub(crate) fn render(kind: &Kind, rows: &[Row], wide: bool) -> String {
    let shown: Vec<usize> = (0..kind.columns.len()).filter(|i| wide || !kind.columns[*i].wide).collect();
    let mut table = plain_table();
    table.set_header(shown.iter().map(|i| kind.columns[*i].title));
    for row in rows {
        table.add_row(shown.iter().map(|i| row.cells.get(*i).map_or("", String::as_str)));
    }
    for (position, i) in shown.iter().enumerate() {
        if kind.columns[*i].right
            && let Some(column) = table.column_mut(position)
        {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    text_of(table)
}

fn plain_table() -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    if io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    table
}

fn text_of(mut table: Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind = Kind {
        many: "things",
        columns: &[Column::text("NAME"), Column::number("SIZE"), Column::text("ID").wide()],
        fields: &[("name", "string", "what it is called"), ("size", "number", "how large it is")],
    };

    fn rows() -> Vec<Row> {
        [("a", 5), ("long name", 12_345)]
            .map(|(name, size)| Row {
                name: name.into(),
                cells: vec![name.into(), size.to_string(), "x".into()],
                json: json!({"name": name, "size": size}),
            })
            .into()
    }

    #[test]
    fn a_table_is_aligned_and_nothing_is_cut() {
        assert_eq!(render(&KIND, &rows(), false), "NAME        SIZE\na              5\nlong name  12345");
        assert!(render(&KIND, &rows(), true).starts_with("NAME        SIZE  ID\n"));
    }

    #[test]
    fn a_list_is_versioned_and_keyed_by_its_kind() {
        let list = document(&KIND, rows(), false);
        assert_eq!(list["schema_version"], 1);
        assert_eq!(list["things"][1]["name"], "long name");
        assert_eq!(document(&KIND, Vec::new(), false)["things"], json!([]));
    }

    #[test]
    fn one_thing_is_the_object_itself() {
        let one = document(&KIND, rows().into_iter().take(1).collect(), true);
        assert_eq!(one, json!({"name": "a", "size": 5, "schema_version": 1}));
    }

    #[test]
    fn quiet_means_names() {
        assert_eq!(Output::new(None, true).format, Format::Name);
        assert_eq!(Output::new(Some(Format::Json), true).format, Format::Json);
        assert!(!Output::new(Some(Format::Table), true).is_for_people());
    }
}
