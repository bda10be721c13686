//! The golden answers of this folder: bodies as upstreams send them, and beside each, as text, what a meter must read in it
//! and what that costs at list price, with the reckoning.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;

use wire::usage::Usage;

/// One answer.
#[derive(Debug)]
pub(crate) struct Fixture {
    pub(crate) name: String,
    /// An event stream, else JSON.
    pub(crate) is_stream: bool,
    pub(crate) body: Vec<u8>,
    /// The model that was asked for.
    pub(crate) model: String,
    pub(crate) usage: Usage,
    /// The counts are the upstream's last word.
    pub(crate) is_final: bool,
    /// In nano-dollars.
    pub(crate) charge: i64,
}

/// All of them, by name.
pub(crate) fn all() -> Vec<Fixture> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../wire/tests/golden"));
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut texts: Vec<_> = files.filter(|path| path.extension().is_some_and(|is| is == "txt")).collect();
    texts.sort();
    assert!(texts.len() > 20, "the golden answers are not there");
    texts.iter().map(|path| read(path)).collect()
}

fn read(path: &Path) -> Fixture {
    let text = fs::read_to_string(path).unwrap();
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap().trim();
    let count = |name: &str| field(name).parse().unwrap();
    let stream = path.with_extension("sse");
    let is_stream = stream.exists();
    Fixture {
        name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
        is_stream,
        body: fs::read(if is_stream { stream } else { path.with_extension("json") }).unwrap(),
        model: field("model").to_owned(),
        usage: Usage {
            input_tokens: count("input"),
            output_tokens: count("output"),
            cache_read_input_tokens: count("cache_read"),
            cache_creation_5m_tokens: count("cache_write_5m"),
            cache_creation_1h_tokens: count("cache_write_1h"),
            web_search_requests: count("web_searches"),
            fast: field("fast") == "yes",
        },
        is_final: field("final") == "yes",
        charge: reckon(field("charge")),
    }
}

/// Reads `2 x 3 + 4 x 5 = 26` and checks that it is true.
fn reckon(line: &str) -> i64 {
    let (terms, sum) = line.split_once(" = ").unwrap();
    let product = |term: &str| term.split(" x ").map(|factor| factor.parse::<i64>().unwrap()).product::<i64>();
    let sum: i64 = sum.parse().unwrap();
    assert_eq!(terms.split(" + ").map(product).sum::<i64>(), sum, "{line}");
    sum
}
