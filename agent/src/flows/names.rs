//! Who names the other end of a connection. One question for all who can answer: what is known of this node today, and
//! pods, services and nodes where somebody knows them.

use std::net::SocketAddr;
use std::sync::Arc;

use haechi_ebpf::event::{Field, net_flow, net_tcp_accept, net_tcp_connect};
use haechi_ebpf::wire::{View, at};
use haechi_signatures::model::{Container, Image, ProcessKey};
use haechi_signatures::path::leaf;
use haechi_signatures::sockaddr::ip;

/// A connection as one end sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leg {
    /// Network namespace of this end.
    pub netns: u32,
    /// Address of this end.
    pub local: SocketAddr,
    /// Address of the other end.
    pub remote: SocketAddr,
    /// When it began, nanoseconds since boot; 0 is unknown.
    pub since: u64,
}

impl Leg {
    /// What the record of a connection says of it. IPv4 is IPv4, whatever the socket.
    #[must_use]
    pub fn of(view: &View<'_>) -> Option<Self> {
        let end = |address: Field, port: Field| {
            let port = u16::try_from(view.number(port)?).ok()?;
            Some(SocketAddr::new(ip(view.text(address)?.bytes)?, port))
        };
        let (local, remote, since) = match view.event() {
            net_flow::ID => {
                use net_flow::field as f;
                (end(f::src, f::src_port)?, end(f::dst, f::dst_port)?, view.number(f::start_time).unwrap_or_default())
            }
            net_tcp_connect::ID => {
                use net_tcp_connect::field as f;
                (end(f::src, f::src_port)?, end(f::dst, f::dst_port)?, view.time())
            }
            net_tcp_accept::ID => {
                use net_tcp_accept::field as f;
                (end(f::dst, f::dst_port)?, end(f::src, f::src_port)?, 0)
            }
            _ => return None,
        };
        Some(Self { netns: view.header_u32(at::NET_NS), local, remote, since })
    }
}

/// What a name is the name of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A process of this node.
    Process,
    /// A pod, by its name in the cluster.
    Pod,
    /// A service of the cluster.
    Service,
    /// A node of the cluster.
    Node,
    /// Somebody outside.
    World,
}

impl Kind {
    /// Name in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        ["process", "pod", "service", "node", "world"][self as usize]
    }
}

/// Who is at an end of a connection.
#[derive(Clone, Debug, PartialEq)]
pub struct Name {
    /// What it is.
    pub kind: Kind,
    /// What it is called, where it is no process.
    pub name: Option<Arc<str>>,
    /// Which process of this node.
    pub process: Option<Peer>,
}

impl Name {
    /// What it is called: a process by its program.
    #[must_use]
    pub fn text(&self) -> &str {
        match self.process.as_ref().and_then(|p| p.image.as_deref()) {
            Some(image) if image.exe.is_empty() => &image.comm,
            Some(image) => leaf(&image.exe),
            None => self.name.as_deref().unwrap_or_default(),
        }
    }
}

/// A process of this node that is the other end.
#[derive(Clone, Debug, PartialEq)]
pub struct Peer {
    /// Its end of the connection: number of the socket and beginning, as its own records say; 0 is unknown.
    pub flow: (u64, u64),
    /// Which; number 0 is unknown.
    pub process: ProcessKey,
    /// Its number in its own pid namespace; 0 is unknown.
    pub ns_pid: u32,
    /// Real user.
    pub uid: u32,
    /// Its program.
    pub image: Option<Arc<Image>>,
    /// Its container.
    pub container: Option<Arc<Container>>,
    /// Network namespace of its end.
    pub netns: u32,
}

/// Names the other ends of connections.
pub trait Names {
    /// Who is at the other end of `leg`, where this knows.
    fn name(&self, leg: &Leg) -> Option<Name>;
}
