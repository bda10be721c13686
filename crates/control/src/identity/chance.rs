//! Randomness, from the operating system's generator only.

use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The operating system gave no random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gives no random bytes")]
pub struct NoChance;

/// 256 random bits as 43 base64url characters.
pub(super) fn token() -> Result<String, NoChance> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).map_err(|_| NoChance)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// A random (version 4) UUID.
pub(super) fn uuid() -> Result<String, NoChance> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).map_err(|_| NoChance)?;
    Ok(uuid::Builder::from_random_bytes(bytes).into_uuid().to_string())
}

/// `N` letters of `alphabet` (at most 256 letters), each equally likely.
pub(super) fn letters<const N: usize>(alphabet: &[u8]) -> Result<[u8; N], NoChance> {
    // Bytes past the last whole multiple would make the first letters likelier.
    let usable = 256 - 256 % alphabet.len();
    let mut letters = [0; N];
    let mut count = 0;
    while count < N {
        let mut bytes = [0; 32];
        rand::fill(&mut bytes).map_err(|_| NoChance)?;
        for byte in bytes.into_iter().map(usize::from).filter(|byte| *byte < usable) {
            if count < N {
                letters[count] = alphabet[byte % alphabet.len()];
                count += 1;
            }
        }
    }
    Ok(letters)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_256_bits_and_differ() {
        let (one, other) = (token().unwrap(), token().unwrap());
        assert_eq!(one.len(), 43);
        assert_ne!(one, other);
    }

    #[test]
    fn every_letter_of_the_alphabet_is_drawn_about_equally_often() {
        // 256 is no multiple of 20: a remainder would give the first 16 letters 13 chances in 256 and the others 12.
        let mut counts = [0_u32; 20];
        for letter in (0..2500).flat_map(|_| letters::<8>(b"0123456789ABCDEFGHIJ").unwrap()) {
            counts[usize::try_from(char::from(letter).to_digit(20).unwrap()).unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
    }
}
