//! Which connections the user asked to see, for `haechi flows` and for who watches from outside. In each list one must
//! fit; an empty list takes all.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use haechi_ebpf::event::{Field, net_flow};
use haechi_ebpf::symbol::Symbol;
use haechi_ebpf::wire::{View, at};
use haechi_signatures::path::leaf;
use haechi_signatures::sockaddr::ip;

/// Addresses of a network, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Net {
    address: IpAddr,
    bits: u8,
}

/// Text that is no network.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no address or network, as 10.0.0.1 or 10.0.0.0/8")]
pub struct NoNet(String);

impl FromStr for Net {
    type Err = NoNet;

    fn from_str(text: &str) -> Result<Self, NoNet> {
        let wrong = || NoNet(text.to_owned());
        let (address, bits) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
        let address: IpAddr = address.parse().map_err(|_source| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), |b| b.parse().map_err(|_source| wrong()))?;
        if bits > most { Err(wrong()) } else { Ok(Self { address, bits }) }
    }
}

impl Net {
    /// Whether `address` belongs to it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(net), IpAddr::V4(a)) => (u32::from(net) ^ u32::from(a)).leading_zeros() >= self.bits.into(),
            (IpAddr::V6(net), IpAddr::V6(a)) => (u128::from(net) ^ u128::from(a)).leading_zeros() >= self.bits.into(),
            _ => false,
        }
    }
}

/// What the user wrote, as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// Numbers, names or paths of programs.
    pub processes: Vec<String>,
    /// Addresses or networks.
    pub addresses: Vec<String>,
    /// Ports.
    pub ports: Vec<u16>,
    /// Direction.
    pub direction: Option<String>,
    /// States, as `established` or `syn-sent`.
    pub states: Vec<String>,
    /// Containers, by the beginning of their ids: the process's, or that of its network namespace.
    pub containers: Vec<String>,
    /// Network namespaces, by inode.
    pub netns: Vec<u32>,
}

/// What is wrong with them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No address.
    #[error(transparent)]
    Net(#[from] NoNet),
    /// No state.
    #[error("`{0}` is no state of a TCP connection")]
    State(String),
    /// No direction.
    #[error("`{0}` is none of outgoing, incoming, unknown")]
    Direction(String),
}

/// Directions, as the event spells them.
pub const DIRECTIONS: [&str; 3] = ["outgoing", "incoming", "unknown"];

/// Which connections are wanted.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    words: Words,
    addresses: Vec<Net>,
    states: Vec<u64>,
    direction: Option<u64>,
}

impl Filter {
    /// Makes sense of the words.
    ///
    /// # Errors
    /// The first that means nothing.
    pub fn parse(words: Words) -> Result<Self, Error> {
        let addresses = words.addresses.iter().map(|a| a.parse()).collect::<Result<_, _>>()?;
        let state = |text: &String| {
            let name = text.to_ascii_uppercase().replace('-', "_");
            spelled(Symbol::TcpState, 1..=12, bare(&name)).ok_or_else(|| Error::State(text.clone()))
        };
        let direction = |text: &String| {
            let known = DIRECTIONS.contains(&text.as_str()).then(|| spelled(Symbol::FlowDirection, 0..=2, text));
            known.flatten().ok_or_else(|| Error::Direction(text.clone()))
        };
        let states = words.states.iter().map(state).collect::<Result<_, _>>()?;
        let direction = words.direction.as_ref().map(direction).transpose()?;
        Ok(Self { words, addresses, states, direction })
    }

    /// Whether it is wanted: a record of a connection, of a program (its path, or its name), in containers (their ids).
    #[must_use]
    pub fn takes<'a>(&self, view: &View<'_>, exe: &str, mut containers: impl Iterator<Item = &'a str>) -> bool {
        use net_flow::field as f;
        let Self { words, addresses, states, direction } = self;
        let number = |field| view.number(field).unwrap_or_default();
        let ends = [address(view, f::src), address(view, f::dst)];
        let ports = [number(f::src_port) as u16, number(f::dst_port) as u16];
        let is_pid = |p: &str| p == view.process().0.to_string();
        any(&words.processes, |p| p == exe || p == leaf(exe) || is_pid(p))
            && any(addresses, |net| ends.iter().flatten().any(|a| net.contains(*a)))
            && any(&words.ports, |p| ports.contains(p))
            && any(states, |s| *s == number(f::state))
            && (words.containers.is_empty()
                || containers.any(|id| words.containers.iter().any(|c| id.starts_with(c.as_str()))))
            && any(&words.netns, |n| *n == view.header_u32(at::NET_NS))
            && direction.is_none_or(|d| d == number(f::direction))
    }
}

/// Whether one fits, or there is none to fit.
fn any<T>(list: &[T], fits: impl FnMut(&T) -> bool) -> bool {
    list.is_empty() || list.iter().any(fits)
}

/// Which of these numbers goes by this name.
fn spelled(symbol: Symbol, mut numbers: RangeInclusive<u64>, name: &str) -> Option<u64> {
    numbers.find(|n| bare(&symbol.of(*n).to_string()) == name)
}

fn bare(state: &str) -> &str {
    state.trim_start_matches("TCP_")
}

/// An address in a record.
#[must_use]
pub fn address(view: &View<'_>, field: Field) -> Option<IpAddr> {
    view.text(field).and_then(|text| ip(text.bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use haechi_signatures::record::Builder;

    #[test]
    fn networks_contain_their_addresses_only() {
        for (net, address, want) in [
            ("10.0.0.0/8", "10.255.1.2", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("0.0.0.0/0", "8.8.8.8", true),
            ("0.0.0.0/0", "::1", false),
            ("fd00::/8", "fdff::1", true),
            ("::1", "::1", true),
        ] {
            let net: Net = net.parse().expect(net);
            assert_eq!(net.contains(address.parse().expect(address)), want, "{net:?} {address}");
        }
        for wrong in ["10.0.0.0/33", "x", "10.0.0.0/", "::/129", "/8"] {
            assert!(wrong.parse::<Net>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn filters_take_what_fits_in_every_list() {
        use net_flow::field as f;
        let record = Builder::new(&net_flow::DEF)
            .process(42, 1, 1)
            .header_u32(at::NET_NS, 9)
            .text(f::src, [10, 0, 0, 1])
            .text(f::dst, [10, 0, 0, 2])
            .number(f::src_port, 4000)
            .number(f::dst_port, 80)
            .number(f::direction, 1)
            .number(f::state, 1)
            .finish();
        let view = View::parse(&record).expect("a record");
        let takes = |change: fn(&mut Words)| {
            let mut words = Words { ports: vec![80], ..Words::default() };
            change(&mut words);
            Filter::parse(words).expect("a filter").takes(&view, "/bin/cat", ["abcdef", "9"].into_iter())
        };
        type Change = fn(&mut Words);
        let cases: &[(bool, Change)] = &[
            (true, |_| {}),
            (true, |w| w.processes = vec!["42".into()]),
            (true, |w| w.processes = vec!["43".into(), "cat".into()]),
            (false, |w| w.processes = vec!["43".into()]),
            (true, |w| w.addresses = vec!["10.0.0.2".into()]),
            (false, |w| w.addresses = vec!["10.0.0.3".into()]),
            (false, |w| w.ports = vec![81]),
            (true, |w| w.states = vec!["established".into()]),
            (false, |w| w.states = vec!["TCP_SYN-SENT".into()]),
            (true, |w| w.direction = Some("outgoing".into())),
            (false, |w| w.direction = Some("incoming".into())),
            (true, |w| w.containers = vec!["abc".into()]),
            (false, |w| w.containers = vec!["abd".into()]),
            (true, |w| w.netns = vec![9]),
            (false, |w| w.netns = vec![8]),
        ];
        for (i, (want, change)) in cases.iter().enumerate() {
            assert_eq!(takes(*change), *want, "case {i}");
        }
    }

    #[test]
    fn words_that_mean_nothing_are_named() {
        let parse = |words| Filter::parse(words).map(drop).map_err(|e| e.to_string());
        let wrong = parse(Words { states: vec!["half-open".into()], ..Words::default() });
        assert!(wrong.is_err_and(|e| e.contains("half-open")));
        assert!(parse(Words { addresses: vec!["x".into()], ..Words::default() }).is_err());
        assert!(parse(Words { direction: Some("up".into()), ..Words::default() }).is_err());
    }
}
