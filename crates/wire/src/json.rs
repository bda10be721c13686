//! A JSON scanner that validates and finds spans in one pass, without building values.
//!
//! Accepts what `serde_json` accepts as ignored input (RFC 8259 grammar; the bytes inside strings need not be UTF-8 and
//! escaped surrogates need not pair), nested at most [`MAX_DEPTH`] deep. Uses no recursion.

use std::ops::Range;

use memchr::{memchr, memchr2};

/// Deeper nesting counts as invalid; it bounds the scanner's state, not its stack.
const MAX_DEPTH: usize = 256;

/// The bytes are not one JSON value, or it is nested too deep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Invalid;

/// One member of an object; spans are offsets into the document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    /// Where the key starts, at its quote.
    pub(crate) start: usize,
    /// The value, without the white space around it.
    pub(crate) value: Range<usize>,
    /// The comma before the member, where there is one.
    pub(crate) comma_before: Option<usize>,
    /// The comma after it.
    pub(crate) comma_after: Option<usize>,
}

/// Walks the members of a document that is one object and checks all of it. `visit` gets each key, still escaped and
/// without quotes. `Ok(false)`: valid, but no object.
pub(crate) fn members<'a>(doc: &'a [u8], visit: impl FnMut(&'a [u8], Member)) -> Result<bool, Invalid> {
    let mut scanner = Scanner { doc, at: 0 };
    let object = scanner.token()? == b'{';
    if object {
        scanner.members(visit)?;
    } else {
        scanner.value()?;
    }
    scanner.end().map(|()| object)
}

/// Walks the members of an object that starts here, whatever follows it.
pub(crate) fn members_ahead<'a>(doc: &'a [u8], visit: impl FnMut(&'a [u8], Member)) -> Result<(), Invalid> {
    let mut scanner = Scanner { doc, at: 0 };
    if scanner.token()? == b'{' { scanner.members(visit) } else { Err(Invalid) }
}

/// The value of a key in a document that is one valid object; the last one where the key is repeated.
pub(crate) fn get<'a>(doc: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut found = None;
    members(doc, |key, member| {
        if key_is(key, name) {
            found = Some(&doc[member.value]);
        }
    })
    .ok()?;
    found
}

/// The elements of a document that is one valid array; none where it is something else.
pub(crate) fn elements(doc: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    let mut scanner = Scanner { doc, at: 0 };
    if scanner.token() != Ok(b'[') {
        return found;
    }
    scanner.at += 1;
    while matches!(scanner.token(), Ok(byte) if byte != b']') {
        let from = scanner.at;
        if scanner.value().is_err() {
            return Vec::new();
        }
        found.push(&doc[from..scanner.at]);
        if scanner.token() == Ok(b',') {
            scanner.at += 1;
        }
    }
    found
}

/// Whether an escaped key means that name.
pub(crate) fn key_is(key: &[u8], name: &str) -> bool {
    key == name.as_bytes() || (memchr(b'\\', key).is_some() && unescape(key) == name)
}

/// The text of a value that is a string, quotes included; `None` for another type.
pub(crate) fn text(value: &[u8]) -> Option<String> {
    inner(value).map(unescape)
}

/// The bytes between the quotes of a value that is a string.
pub(crate) fn inner(value: &[u8]) -> Option<&[u8]> {
    value.strip_prefix(b"\"")?.strip_suffix(b"\"")
}

/// Decodes the escapes of a scanned string. Invalid UTF-8 and lone surrogates become U+FFFD.
pub(crate) fn unescape(escaped: &[u8]) -> String {
    let mut text = String::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some(at) = memchr(b'\\', rest) {
        text.push_str(&String::from_utf8_lossy(&rest[..at]));
        let (decoded, used) = escape(&rest[at..]);
        text.push(decoded);
        rest = rest.get(at + used..).unwrap_or_default();
    }
    text.push_str(&String::from_utf8_lossy(rest));
    text
}

/// The character of the escape that `rest` starts with, and how many bytes it takes.
fn escape(rest: &[u8]) -> (char, usize) {
    let simple = match rest.get(1) {
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => return unicode_escape(rest),
        Some(&other) => char::from(other),
        None => char::REPLACEMENT_CHARACTER,
    };
    (simple, 2)
}

fn unicode_escape(rest: &[u8]) -> (char, usize) {
    let unit = |at: usize| {
        let digits = rest.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let first = unit(0).unwrap_or(0xFFFD);
    if (0xD800..0xDC00).contains(&first)
        && let Some(second) = unit(6).filter(|second| (0xDC00..0xE000).contains(second))
    {
        let code = 0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00);
        return (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 12);
    }
    (char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER), 6)
}

struct Scanner<'a> {
    doc: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    /// Walks an object that starts at this token.
    fn members(&mut self, mut visit: impl FnMut(&'a [u8], Member)) -> Result<(), Invalid> {
        self.at += 1;
        if self.token()? == b'}' {
            self.at += 1;
            return Ok(());
        }
        let mut comma_before = None;
        loop {
            let key = self.key()?;
            let start = key.start - 1;
            self.token()?;
            let from = self.at;
            self.value()?;
            let value = from..self.at;
            let after = self.token()?;
            let comma_after = (after == b',').then_some(self.at);
            self.at += 1;
            visit(&self.doc[key], Member { start, value, comma_before, comma_after });
            match after {
                b',' => comma_before = comma_after,
                b'}' => return Ok(()),
                _ => return Err(Invalid),
            }
        }
    }

    /// The next byte that is not white space, left in place.
    fn token(&mut self) -> Result<u8, Invalid> {
        loop {
            match self.doc.get(self.at) {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                Some(byte) => return Ok(*byte),
                None => return Err(Invalid),
            }
        }
    }

    /// Nothing but white space is left.
    fn end(&mut self) -> Result<(), Invalid> {
        if self.token().is_err() { Ok(()) } else { Err(Invalid) }
    }

    /// Skips one value with the white space before it.
    fn value(&mut self) -> Result<(), Invalid> {
        let mut open = Containers::default();
        loop {
            match self.token()? {
                b'"' => {
                    self.string()?;
                }
                b'-' | b'0'..=b'9' => self.number()?,
                opening @ (b'{' | b'[') => {
                    self.at += 1;
                    open.push(opening == b'{')?;
                    if self.token()? == open.closing() {
                        self.at += 1;
                        open.pop();
                    } else {
                        if opening == b'{' {
                            self.key()?;
                        }
                        continue;
                    }
                }
                b't' => self.literal(b"true")?,
                b'f' => self.literal(b"false")?,
                b'n' => self.literal(b"null")?,
                _ => return Err(Invalid),
            }
            if !self.next_in(&mut open)? {
                return Ok(());
            }
        }
    }

    /// After a value: closes what ends here and steps to the next value. `false` when the outermost value is complete.
    fn next_in(&mut self, open: &mut Containers) -> Result<bool, Invalid> {
        while open.depth > 0 {
            let byte = self.token()?;
            self.at += 1;
            if byte == b',' {
                if open.in_object() {
                    self.key()?;
                }
                return Ok(true);
            }
            if byte != open.closing() {
                return Err(Invalid);
            }
            open.pop();
        }
        Ok(false)
    }

    /// Reads a key and its colon; the span is inside the quotes.
    fn key(&mut self) -> Result<Range<usize>, Invalid> {
        if self.token()? != b'"' {
            return Err(Invalid);
        }
        let key = self.string()?;
        if self.token()? != b':' {
            return Err(Invalid);
        }
        self.at += 1;
        Ok(key)
    }

    /// Skips a string that starts here; the span is inside the quotes.
    fn string(&mut self) -> Result<Range<usize>, Invalid> {
        self.at += 1;
        let start = self.at;
        loop {
            let rest = &self.doc[self.at..];
            let run = plain_run(rest)?;
            self.at += run;
            if rest[run] == b'"' {
                self.at += 1;
                return Ok(start..self.at - 1);
            }
            self.at += match rest.get(run + 1) {
                Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 2,
                Some(b'u') => {
                    let digits = rest.get(run + 2..run + 6).ok_or(Invalid)?;
                    if !digits.iter().all(u8::is_ascii_hexdigit) {
                        return Err(Invalid);
                    }
                    6
                }
                _ => return Err(Invalid),
            };
        }
    }

    fn number(&mut self) -> Result<(), Invalid> {
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            if !self.take(b'+') {
                self.take(b'-');
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Invalid> {
        let count = self.doc[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        if count > 0 { Ok(()) } else { Err(Invalid) }
    }

    fn take(&mut self, byte: u8) -> bool {
        let taken = self.doc.get(self.at) == Some(&byte);
        self.at += usize::from(taken);
        taken
    }

    fn literal(&mut self, word: &[u8]) -> Result<(), Invalid> {
        if !self.doc[self.at..].starts_with(word) {
            return Err(Invalid);
        }
        self.at += word.len();
        Ok(())
    }
}

/// How many bytes of a string come before its next quote or backslash, which must be there.
fn plain_run(rest: &[u8]) -> Result<usize, Invalid> {
    // Most strings and most runs between escapes are short: a vectorised search would cost more to start than it saves.
    let mut at = 0;
    while let Some(word) = rest[at..].first_chunk().filter(|_| at < 64) {
        let stops = stops(u64::from_le_bytes(*word));
        if stops != 0 {
            at += stops.trailing_zeros() as usize / 8;
            return if rest[at] < 0x20 { Err(Invalid) } else { Ok(at) };
        }
        at += 8;
    }
    let run = memchr2(b'"', b'\\', &rest[at..]).ok_or(Invalid)?;
    // A fold without an early exit is vectorised; `any` is not.
    let control = rest[at..at + run].iter().fold(false, |found, byte| found | (*byte < 0x20));
    if control { Err(Invalid) } else { Ok(at + run) }
}

/// Marks, in the top bit of each byte, quotes, backslashes and control characters. The lowest mark is exact; higher ones may
/// be borrows of it. ("Bit Twiddling Hacks", determine if a word has a byte less than n.)
fn stops(word: u64) -> u64 {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const TOPS: u64 = u64::from_le_bytes([0x80; 8]);
    let below = |word: u64, least: u64| word.wrapping_sub(ONES * least) & !word;
    let equal = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    (below(word, 0x20) | equal(b'"') | equal(b'\\')) & TOPS
}

/// The open containers, one bit each: set for an object.
#[derive(Default)]
struct Containers {
    objects: [u64; MAX_DEPTH / 64],
    depth: usize,
}

impl Containers {
    fn push(&mut self, object: bool) -> Result<(), Invalid> {
        let word = self.objects.get_mut(self.depth / 64).ok_or(Invalid)?;
        let bit = 1 << (self.depth % 64);
        *word = if object { *word | bit } else { *word & !bit };
        self.depth += 1;
        Ok(())
    }

    fn pop(&mut self) {
        self.depth -= 1;
    }

    fn in_object(&self) -> bool {
        let innermost = self.depth - 1;
        self.objects[innermost / 64] >> (innermost % 64) & 1 == 1
    }

    fn closing(&self) -> u8 {
        if self.in_object() { b'}' } else { b']' }
    }
}

#[cfg(test)]
mod tests;
