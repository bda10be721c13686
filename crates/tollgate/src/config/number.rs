//! Numbers: from the text of the file, exactly.
//!
//! Knows YAML 1.2's core schema and JSON; uses no floating point, save for JSON's own fractions.

use serde_json::Number;
use wire::catalog::nano_dollars;

/// Whether a bare scalar is a number.
pub(super) fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    matches!(unsigned, ".inf" | ".Inf" | ".INF")
        || matches!(text, ".nan" | ".NaN" | ".NAN")
        || radix(text).is_some()
        || {
            let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
                Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))),
                None => (unsigned, None),
            };
            let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
            digits(whole)
                && digits(fraction)
                && !(whole.is_empty() && fraction.is_empty())
                && exponent.is_none_or(|exponent| !exponent.is_empty() && digits(exponent))
        }
}

/// A whole number without sign: decimal, `0x` or `0o`.
pub(super) fn whole(text: &str) -> Option<u64> {
    if let Some(number) = radix(text) {
        return number.ok();
    }
    // `5.0` is whole too.
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !digits(whole) || !fraction.bytes().all(|byte| byte == b'0') {
        return None;
    }
    whole.parse().ok()
}

/// A decimal number without sign and exponent in thousand-millionths; at most nine decimals.
pub(super) fn nano(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if matches!(text, "" | ".") {
        return None;
    }
    // YAML leaves out either side of the point; zeros at the end say nothing.
    let whole = if whole.is_empty() { "0" } else { whole };
    nano_dollars(&format!("{whole}.{:0<1}", fraction.trim_end_matches('0')))
}

/// Thousand-millionths as a JSON number: whole when it is whole.
pub(super) fn json_of_nano(nano: i64) -> Option<Number> {
    let (whole, fraction) = (nano / 1_000_000_000, nano % 1_000_000_000);
    json(&format!("{whole}.{fraction:09}"))
}

/// A number of the core schema as JSON writes it: `1.50` is 1.5, `2.0` is 2. `None` for what JSON has no number for.
pub(super) fn json(text: &str) -> Option<Number> {
    if let Some(number) = radix(text) {
        return number.ok().map(Number::from);
    }
    let (sign, unsigned) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let at = unsigned.find(['e', 'E']).unwrap_or(unsigned.len());
    let (mantissa, exponent) = unsigned.split_at(at);
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{sign}{whole}{point}{fraction}{exponent}").parse().ok()
}

/// The number after `0x` or `0o`, where there is such a prefix.
fn radix(text: &str) -> Option<Result<u64, std::num::ParseIntError>> {
    let (rest, radix) = match (text.strip_prefix("0x"), text.strip_prefix("0o")) {
        (Some(rest), _) => (rest, 16),
        (_, Some(rest)) => (rest, 8),
        _ => return None,
    };
    // `from_str_radix` would take a sign.
    let all = !rest.is_empty() && rest.chars().all(|c| c.is_digit(radix));
    all.then(|| u64::from_str_radix(rest, radix))
}

fn digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::{is_number, json, json_of_nano, nano, whole};

    #[test]
    fn numbers_of_the_core_schema_are_told_from_words() {
        for text in ["0", "12", "-3", "+3", "1.5", ".5", "1.", "1e3", "1.5E-3", "0x1F", "0o17", ".inf", "-.INF", ".nan"]
        {
            assert!(is_number(text), "{text}");
        }
        for text in ["", ".", "-", "e3", "1e", "1.2.3", "0x", "0xg", "12a", "v1", "1_000", "127.0.0.1", "inf", "0o8"] {
            assert!(!is_number(text), "{text}");
        }
    }

    #[test]
    fn amounts_are_exact() {
        for (text, expected) in [
            ("3.75", Some(3_750_000_000)),
            ("0.1", Some(100_000_000)),
            ("1", Some(1_000_000_000)),
            (".5", Some(500_000_000)),
            ("0.000000001", Some(1)),
            ("0.1000000000000", Some(100_000_000)),
            ("0.0000000001", None),
            ("9223372036", Some(9_223_372_036_000_000_000)),
            ("9223372037", None),
            ("-1", None),
            ("1e3", None),
            ("", None),
            (".", None),
        ] {
            assert_eq!(nano(text), expected, "{text}");
        }
    }

    #[test]
    fn whole_numbers_have_no_sign_and_no_fraction() {
        for (text, expected) in
            [("8080", Some(8080)), ("0x10", Some(16)), ("-1", None), ("5.0", Some(5)), ("5.1", None), ("", None)]
        {
            assert_eq!(whole(text), expected, "{text}");
        }
        assert_eq!(whole("99999999999999999999"), None);
    }

    #[test]
    fn json_numbers_read_as_a_script_would_print_them() {
        for (text, expected) in [
            ("1.50", "1.5"),
            ("2.0", "2"),
            ("+7", "7"),
            ("007", "7"),
            (".1", "0.1"),
            ("-0.3", "-0.3"),
            ("18446744073709551615", "18446744073709551615"),
            ("0x10", "16"),
        ] {
            assert_eq!(json(text).map(|number| number.to_string()).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(json(".inf"), None);
        assert_eq!(json_of_nano(1_500_000_000).map(|number| number.to_string()).as_deref(), Some("1.5"));
        assert_eq!(json_of_nano(2_000_000_000).map(|number| number.to_string()).as_deref(), Some("2"));
    }
}
