//! A `struct sockaddr` as bytes, taken apart. The one place that knows its layouts; it knows no event and no engine.

use std::borrow::Cow;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use haechi_ebpf::symbol::Symbol;

const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// An address of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SockAddr<'a> {
    /// IPv4.
    V4(SocketAddrV4),
    /// IPv6.
    V6(SocketAddrV6),
    /// A socket in the file system; empty for an unnamed one.
    Unix(&'a [u8]),
    /// A socket in the abstract name space, without the leading NUL.
    Abstract(&'a [u8]),
    /// Another family, or one too short for its family.
    Other(u16),
}

impl<'a> SockAddr<'a> {
    /// Takes `bytes` apart; `None` when they do not even hold a family.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let family = u16::from_ne_bytes(*bytes.first_chunk()?);
        Some(match family {
            AF_INET => v4(bytes).map_or(Self::Other(family), Self::V4),
            AF_INET6 => v6(bytes).map_or(Self::Other(family), Self::V6),
            AF_UNIX => match &bytes[2..] {
                [0, name @ ..] if !name.is_empty() => Self::Abstract(name),
                path => Self::Unix(path.split(|b| *b == 0).next().unwrap_or_default()),
            },
            _ => Self::Other(family),
        })
    }

    /// Number of the family.
    #[must_use]
    pub const fn family(&self) -> u16 {
        match self {
            Self::V4(_) => AF_INET,
            Self::V6(_) => AF_INET6,
            Self::Unix(_) | Self::Abstract(_) => AF_UNIX,
            Self::Other(family) => *family,
        }
    }

    /// The internet address, if it is one.
    #[must_use]
    pub const fn inet(&self) -> Option<SocketAddr> {
        match self {
            Self::V4(a) => Some(SocketAddr::V4(*a)),
            Self::V6(a) => Some(SocketAddr::V6(*a)),
            _ => None,
        }
    }

    /// Name of a Unix socket; an abstract one begins with `@`.
    #[must_use]
    pub fn unix(&self) -> Option<Cow<'a, str>> {
        match self {
            Self::Unix(path) => Some(String::from_utf8_lossy(path)),
            Self::Abstract(name) => Some(format!("@{}", String::from_utf8_lossy(name)).into()),
            _ => None,
        }
    }

    /// Names and values of its members as Tracee writes them: all are strings.
    #[must_use]
    pub fn members(&self) -> Vec<(&'static str, String)> {
        let mut members = vec![("sa_family", Symbol::SocketFamily.of(self.family().into()).to_string())];
        match self {
            Self::V4(a) => {
                members.push(("sin_addr", a.ip().to_string()));
                members.push(("sin_port", a.port().to_string()));
            }
            Self::V6(a) => {
                members.push(("sin6_addr", a.ip().to_string()));
                members.push(("sin6_port", a.port().to_string()));
                members.push(("sin6_flowinfo", a.flowinfo().to_string()));
                members.push(("sin6_scopeid", a.scope_id().to_string()));
            }
            Self::Unix(_) | Self::Abstract(_) => members.extend(self.unix().map(|p| ("sun_path", p.into_owned()))),
            Self::Other(_) => {}
        }
        members
    }

    /// As bytes, the way the kernel would hand them over.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.family().to_ne_bytes().to_vec();
        match self {
            Self::V4(a) => {
                bytes.extend(a.port().to_be_bytes());
                bytes.extend(a.ip().octets());
                bytes.extend([0; 8]);
            }
            Self::V6(a) => {
                bytes.extend(a.port().to_be_bytes());
                bytes.extend(a.flowinfo().to_be_bytes());
                bytes.extend(a.ip().octets());
                bytes.extend(a.scope_id().to_ne_bytes());
            }
            Self::Unix(path) => {
                bytes.extend(*path);
                bytes.push(0);
            }
            Self::Abstract(name) => {
                bytes.push(0);
                bytes.extend(*name);
            }
            Self::Other(_) => {}
        }
        bytes
    }
}

impl fmt::Display for SockAddr<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(a) => a.fmt(f),
            Self::V6(a) => a.fmt(f),
            Self::Unix(_) | Self::Abstract(_) => f.write_str(&self.unix().unwrap_or_default()),
            Self::Other(family) => Symbol::SocketFamily.write((*family).into(), f),
        }
    }
}

fn v4(bytes: &[u8]) -> Option<SocketAddrV4> {
    let ip: [u8; 4] = bytes.get(4..8)?.try_into().ok()?;
    Some(SocketAddrV4::new(Ipv4Addr::from(ip), port(bytes)?))
}

fn v6(bytes: &[u8]) -> Option<SocketAddrV6> {
    let ip: [u8; 16] = bytes.get(8..24)?.try_into().ok()?;
    let flow = u32::from_be_bytes(bytes.get(4..8)?.try_into().ok()?);
    // An old, shorter form ends before the scope.
    let scope = bytes.get(24..28).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes);
    Some(SocketAddrV6::new(Ipv6Addr::from(ip), port(bytes)?, flow, scope))
}

fn port(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))
}

/// The address in a field of 4 or 16 bytes; an IPv4 address in IPv6 clothes is shown as what it is. `None` for other
/// lengths.
#[must_use]
pub fn ip(bytes: &[u8]) -> Option<std::net::IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(std::net::IpAddr::from).ok();
    four.or_else(|| <[u8; 16]>::try_from(bytes).map(std::net::IpAddr::from).ok()).map(|a| a.to_canonical())
}

/// The same as text; empty where it is none.
#[must_use]
pub fn ip_text(bytes: &[u8]) -> String {
    ip(bytes).map(|a| a.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_survives_the_way_to_bytes_and_back() {
        let v4 = "10.0.0.1:443".parse().map(SockAddr::V4).expect("an address");
        let v6 = "[fe80::1%3]:53".parse().map(SockAddr::V6).expect("an address");
        for (addr, text, members) in [
            (v4, "10.0.0.1:443", "sa_family=AF_INET sin_addr=10.0.0.1 sin_port=443"),
            (v6, "[fe80::1%3]:53", "sa_family=AF_INET6 sin6_addr=fe80::1 sin6_port=53 sin6_flowinfo=0 sin6_scopeid=3"),
            (SockAddr::Unix(b"/run/docker.sock"), "/run/docker.sock", "sa_family=AF_UNIX sun_path=/run/docker.sock"),
            (SockAddr::Abstract(b"x11"), "@x11", "sa_family=AF_UNIX sun_path=@x11"),
            (SockAddr::Unix(b""), "", "sa_family=AF_UNIX sun_path="),
            (SockAddr::Other(16), "AF_NETLINK", "sa_family=AF_NETLINK"),
        ] {
            let bytes = addr.to_bytes();
            assert_eq!(SockAddr::parse(&bytes), Some(addr), "{text}");
            assert_eq!(addr.to_string(), text);
            let got: Vec<_> = addr.members().iter().map(|(k, v)| format!("{k}={v}")).collect();
            assert_eq!(got.join(" "), members);
        }
    }

    #[test]
    fn short_bytes_are_no_address() {
        assert_eq!(SockAddr::parse(&[2]), None);
        assert_eq!(SockAddr::parse(&[2, 0, 0, 80, 127]), Some(SockAddr::Other(2)));
        assert_eq!(SockAddr::parse(&[10, 0, 0, 80]), Some(SockAddr::Other(10)));
        assert_eq!(SockAddr::parse(&[1, 0]), Some(SockAddr::Unix(b"")));
    }
}
