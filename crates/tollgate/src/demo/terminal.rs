//! What the demo prints: plain lines of at most 100 columns, with colour where a terminal shows it.

use std::io::{self, Write};

const WIDTH: usize = 100;
const INDENT: &str = "    ";

/// Where the demo prints.
pub(super) struct Terminal {
    out: Box<dyn Write + Send>,
    colour: bool,
    /// Columns used in the line that is being streamed, 0 before it begins.
    column: usize,
}

/// How a text stands out.
#[derive(Debug, Clone, Copy)]
enum Style {
    Bold,
    Dim,
    Good,
    Bad,
    Command,
}

impl Terminal {
    pub(super) fn new(out: Box<dyn Write + Send>, colour: bool) -> Self {
        Self { out, colour, column: 0 }
    }

    /// A title over everything.
    pub(super) fn title(&mut self, text: &str) -> io::Result<()> {
        self.line("", Style::Bold, text)
    }

    /// The start of a part.
    pub(super) fn heading(&mut self, text: &str) -> io::Result<()> {
        self.blank()?;
        self.line("", Style::Bold, text)
    }

    /// A sentence.
    pub(super) fn say(&mut self, text: &str) -> io::Result<()> {
        for line in wrapped(text, WIDTH - INDENT.len()) {
            writeln!(self.out, "{INDENT}{line}")?;
        }
        self.out.flush()
    }

    /// What went over the wire, and what came back.
    pub(super) fn exchange(&mut self, request: &str, status: u16, what: &str) -> io::Result<()> {
        let style = if status < 400 { Style::Good } else { Style::Bad };
        let (request, status) =
            (self.styled(Style::Dim, &format!("{request:<44}")), self.styled(style, &status.to_string()));
        writeln!(self.out, "{INDENT}{request} {status}  {what}")?;
        self.out.flush()
    }

    /// A name and its value.
    pub(super) fn fact(&mut self, name: &str, value: &str) -> io::Result<()> {
        let name = self.styled(Style::Dim, &format!("{name:<16}"));
        self.beside(&name, &" ".repeat(16), value)
    }

    /// Something to type into a shell. Not wrapped: it is to be copied.
    pub(super) fn command(&mut self, text: &str) -> io::Result<()> {
        for line in text.lines() {
            self.line(INDENT, Style::Command, line)?;
        }
        Ok(())
    }

    /// A promise that was kept.
    pub(super) fn kept(&mut self, text: &str) -> io::Result<()> {
        let mark = self.styled(Style::Good, "ok");
        self.beside(&mark, "  ", text)
    }

    /// A promise that was not.
    pub(super) fn broken(&mut self, text: &str) -> io::Result<()> {
        self.blank()?;
        self.line("", Style::Bad, text)
    }

    /// The next words of a text that is still being written; breaks lines, but never waits for one.
    pub(super) fn stream(&mut self, text: &str) -> io::Result<()> {
        for word in text.split_inclusive(' ') {
            // A space is written before the word that follows it, so that no line ends with one.
            let (word, length) = (word.trim_end(), word.trim_end().chars().count());
            let fits = self.column + 1 + length <= WIDTH;
            match self.column {
                0 => write!(self.out, "{INDENT}{INDENT}{word}")?,
                _ if fits => write!(self.out, " {word}")?,
                _ => write!(self.out, "\n{INDENT}{INDENT}{word}")?,
            }
            self.column = if self.column > 0 && fits { self.column + 1 } else { 2 * INDENT.len() } + length;
        }
        self.out.flush()
    }

    /// The streamed text has ended.
    pub(super) fn end_stream(&mut self) -> io::Result<()> {
        self.column = 0;
        self.blank()
    }

    /// Rows under a head; the columns named in `right` are numbers.
    pub(super) fn table(&mut self, head: &[&str], rows: &[Vec<String>], right: &[usize]) -> io::Result<()> {
        let width = |column: usize| {
            let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            cells.chain([head.get(column).map_or(0, |name| name.len())]).max().unwrap_or(0)
        };
        let line = |cells: &[String]| {
            let padded = cells.iter().enumerate().map(|(column, cell)| {
                let width = width(column);
                if right.contains(&column) { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
            });
            padded.collect::<Vec<_>>().join("   ").trim_end().to_owned()
        };
        let head: Vec<_> = head.iter().map(|&name| name.to_owned()).collect();
        self.line(INDENT, Style::Dim, &line(&head))?;
        for row in rows {
            writeln!(self.out, "{INDENT}{}", line(row))?;
        }
        self.out.flush()
    }

    pub(super) fn blank(&mut self) -> io::Result<()> {
        writeln!(self.out)?;
        self.out.flush()
    }

    /// A text with something before its first line, which is as wide as `blank`.
    fn beside(&mut self, before: &str, blank: &str, text: &str) -> io::Result<()> {
        let mut before = before;
        for line in wrapped(text, WIDTH - INDENT.len() - blank.len() - 2) {
            writeln!(self.out, "{INDENT}{before}  {line}")?;
            before = blank;
        }
        self.out.flush()
    }

    fn line(&mut self, indent: &str, style: Style, text: &str) -> io::Result<()> {
        let text = self.styled(style, text);
        writeln!(self.out, "{indent}{text}")?;
        self.out.flush()
    }

    fn styled(&self, style: Style, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let code = match style {
            Style::Bold => "1",
            Style::Dim => "2",
            Style::Good => "32",
            Style::Bad => "31",
            Style::Command => "36",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn printed(colour: bool, print: impl FnOnce(&mut Terminal) -> io::Result<()>) -> String {
        let paper = Paper::default();
        print(&mut Terminal::new(Box::new(paper.clone()), colour)).unwrap();
        let bytes = paper.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn nothing_that_is_said_or_streamed_is_wider_than_a_hundred_columns() {
        let text = "seventeen letters ".repeat(40);
        let said = printed(false, |terminal| terminal.say(&text));
        let streamed = printed(false, |terminal| {
            for word in text.split_inclusive(' ') {
                terminal.stream(word)?;
            }
            terminal.end_stream()
        });
        for output in [said, streamed] {
            assert!(output.lines().count() > 5);
            assert!(output.lines().all(|line| line.chars().count() <= WIDTH && !line.ends_with(' ')), "{output}");
        }
    }

    #[test]
    fn without_colour_there_is_no_escape_and_with_it_there_is() {
        let print = |terminal: &mut Terminal| {
            terminal.title("t")?;
            terminal.exchange("GET /", 404, "nothing")?;
            terminal.kept("yes")?;
            terminal.command("ls")
        };
        assert!(!printed(false, print).contains('\x1b'));
        assert!(printed(true, print).contains("\x1b[31m404\x1b[0m"));
    }

    #[test]
    fn columns_of_a_table_stand_under_each_other() {
        let rows = [vec!["ada".to_owned(), "$0.5".to_owned()], vec!["cole c".to_owned(), "$12".to_owned()]];
        let table = printed(false, |terminal| terminal.table(&["who", "spent"], &rows, &[1]));
        assert_eq!(table, "    who      spent\n    ada       $0.5\n    cole c     $12\n");
    }
}
