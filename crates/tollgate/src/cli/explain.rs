//! `tollgate explain`: what one person receives and may use, and why.

use std::process::ExitCode;

use anyhow::Context as _;

use super::{ConfigFile, check, say, tell};
use crate::boot::{self, Who};
use crate::config::{self, Environment};

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    file: ConfigFile,
    /// The person's e-mail address.
    #[arg(long, value_name = "EMAIL")]
    user: Option<String>,
    /// The person's groups, as the identity provider would list them; `\\,` is a comma in a name.
    #[arg(long, value_name = "GROUPS", value_parser = groups)]
    groups: Vec<Groups>,
    /// The person's subject at the identity provider: tells the caps in force, when the database can be reached.
    #[arg(long, value_name = "SUB")]
    sub: Option<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone)]
struct Groups(Vec<String>);

/// A list with commas; a backslash before a comma keeps it in the name.
fn groups(text: &str) -> Result<Groups, String> {
    let mut names = vec![String::new()];
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match (letter, names.last_mut()) {
            ('\\', Some(name)) if letters.peek() == Some(&',') => name.extend(letters.next()),
            (',', _) => names.push(String::new()),
            (letter, Some(name)) => name.push(letter),
            (_, None) => {}
        }
    }
    names.retain(|name| !name.is_empty());
    Ok(Groups(names))
}

pub(super) fn run(options: Options) -> anyhow::Result<ExitCode> {
    let loaded = match config::load(&options.file.config, &Environment::from_process()) {
        Ok(loaded) => loaded,
        Err(problems) => {
            if options.json {
                say(&format!("{:#}", check::report(&problems.file, &problems.problems, &problems.warnings)));
            } else {
                tell(&problems.to_string());
            }
            return Ok(ExitCode::FAILURE);
        }
    };
    let groups = options.groups.into_iter().flat_map(|Groups(names)| names).collect();
    let who = Who { email: options.user, groups, sub: options.sub };
    let runtime = tokio::runtime::Runtime::new().context("the runtime cannot be started")?;
    let explained = runtime.block_on(boot::explain(loaded, who))?;
    if options.json {
        say(&serde_json::to_string_pretty(&explained).context("an explanation that is no JSON")?);
    } else {
        say(explained.to_string().trim_end());
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::groups;

    #[test]
    fn groups_are_split_at_commas_that_stand_alone() {
        let split = |text: &str| groups(text).map(|names| names.0).unwrap_or_default();
        assert_eq!(split("eng,ops"), ["eng", "ops"]);
        assert_eq!(split("cn=eng\\,dc=x,ops,"), ["cn=eng,dc=x", "ops"]);
        assert_eq!(split(""), [""; 0]);
    }
}
