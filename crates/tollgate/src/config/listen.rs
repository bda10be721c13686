//! `listen`: where the gateway serves, and the origin it is known by.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net};
use url::Url;

use super::read::{Field, Mapping, all};
use super::reference::{Section, key};

/// The `listen:` section.
#[derive(Debug, Clone)]
pub struct Config {
    /// `listen.host`: an address without brackets, or a name.
    pub host: String,
    /// `listen.port`; 0 lets the system choose.
    pub port: u16,
    /// `listen.public_url` as an origin without a trailing slash; only a loopback host does without.
    pub public_url: Option<String>,
    /// `listen.tls`.
    pub tls: Option<Tls>,
    /// `listen.trusted_proxies`: whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
}

/// The files of `listen.tls`, which existed when the configuration was read.
#[derive(Debug, Clone)]
pub struct Tls {
    /// PEM certificate chain.
    pub cert: PathBuf,
    /// PEM private key.
    pub key: PathBuf,
}

impl Config {
    /// The origin that clients know, without a trailing slash: `public_url`, or else scheme, configured host and `port`,
    /// the one that was bound. Never what a request says.
    #[must_use]
    pub fn origin(&self, port: u16) -> String {
        if let Some(public_url) = &self.public_url {
            return public_url.clone();
        }
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        match self.host.parse() {
            Ok(IpAddr::V6(host)) => format!("{scheme}://[{host}]:{port}"),
            _ => format!("{scheme}://{}:{port}", self.host),
        }
    }
}

pub(super) const SECTION: Section = Section {
    path: "listen",
    about: "Where the gateway serves, and the origin it is known by.",
    keys: &[
        key("host", "address or host name", "0.0.0.0", "Address to bind."),
        key("port", "whole number, 0 to 65535", "8080", "Port to bind; 0 lets the system choose."),
        key(
            "public_url",
            "http or https origin: scheme, host, port",
            "",
            "The origin that clients and the identity provider know; issuer of bearers, base of redirects and of pushed \
             telemetry. Required unless `host` is loopback (`127.0.0.1`, `::1`, `localhost`), where it is made of scheme, host and port.",
        ),
        key("tls", "mapping", "", "Serve HTTPS instead of HTTP."),
        key(
            "trusted_proxies",
            "list of addresses and networks, never the whole internet",
            "[]",
            "Load balancers whose `X-Forwarded-For` is believed.",
        ),
    ],
    later: &[],
};

pub(super) const TLS: Section = Section {
    path: "listen.tls",
    about: "Certificate and key, both required. A relative path starts at the working directory.",
    keys: &[
        key("cert", "file", "required", "PEM certificate chain."),
        key("key", "file", "required", "PEM private key."),
    ],
    later: &[],
};

pub(super) fn read(listen: &Mapping<'_>) -> Option<Config> {
    let host = listen.or("host", "0.0.0.0".to_owned(), read_host);
    let port = listen.or("port", 8080, |field| field.whole(0..=65535));
    let public_url = listen.maybe("public_url", read_origin);
    let tls = listen.maybe("tls", read_tls);
    let proxies = listen.or("trusted_proxies", Vec::new(), read_proxies);
    if public_url == Some(None) && host.as_deref().is_some_and(|host| !is_loopback(host)) {
        listen.missing("public_url", "write the origin that clients use, such as https://gateway.example.com");
    }
    Some(Config {
        host: host?,
        port: u16::try_from(port?).ok()?,
        public_url: public_url?,
        tls: tls?,
        trusted_proxies: proxies?,
    })
}

/// Whether a host, without brackets, is this machine by its looks.
pub(super) fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A list of addresses and networks.
pub(super) fn read_networks(field: &Field<'_>) -> Option<Vec<IpNet>> {
    all(field.items()?.iter().map(|item| {
        let network = network(item.text()?.trim());
        if network.is_none() {
            item.refuse("must be an address or a network, such as 10.0.0.1 or 10.0.0.0/8");
        }
        network
    }))
}

fn read_host(field: &Field<'_>) -> Option<String> {
    let written = field.text()?.trim();
    let host = written.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(written);
    let is_name = host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
    if !is_name && host.parse::<IpAddr>().is_err() {
        field.refuse("must be an address or a host name without a port, such as 0.0.0.0");
        return None;
    }
    Some(host.to_owned())
}

fn read_tls(field: &Field<'_>) -> Option<Tls> {
    let tls = field.mapping(&TLS)?;
    let cert = tls.required("cert", "write the path of the PEM certificate chain", Field::existing_file);
    let key = tls.required("key", "write the path of the PEM private key", Field::existing_file);
    Some(Tls { cert: cert?, key: key? })
}

fn read_origin(field: &Field<'_>) -> Option<String> {
    let url = field.url()?;
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        field.refuse("must be an origin without path, query or fragment, such as https://gateway.example.com");
        return None;
    }
    if url.scheme() == "http" && !has_loopback_host(&url) {
        field.warn("plain http: bearers cross the network unprotected; serve https, here or at a load balancer");
    }
    Some(url.origin().ascii_serialization())
}

pub(super) fn has_loopback_host(url: &Url) -> bool {
    url.host_str().is_some_and(|host| is_loopback(host.trim_matches(['[', ']'])))
}

fn read_proxies(field: &Field<'_>) -> Option<Vec<IpNet>> {
    let networks = read_networks(field)?;
    // Two halves are a whole as well.
    if IpNet::aggregate(&networks).iter().any(|network| network.prefix_len() == 0) {
        field.refuse("trusts the whole internet, so that anyone could claim any address; name your proxies' networks");
        return None;
    }
    Some(networks)
}

/// An address, or a network with or without host bits; IPv4 in its IPv6 form counts as IPv4.
fn network(text: &str) -> Option<IpNet> {
    let network = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text.parse::<IpNet>().ok()?.trunc(),
    };
    match network {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => match v6.addr().to_ipv4_mapped() {
            Some(v4) => mapped(v4, v6.prefix_len() - 96),
            None => Some(network),
        },
        _ => Some(network),
    }
}

fn mapped(address: Ipv4Addr, prefix: u8) -> Option<IpNet> {
    Ipv4Net::new(address, prefix).ok().map(IpNet::V4)
}

#[cfg(test)]
mod tests {
    use super::{Config, network};

    #[test]
    fn addresses_and_networks_are_read_with_or_without_host_bits() {
        for (text, expected) in [
            ("10.1.2.3", Some("10.1.2.3/32")),
            ("10.1.2.3/8", Some("10.0.0.0/8")),
            ("::1", Some("::1/128")),
            ("2001:db8::5/32", Some("2001:db8::/32")),
            ("::ffff:10.1.2.3", Some("10.1.2.3/32")),
            ("::ffff:10.0.0.0/104", Some("10.0.0.0/8")),
            ("10.0.0.0/33", None),
            ("gateway", None),
            ("", None),
        ] {
            assert_eq!(network(text).map(|network| network.to_string()).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn without_a_public_url_the_origin_is_scheme_host_and_bound_port() {
        let config = |host: &str, public_url: Option<&str>| Config {
            host: host.into(),
            port: 0,
            public_url: public_url.map(str::to_owned),
            tls: None,
            trusted_proxies: Vec::new(),
        };
        assert_eq!(config("127.0.0.1", None).origin(4711), "http://127.0.0.1:4711");
        assert_eq!(config("::1", None).origin(4711), "http://[::1]:4711");
        assert_eq!(config("localhost", Some("https://g.example.com")).origin(4711), "https://g.example.com");
    }
}
