//! Rust source as far as the architecture needs it: which paths a file names, outside comments, strings and test modules.

/// A path that a file names, such as `control::policy::Policies`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reference {
    /// Segments as written, use trees expanded; a glob ends in `*`.
    pub(super) path: Vec<String>,
    /// Inline modules around it, outermost first.
    pub(super) inside: Vec<String>,
    /// From 1.
    pub(super) line: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    /// `::`
    Sep,
    Mark(char),
}

/// Every path in the text.
pub(super) fn references(text: &str) -> Vec<Reference> {
    let mut reader = Reader { tokens: tokens(text), at: 0, depth: 0, inside: Vec::new(), found: Vec::new() };
    reader.read();
    reader.found
}

struct Reader {
    tokens: Vec<(Token, usize)>,
    at: usize,
    depth: usize,
    /// Names of the inline modules that are open, with the depth of their brace.
    inside: Vec<(String, usize)>,
    found: Vec<Reference>,
}

impl Reader {
    fn peek(&self, ahead: usize) -> Option<&Token> {
        self.tokens.get(self.at + ahead).map(|(token, _)| token)
    }

    fn read(&mut self) {
        while let Some(token) = self.peek(0).cloned() {
            match token {
                Token::Word(word) if word == "mod" && self.peek(2) == Some(&Token::Mark('{')) => self.open_module(),
                Token::Word(_) => self.tree(Vec::new()),
                Token::Mark('.') if matches!(self.peek(1), Some(Token::Word(_))) => self.at += 2, // a field or a method
                Token::Mark('{') => self.step(1),
                Token::Mark('}') => self.close(),
                Token::Mark(_) | Token::Sep => self.at += 1,
            }
        }
    }

    fn step(&mut self, deeper: usize) {
        self.depth += deeper;
        self.at += 1;
    }

    fn open_module(&mut self) {
        let Some(Token::Word(name)) = self.peek(1).cloned() else { return self.at += 1 };
        self.at += 2;
        if name == "tests" { self.skip_block() } else { self.inside.push((name, self.depth)) }
    }

    fn close(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        self.inside.retain(|(_, depth)| *depth < self.depth);
        self.at += 1;
    }

    fn skip_block(&mut self) {
        let mut open = 0_usize;
        while let Some(token) = self.peek(0) {
            open = match token {
                Token::Mark('{') => open + 1,
                Token::Mark('}') => open - 1,
                _ => open,
            };
            self.at += 1;
            if open == 0 {
                return;
            }
        }
    }

    /// Reads the path or use tree that begins here.
    fn tree(&mut self, mut path: Vec<String>) {
        match self.peek(0).cloned() {
            Some(Token::Word(word)) => {
                path.push(word);
                self.at += 1;
                let goes_on = matches!(self.peek(1), Some(Token::Word(_) | Token::Mark('{' | '*')));
                if self.peek(0) == Some(&Token::Sep) && goes_on {
                    self.at += 1;
                    return self.tree(path);
                }
            }
            Some(Token::Mark('{')) => return self.group(&path),
            _ => {
                path.push("*".to_owned());
                self.at += 1;
            }
        }
        if path.last().is_some_and(|last| last == "self") && path.len() > 1 {
            path.pop();
        }
        let inside = self.inside.iter().map(|(name, _)| name.clone()).collect();
        let line = self.tokens[self.at - 1].1;
        self.found.push(Reference { path, inside, line });
    }

    fn group(&mut self, prefix: &[String]) {
        self.at += 1;
        while let Some(token) = self.peek(0).cloned() {
            match token {
                Token::Mark('}') => return self.at += 1,
                Token::Mark(',') => self.at += 1,
                Token::Word(word) if word == "as" => self.at += 2,
                _ => self.tree(prefix.to_vec()),
            }
        }
    }
}

fn tokens(text: &str) -> Vec<(Token, usize)> {
    let chars: Vec<char> = text.chars().collect();
    let (mut at, mut line, mut tokens) = (0, 1, Vec::new());
    while at < chars.len() {
        let (token, end) = token(&chars, at);
        tokens.extend(token.map(|token| (token, line)));
        line += chars[at..end].iter().filter(|&&c| c == '\n').count();
        at = end;
    }
    tokens
}

/// The token at `at`, if what stands there is one, and where the next begins.
fn token(chars: &[char], at: usize) -> (Option<Token>, usize) {
    let is = |ahead: usize, c: char| chars.get(at + ahead) == Some(&c);
    match chars[at] {
        '/' if is(1, '/') => (None, find(chars, at, "\n")),
        '/' if is(1, '*') => (None, end_of_comment(chars, at)),
        '"' => (None, end_of_string(chars, at + 1, '"')),
        '\'' if is(1, '\\') || is(2, '\'') => (None, end_of_string(chars, at + 1, '\'')),
        ':' if is(1, ':') => (Some(Token::Sep), at + 2),
        c if c.is_alphabetic() || c == '_' => {
            let length = chars[at..].iter().take_while(|c| c.is_alphanumeric() || **c == '_').count();
            let word: String = chars[at..at + length].iter().collect();
            let hashes = chars[at + length..].iter().take_while(|&&c| c == '#').count();
            let quote = at + length + hashes;
            if matches!(word.as_str(), "r" | "br" | "cr") && chars.get(quote) == Some(&'"') {
                return (None, find(chars, quote + 1, &format!("\"{}", "#".repeat(hashes))));
            }
            (Some(Token::Word(word)), at + length)
        }
        c if c.is_whitespace() => (None, at + 1),
        c => (Some(Token::Mark(c)), at + 1),
    }
}

/// Just behind the next `needle`, or the end.
fn find(chars: &[char], from: usize, needle: &str) -> usize {
    let needle: Vec<char> = needle.chars().collect();
    let hit = chars[from..].windows(needle.len()).position(|window| window == needle);
    hit.map_or(chars.len(), |offset| from + offset + needle.len())
}

/// Behind the closing quote of a literal whose content starts at `at`.
fn end_of_string(chars: &[char], mut at: usize, quote: char) -> usize {
    while at < chars.len() && chars[at] != quote {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

fn end_of_comment(chars: &[char], mut at: usize) -> usize {
    let mut open = 0_usize;
    while at + 1 < chars.len() {
        match (chars[at], chars[at + 1]) {
            ('/', '*') => (open, at) = (open + 1, at + 2),
            ('*', '/') => (open, at) = (open - 1, at + 2),
            _ => at += 1,
        }
        if open == 0 {
            return at;
        }
    }
    chars.len()
}

#[test]
fn paths_are_found_in_use_trees_and_in_code_but_not_in_text() {
    let text = r##"
        //! control::comment
        use crate::{audit::{self, Event}, policy::*, store::Store as Db};
        /* proxy::a /* proxy::b */ */
        fn f<'a>(x: &'a control::identity::Principal) -> Option<wire::Model> {
            let text = "proxy::c \" proxy::d"; let raw = r#"proxy::e " "#; let c = '"'; let d = '\'';
            x.control.store::<u8>(); std::env::var("X"); Vec::<proxy::Upstream>::new()
        }
        mod inner { use super::super::limit; }
        mod tests { use proxy::f; fn g() {} }
        fn h() { self::limit::last() }
    "##;
    let found = references(text);
    let long: Vec<_> = found.iter().filter(|found| found.path.len() > 1).map(|found| found.path.join("::")).collect();
    assert_eq!(
        long,
        [
            "crate::audit",
            "crate::audit::Event",
            "crate::policy::*",
            "crate::store::Store",
            "control::identity::Principal",
            "wire::Model",
            "std::env::var",
            "proxy::Upstream",
            "super::super::limit",
            "self::limit::last",
        ]
    );
    let inner = found.iter().find(|found| found.path[0] == "super").map(|found| (found.inside.clone(), found.line));
    assert_eq!(inner, Some((vec!["inner".to_owned()], 9)));
}
