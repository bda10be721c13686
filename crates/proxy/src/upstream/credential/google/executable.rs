//! A program that gives the token of another provider (<https://google.aip.dev/auth/4117>, "Determining the subject token from
//! an executable").

use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;
use serde_json::Value;

use super::{GoogleEnvironment, document};
use crate::upstream::credential::CredentialError;
use crate::upstream::credential::exchange::readable;
use crate::upstream::credential::program::{printed, said};

/// In milliseconds, where the file says nothing.
const USUAL: u64 = 30_000;
/// A request waits for it.
const LONGEST: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
pub(super) struct Executable {
    program: PathBuf,
    arguments: Vec<String>,
    variables: Vec<(&'static str, String)>,
    budget: Duration,
    /// Where the program leaves its answer for the next time.
    output: Option<PathBuf>,
}

impl Executable {
    /// # Errors
    /// A sentence.
    pub(super) fn read(from: &Value, environment: &GoogleEnvironment) -> Result<Self, String> {
        if !environment.allow_executables {
            let variable = "GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES=1";
            return Err(format!("it runs a program, which only {variable} allows"));
        }
        let written = &from["credential_source"]["executable"];
        let mut words = words(document::text(written, "command")?)?.into_iter();
        let program = words.next().map(PathBuf::from).filter(|program| program.is_absolute());
        let program = program.ok_or("executable.command must begin with an absolute path")?;
        readable(&program).map_err(|error| error.to_string())?;
        let timeout = &written["timeout_millis"];
        let timeout = if timeout.is_null() { Some(USUAL) } else { timeout.as_u64() };
        let timeout = timeout.filter(|timeout| (5_000..=120_000).contains(timeout));
        let timeout = timeout.ok_or("executable.timeout_millis must be a number from 5000 to 120000")?;
        let output = written["output_file"].as_str().map(PathBuf::from);
        Ok(Self {
            program,
            arguments: words.collect(),
            variables: variables(from, output.as_deref(), environment)?,
            budget: Duration::from_millis(timeout).min(LONGEST),
            output,
        })
    }

    /// # Errors
    /// Why there is none.
    pub(super) async fn subject_token(&self, now: i64) -> Result<SecretString, CredentialError> {
        if let Some(output) = &self.output
            && let Ok(kept) = tokio::fs::read(output).await
            && let Ok(token) = token(&kept, now)
        {
            return Ok(token);
        }
        let failed = |cause| CredentialError::Helper { program: self.program.display().to_string(), cause };
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        let variables = self.variables.iter().map(|(name, value)| (*name, value.as_str()));
        let mut answer = printed(&self.program, &arguments, variables, self.budget).await.map_err(failed)?;
        if let Some(output) = &self.output
            && answer.is_empty()
        {
            answer = tokio::fs::read(output).await.unwrap_or_default();
        }
        token(&answer, now).map_err(failed)
    }
}

/// The words of a command, as a shell cuts them: what stands in quotes is one, and a backslash takes a character as it is.
fn words(command: &str) -> Result<Vec<String>, &'static str> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut characters = command.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(open), _) if character == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => {
                word.get_or_insert_default().push(characters.next().ok_or("executable.command ends in a backslash")?);
            }
            (None, _) if character.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    if quote.is_some() {
        return Err("executable.command has a quote that is not closed");
    }
    words.extend(word);
    Ok(words)
}

/// What the program is told.
fn variables(
    from: &Value,
    output: Option<&Path>,
    environment: &GoogleEnvironment,
) -> Result<Vec<(&'static str, String)>, String> {
    let mut variables = environment.of_programs.clone();
    variables.push(("GOOGLE_EXTERNAL_ACCOUNT_AUDIENCE", document::text(from, "audience")?.to_owned()));
    variables.push(("GOOGLE_EXTERNAL_ACCOUNT_TOKEN_TYPE", document::text(from, "subject_token_type")?.to_owned()));
    variables.push(("GOOGLE_EXTERNAL_ACCOUNT_INTERACTIVE", "0".to_owned()));
    let account = from["service_account_impersonation_url"].as_str().and_then(|url| url.rsplit('/').next());
    if let Some((account, _)) = account.and_then(|account| account.split_once(':')) {
        variables.push(("GOOGLE_EXTERNAL_ACCOUNT_IMPERSONATED_EMAIL", account.to_owned()));
    }
    if let Some(output) = output {
        variables.push(("GOOGLE_EXTERNAL_ACCOUNT_OUTPUT_FILE", output.display().to_string()));
    }
    Ok(variables)
}

/// The token of an answer.
///
/// # Errors
/// Why it holds none: a sentence that shows nothing of it but its own error message.
fn token(answer: &[u8], now: i64) -> Result<SecretString, String> {
    let Ok(answer @ Value::Object(_)) = serde_json::from_slice(answer) else {
        return Err("it printed no JSON object".to_owned());
    };
    if answer["version"] != 1 {
        return Err("it speaks another version of the protocol than 1".to_owned());
    }
    if answer["success"] != true {
        let text = |name: &str| answer[name].as_str().unwrap_or_default();
        return Err(said(&format!("{}: {}", text("code"), text("message"))));
    }
    if answer["expiration_time"].as_i64().is_some_and(|ends| ends <= now) {
        return Err("its token has ended".to_owned());
    }
    let field = match answer["token_type"].as_str() {
        Some("urn:ietf:params:oauth:token-type:jwt" | "urn:ietf:params:oauth:token-type:id_token") => "id_token",
        Some("urn:ietf:params:oauth:token-type:saml2") => "saml_response",
        _ => return Err("it gives a token of an unknown token_type".to_owned()),
    };
    document::secret(&answer, field).ok_or_else(|| format!("it gives no {field}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_cut_as_a_shell_cuts_it() {
        for (command, expected) in [
            ("/a b  c ", &["/a", "b", "c"][..]),
            (r#""/my path/a" 'x "y" \z' \ b\"c """#, &["/my path/a", r#"x "y" \z"#, " b\"c", ""]),
            (r#"/a "b\"c""#, &["/a", r#"b"c"#]),
            ("", &[]),
        ] {
            assert_eq!(words(command).unwrap_or_default(), expected, "{command}");
        }
        assert!(words("/a 'b").is_err() && words("/a \\").is_err());
    }

    #[test]
    fn the_program_is_told_whom_the_token_is_for() {
        let from = serde_json::json!({
            "audience": "//pool", "subject_token_type": "jwt",
            "service_account_impersonation_url": "https://iam/v1/projects/-/serviceAccounts/a@b.c:generateAccessToken",
        });
        let environment = GoogleEnvironment { of_programs: vec![("HOME", "/h".to_owned())], ..Default::default() };
        let told = variables(&from, Some(Path::new("/out")), &environment).unwrap_or_default();
        let told: Vec<String> = told.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let expected = [
            "HOME=/h",
            "GOOGLE_EXTERNAL_ACCOUNT_AUDIENCE=//pool",
            "GOOGLE_EXTERNAL_ACCOUNT_TOKEN_TYPE=jwt",
            "GOOGLE_EXTERNAL_ACCOUNT_INTERACTIVE=0",
            "GOOGLE_EXTERNAL_ACCOUNT_IMPERSONATED_EMAIL=a@b.c",
            "GOOGLE_EXTERNAL_ACCOUNT_OUTPUT_FILE=/out",
        ];
        assert_eq!(told, expected);
    }
}
