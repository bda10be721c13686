//! `tollgate check`: everything wrong and doubtful in a configuration.

use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::{ConfigFile, say, tell};
use crate::boot;
use crate::config::{self, Environment, Problems, Remark};

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    file: ConfigFile,
    /// Print one JSON object: `file`, `problems` and `warnings`, each with `path`, `line` and `message`.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let found = match config::load(&options.file.config, &Environment::from_process()) {
        Ok(loaded) => {
            let file = loaded.path.clone();
            let (problems, warnings) = match boot::check(loaded) {
                Ok(warnings) => (Vec::new(), warnings),
                Err(error) => {
                    (vec![Remark { path: String::new(), line: None, message: format!("{error:#}") }], Vec::new())
                }
            };
            Problems { file, problems, warnings }
        }
        Err(problems) => problems,
    };
    if options.json {
        say(&format!("{:#}", report(&found.file, &found.problems, &found.warnings)));
    } else {
        for warning in &found.warnings {
            say(&format!("warning: {warning}"));
        }
        match found.problems.as_slice() {
            [] => say(&format!("{}: no problems, {} warning(s)", found.file.display(), found.warnings.len())),
            _ => tell(&found.to_string()),
        }
    }
    Ok(if found.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What was found in a file, for machines.
pub(super) fn report(file: &Path, problems: &[Remark], warnings: &[Remark]) -> Value {
    let remark = |remark: &Remark| json!({"path": remark.path, "line": remark.line, "message": remark.message});
    json!({
        "file": file.display().to_string(),
        "problems": problems.iter().map(remark).collect::<Vec<_>>(),
        "warnings": warnings.iter().map(remark).collect::<Vec<_>>(),
    })
}
