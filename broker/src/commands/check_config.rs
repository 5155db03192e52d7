//! `altair check-config`: what would this broker run with, and why.

use std::io::Write as _;
use std::process::ExitCode;

use broker::config::{self, Loaded};
use clap::{Args, ValueEnum};

use super::config_args::ConfigArgs;
use super::{EXIT_USAGE, report};

/// Flags of `check-config`.
#[derive(Debug, Args)]
pub(crate) struct CheckConfigArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Shape of the output.
    #[arg(long, short, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Print the reference of every key (Markdown) and end.
    #[arg(long)]
    reference: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

/// Prints the configuration; exit code 2 if it is wrong.
pub(crate) fn run(args: &CheckConfigArgs) -> ExitCode {
    let text = if args.reference {
        config::reference()
    } else {
        match args.config.load() {
            Ok(loaded) if args.output == Output::Json => json(&loaded),
            Ok(loaded) => table(&loaded),
            Err(error) => {
                report(&error.into());
                return ExitCode::from(EXIT_USAGE);
            }
        }
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn table(loaded: &Loaded) -> String {
    let width = |of: &dyn Fn(&config::Setting) -> usize| loaded.settings.iter().map(of).max().unwrap_or(0);
    let (keys, values) = (width(&|s| s.path.len()), width(&|s| s.value.chars().count()).min(60));
    let mut text = format!("{:keys$}  {:values$}  ORIGIN\n", "KEY", "VALUE");
    for setting in &loaded.settings {
        text.push_str(&format!("{:keys$}  {:values$}  {}\n", setting.path, setting.value, setting.origin));
    }
    text
}

fn json(loaded: &Loaded) -> String {
    let settings: serde_json::Map<_, _> = loaded
        .settings
        .iter()
        .map(|setting| {
            let about = serde_json::json!({
                "value": setting.value,
                "origin": setting.origin.layer(),
                "source": setting.origin.to_string(),
            });
            (setting.path.to_owned(), about)
        })
        .collect();
    let file = loaded.file.as_ref().map(|path| path.display().to_string());
    format!("{:#}\n", serde_json::json!({ "file": file, "settings": settings }))
}
