//! The address guard: which hosts and addresses are never connected to, in any spelling.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A host or address that the guard refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("ECONNREFUSED_SSRF: blocked ({}): {}", self.reason, self.target)]
pub struct Blocked {
    reason: Reason,
    target: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    Loopback,
    Unspecified,
    LinkLocal,
    Metadata,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loopback => "loopback; set CLAUDE_GATEWAY_ALLOW_LOOPBACK=1 to allow it",
            Self::Unspecified => "unspecified address",
            Self::LinkLocal => "link-local address",
            Self::Metadata => "cloud metadata service",
        })
    }
}

impl Blocked {
    /// The same refusal, telling which name led to the address.
    #[must_use]
    pub(super) fn resolved_from(self, host: &str) -> Self {
        Self { target: format!("{host} \u{2192} {}", self.target), ..self }
    }
}

/// Checks a host as it is written in a URL: literals in every spelling that a resolver takes for an address (brackets,
/// trailing dots, decimal, hexadecimal, octal, short and mapped forms) and the metadata services' names. Other names
/// pass; what they resolve to is checked at connect.
///
/// # Errors
/// When the host is refused.
pub fn check_literal_host(host: &str, allow_loopback: bool) -> Result<(), Blocked> {
    let name = host.trim_matches(['[', ']', '.']).to_ascii_lowercase();
    if matches!(name.as_str(), "metadata" | "metadata.google.internal") {
        return Err(Blocked { reason: Reason::Metadata, target: host.to_owned() });
    }
    match literal(&name) {
        Some(address) => check_address(address, allow_loopback)
            .map_err(|blocked| if blocked.target == host { blocked } else { blocked.resolved_from(host) }),
        None => Ok(()),
    }
}

/// Whether a host is written exactly as the clouds' tools write where they ask for credentials: Amazon's instances
/// (169.254.169.254), containers (169.254.170.2) and pods (169.254.170.23) and their IPv6 forms, or this machine.
pub(super) fn is_credential_service(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
    let is_loopback = host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    is_loopback
        || matches!(
            host.as_str(),
            "localhost" | "169.254.169.254" | "169.254.170.2" | "169.254.170.23" | "fd00:ec2::254" | "fd00:ec2::23"
        )
}

/// Checks a name that somebody else will resolve: those that mean the resolver's own machine (RFC 6761, section 6.3, and
/// the names that Linux distributions write into `/etc/hosts`).
pub(super) fn check_loopback_name(host: &str) -> Result<(), Blocked> {
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    let first = name.split('.').next().unwrap_or_default();
    let is_loopback = matches!(first, "localhost" | "localhost6" | "localhost4" | "ip6-localhost" | "ip6-loopback")
        || name.ends_with(".localhost")
        || name.ends_with(".localdomain");
    if is_loopback { Err(Blocked { reason: Reason::Loopback, target: host.to_owned() }) } else { Ok(()) }
}

/// Checks an address that is about to be connected to, after unwrapping IPv4 from its IPv6 disguises (mapped, compatible,
/// NAT64 and 6to4).
///
/// # Errors
/// When the address is refused.
pub fn check_address(address: IpAddr, allow_loopback: bool) -> Result<(), Blocked> {
    let reason = match folded(address) {
        IpAddr::V4(v4) => refusal_v4(v4),
        IpAddr::V6(v6) => refusal_v6(v6),
    };
    match reason {
        None => Ok(()),
        Some(Reason::Loopback) if allow_loopback => Ok(()),
        Some(reason) => Err(Blocked { reason, target: address.to_string() }),
    }
}

fn refusal_v4(address: Ipv4Addr) -> Option<Reason> {
    const ALIBABA_METADATA: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 200);
    const AZURE_WIRE_SERVER: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);
    if address.is_loopback() {
        Some(Reason::Loopback)
    } else if address.octets()[0] == 0 {
        // "This network" (RFC 1122): Linux connects 0.0.0.0 to itself.
        Some(Reason::Unspecified)
    } else if address.is_link_local() {
        Some(Reason::LinkLocal)
    } else if address == ALIBABA_METADATA || address == AZURE_WIRE_SERVER {
        Some(Reason::Metadata)
    } else {
        None
    }
}

fn refusal_v6(address: Ipv6Addr) -> Option<Reason> {
    const GOOGLE_METADATA: Ipv6Addr = Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254);
    let segments = address.segments();
    if address.is_loopback() {
        Some(Reason::Loopback)
    } else if address.is_unspecified() {
        Some(Reason::Unspecified)
    } else if address.is_unicast_link_local() {
        Some(Reason::LinkLocal)
    } else if segments[..2] == [0xfd00, 0x0ec2] || address == GOOGLE_METADATA {
        // fd00:ec2::/32 is Amazon's: instance metadata, container credentials, time, DNS.
        Some(Reason::Metadata)
    } else {
        None
    }
}

/// The IPv4 address inside an IPv6 one, where there is one.
fn folded(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let s = v6.segments();
    let embedded = |high: u16, low: u16| IpAddr::V4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    match s {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => address,
        // ::ffff:0:0/96 mapped and ::/96 compatible (RFC 4291), ::ffff:0:0:0/96 translated (RFC 2765).
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => embedded(high, low),
        // 64:ff9b::/96 (RFC 6052) and 64:ff9b:1::/48 (RFC 8215), read as a /96.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x64, 0xff9b, 1, _, _, _, high, low] => embedded(high, low),
        // 2002::/16, 6to4 (RFC 3056).
        [0x2002, high, low, ..] => embedded(high, low),
        _ => address,
    }
}

fn literal(name: &str) -> Option<IpAddr> {
    let without_zone = name.split('%').next().unwrap_or(name);
    if let Ok(v6) = without_zone.parse::<Ipv6Addr>() {
        return Some(IpAddr::V6(v6));
    }
    loose_v4(name).map(IpAddr::V4)
}

/// IPv4 as `inet_aton` reads it: one to four parts, each decimal, octal (`0`) or hexadecimal (`0x`), the last one filling
/// what is left.
fn loose_v4(name: &str) -> Option<Ipv4Addr> {
    let parts: Vec<u32> = name.split('.').map(number).collect::<Option<_>>()?;
    let (last, leading) = parts.split_last()?;
    if leading.len() > 3 || leading.iter().any(|part| *part > 255) {
        return None;
    }
    let free_bits = 32 - 8 * leading.len();
    if free_bits < 32 && u64::from(*last) >= 1 << free_bits {
        return None;
    }
    let high = leading.iter().enumerate().fold(0, |sum, (index, part)| sum | part << (24 - 8 * index));
    Some(Ipv4Addr::from(high | last))
}

fn number(text: &str) -> Option<u32> {
    if let Some(hex) = text.strip_prefix("0x") {
        // A bare "0x" is zero for inet_aton.
        return if hex.is_empty() { Some(0) } else { digits(hex, 16) };
    }
    match text.strip_prefix('0') {
        Some(octal) if !octal.is_empty() => digits(octal, 8),
        _ => digits(text, 10),
    }
}

fn digits(text: &str, radix: u32) -> Option<u32> {
    // `from_str_radix` would take a sign.
    if text.is_empty() || !text.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    u32::from_str_radix(text, radix).ok()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_spelling_of_a_metadata_or_loopback_address_is_refused() {
        for host in [
            "169.254.169.254",
            "169.254.170.2",
            "169.254.1.1.",
            "2852039166",
            "0xa9fea9fe",
            "0XA9FEA9FE",
            "0xa9.0xfe.0xa9.0xfe",
            "0251.0376.0251.0376",
            "169.254.43518",
            "169.16689662",
            "[::ffff:169.254.169.254]",
            "[::ffff:a9fe:a9fe]",
            "::169.254.169.254",
            "[64:ff9b::a9fe:a9fe]",
            "[64:ff9b:1::a9fe:a9fe]",
            "[2002:a9fe:a9fe::1]",
            "[::ffff:0:a9fe:a9fe]",
            "[fd00:ec2::254]",
            "[fd00:ec2::23]",
            "[fd20:ce::254]",
            "[fe80::1%25eth0]",
            "100.100.100.200",
            "168.63.129.16",
            "metadata",
            "Metadata.Google.Internal..",
            "127.0.0.1",
            "127.1",
            "2130706433",
            "017700000001",
            "[::1]",
            "[::ffff:7f00:1]",
            "0.0.0.0",
            "0.1.2.3",
            "0",
            "0x",
            "[::]",
        ] {
            assert!(check_literal_host(host, false).is_err(), "{host} must be refused");
        }
    }

    #[test]
    fn private_public_and_named_hosts_pass() {
        for host in [
            "10.0.0.1",
            "192.168.1.1",
            "172.16.0.1",
            "8.8.8.8",
            "[2606:4700::1111]",
            "api.anthropic.com",
            "localhost",
            "metadata.example.com",
            "1.2.3.4.5",
            "300.1.1.1",
            "0x7f.example",
            "08.1.1.1",
            "+2130706433",
        ] {
            assert_eq!(check_literal_host(host, false), Ok(()), "{host}");
        }
    }

    #[test]
    fn the_loopback_switch_opens_loopback_and_nothing_else() {
        for host in ["127.0.0.1", "[::1]", "127.255.0.9", "[::ffff:127.0.0.1]"] {
            assert_eq!(check_literal_host(host, true), Ok(()), "{host}");
        }
        for host in ["169.254.169.254", "0xa9fea9fe", "[fd00:ec2::254]", "0.0.0.0", "[::]", "metadata"] {
            assert!(check_literal_host(host, true).is_err(), "{host} must stay refused");
        }
    }

    #[test]
    fn a_refusal_says_why_and_what_was_asked() {
        let blocked = check_literal_host("2130706433", false).unwrap_err();
        assert_eq!(
            blocked.to_string(),
            "ECONNREFUSED_SSRF: blocked (loopback; set CLAUDE_GATEWAY_ALLOW_LOOPBACK=1 to allow it): \
             2130706433 \u{2192} 127.0.0.1"
        );
        let blocked = check_address("169.254.169.254".parse().unwrap(), false).unwrap_err();
        assert_eq!(blocked.to_string(), "ECONNREFUSED_SSRF: blocked (link-local address): 169.254.169.254");
    }

    proptest! {
        #[test]
        fn no_spelling_of_an_address_is_judged_differently_from_the_address(bits: u32, choice in 0..8_usize) {
            let address = Ipv4Addr::from(bits);
            let [a, b, c, d] = address.octets();
            let host = match choice {
                0 => format!("{a}.{b}.{c}.{d}"),
                1 => format!("{bits}"),
                2 => format!("{bits:#x}"),
                3 => format!("0{bits:o}"),
                4 => format!("{a}.{}", bits & 0x00ff_ffff),
                5 => format!("{a:#x}.0{b:o}.{}", bits & 0xffff),
                6 => format!("[{}]", address.to_ipv6_mapped()),
                _ => format!("[64:ff9b::{:x}:{:x}].", bits >> 16, bits & 0xffff),
            };
            // "0" + octal zero and the like still spell the same number.
            prop_assert_eq!(check_literal_host(&host, false).is_ok(), check_address(address.into(), false).is_ok(), "{}", host);
        }

        #[test]
        fn whatever_the_host_the_guard_answers(host in ".{0,40}") {
            let _ = check_literal_host(&host, false);
        }
    }

    #[test]
    fn names_of_the_resolvers_own_machine_are_refused_where_somebody_else_resolves() {
        for host in ["localhost", "LocalHost.", "app.localhost", "localhost.localdomain", "ip6-loopback"] {
            assert!(check_loopback_name(host).is_err(), "{host}");
        }
        for host in ["idp.example", "localhost-idp.example", "notlocalhost"] {
            assert_eq!(check_loopback_name(host), Ok(()), "{host}");
        }
    }

    #[test]
    fn link_local_is_refused_at_both_ends_of_its_range() {
        for address in ["169.254.0.0", "169.254.255.255", "fe80::", "febf:ffff::1"] {
            assert!(check_address(address.parse().unwrap(), true).is_err(), "{address}");
        }
        for address in ["169.253.255.255", "169.255.0.0", "fec0::1"] {
            assert!(check_address(address.parse().unwrap(), true).is_ok(), "{address}");
        }
    }
}
