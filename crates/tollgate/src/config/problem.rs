//! Problems and warnings: what is wrong with a configuration file, where, and what to write instead.
//!
//! Knows how to say it and how to guess what was meant; knows no key. Messages never carry a secret: a value that came out
//! of `${...}` is not shown, and readers of secret fields show none at all.

use std::cell::RefCell;
use std::fmt;
use std::path::PathBuf;

use wire::shape::distance;

/// One thing to say about the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// The field, in dots and brackets (`upstreams[0].auth.api_key`); empty for the file as a whole.
    pub path: String,
    /// Line of the field, from 1; `None` when nothing in the file stands for it.
    pub line: Option<usize>,
    /// What is wrong and what to write instead.
    pub message: String,
}

/// A reason not to start.
pub type Problem = Remark;

/// Something that starts all the same, and that the operator should know.
pub type Warning = Remark;

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.path.as_str(), self.line) {
            ("", None) => write!(f, "{}", self.message),
            ("", Some(line)) => write!(f, "line {line}: {}", self.message),
            (path, None) => write!(f, "{path}: {}", self.message),
            (path, Some(line)) => write!(f, "{path} (line {line}): {}", self.message),
        }
    }
}

/// Every problem of a file at once. As text: a heading, then one indented line for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems {
    /// The file, as named on the command line.
    pub file: PathBuf,
    /// In the order of the file; never empty.
    pub problems: Vec<Problem>,
    /// What else is to be known of it. Not part of the text.
    pub warnings: Vec<Warning>,
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.problems.len();
        let noun = if count == 1 { "problem" } else { "problems" };
        write!(f, "tollgate: {count} {noun} in {}:", self.file.display())?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl std::error::Error for Problems {}

/// Nobody reads more at once.
const MOST: usize = 200;

/// Collects what the readers find, so that one reading tells everything.
#[derive(Debug, Default)]
pub(super) struct Report {
    problems: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Warning>>,
}

impl Report {
    pub(super) fn problem(&self, path: &str, line: Option<usize>, message: impl Into<String>) {
        let problem = Remark { path: path.to_owned(), line, message: message.into() };
        let mut problems = self.problems.borrow_mut();
        // An anchor that is wrong is wrong at each of its aliases, but one line of the file is told once.
        if problems.len() < MOST && !problems.contains(&problem) {
            problems.push(problem);
        }
    }

    pub(super) fn warning(&self, path: &str, line: Option<usize>, message: impl Into<String>) {
        self.warnings.borrow_mut().push(Remark { path: path.to_owned(), line, message: message.into() });
    }

    pub(super) fn is_clean(&self) -> bool {
        self.problems.borrow().is_empty()
    }

    /// The problems and the warnings, each in the order of the file.
    pub(super) fn finish(self) -> (Vec<Problem>, Vec<Warning>) {
        let mut problems = self.problems.into_inner();
        let mut warnings = self.warnings.into_inner();
        problems.sort_by_key(|problem| problem.line);
        warnings.sort_by_key(|warning| warning.line);
        (problems, warnings)
    }
}

/// The candidate that `written` was most likely meant to be: the nearest one, when it is near enough to be a slip.
pub(super) fn did_you_mean<'c>(written: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    let written = written.to_ascii_lowercase();
    let slips = match written.chars().count() {
        0..=2 => 0,
        3..=5 => 1,
        6..=9 => 2,
        _ => 3,
    };
    candidates
        .filter_map(|candidate| Some((distance(&written, candidate, slips)?, candidate)))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::{Problems, Remark, did_you_mean};

    #[test]
    fn a_slip_of_the_finger_is_recognised_and_another_word_is_not() {
        let keys = ["host", "port", "public_url", "trusted_proxies"];
        for (written, meant) in [
            ("prot", Some("port")),
            ("hosst", Some("host")),
            ("PORT", Some("port")),
            ("publicurl", Some("public_url")),
            ("trusted_proxy", Some("trusted_proxies")),
            ("timeout", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(did_you_mean(written, keys.into_iter()), meant, "{written}");
        }
    }

    #[test]
    fn a_list_of_problems_has_a_heading_and_a_line_for_each() {
        let remark = |path: &str, line, message: &str| Remark { path: path.into(), line, message: message.into() };
        let problems = Problems {
            file: "gateway.yaml".into(),
            problems: vec![
                remark("", None, "the file is empty"),
                remark("oidc", None, "missing"),
                remark("listen.prot", Some(3), "unknown key; did you mean port?"),
                remark("", Some(9), "not YAML"),
            ],
            warnings: Vec::new(),
        };
        assert_eq!(
            problems.to_string(),
            "tollgate: 4 problems in gateway.yaml:\n  the file is empty\n  oidc: missing\n  \
             listen.prot (line 3): unknown key; did you mean port?\n  line 9: not YAML"
        );
    }
}
