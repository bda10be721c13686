//! Spelling: what a mistyped name was probably meant to be.

/// The known name that a mistyped one was probably meant to be. Letters outside ASCII that look like ASCII ones count as
/// one slip each, so that a name typed in them altogether is still recognised by what it looks like.
pub fn nearest<'a>(typed: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let typed: String = typed.chars().filter_map(plain).collect();
    let allowed = if typed.len() <= 4 { 1 } else { 2 };
    names
        .filter_map(|name| Some((distance(&typed, &name.to_ascii_lowercase(), allowed)?, name)))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// The ASCII letter that one looks like, in lower case; nothing for letters that cannot be seen.
fn plain(letter: char) -> Option<char> {
    const LOOK_ALIKES: &[(&str, char)] = &[
        ("аαɑⓐ", 'a'),
        ("Ьвβ", 'b'),
        ("сϲⅽ", 'c'),
        ("ԁⅾ", 'd'),
        ("еєеҽ", 'e'),
        ("ƒ", 'f'),
        ("ɡց", 'g'),
        ("һհ", 'h'),
        ("іıɩιӏ", 'i'),
        ("ј", 'j'),
        ("кκ", 'k'),
        ("ⅼӀǀ", 'l'),
        ("мⅿ", 'm'),
        ("пոη", 'n'),
        ("оοσօ", 'o'),
        ("рρ", 'p'),
        ("ԛզ", 'q'),
        ("гᴦ", 'r'),
        ("ѕꜱ", 's'),
        ("тτ", 't'),
        ("υսᴜ", 'u'),
        ("ѵνᴠ", 'v'),
        ("ԝѡ", 'w'),
        ("хχⅹ", 'x'),
        ("уγү", 'y'),
        ("ᴢʐ", 'z'),
    ];
    match letter {
        '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}' | '\u{ad}' => None,
        // The full-width forms stand in the order of ASCII.
        '\u{ff01}'..='\u{ff5e}' => {
            u32::from(letter).checked_sub(0xfee0).and_then(char::from_u32).map(|plain| plain.to_ascii_lowercase())
        }
        letter if letter.is_ascii() => Some(letter.to_ascii_lowercase()),
        other => {
            let lower = other.to_lowercase().next().unwrap_or(other);
            let like = LOOK_ALIKES.iter().find(|(letters, _)| letters.contains([lower, other]));
            Some(like.map_or(other, |(_, plain)| *plain))
        }
    }
}

/// Edits (insert, delete, replace, swap of neighbours) between two words: optimal string alignment. `None` when there are more
/// than `most`.
#[must_use]
pub fn distance(from: &str, to: &str, most: usize) -> Option<usize> {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    // Longer differences are not looked into: a document may hold a key of a megabyte.
    if from.len().abs_diff(to.len()) > most {
        return None;
    }
    let mut rows = vec![vec![0; to.len() + 1]; from.len() + 1];
    rows[0] = (0..=to.len()).collect();
    for i in 1..=from.len() {
        rows[i][0] = i;
        for j in 1..=to.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(from[i - 1] != to[j - 1]);
            rows[i][j] = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                rows[i][j] = rows[i][j].min(rows[i - 2][j - 2] + 1);
            }
        }
    }
    Some(rows[from.len()][to.len()]).filter(|edits| *edits <= most)
}
