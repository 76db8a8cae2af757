//! Where the agent is found: a socket in the file system, whose permissions decide who may come; or a port, on this host
//! alone.

use std::fmt;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

/// An address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A socket at this path.
    Unix(PathBuf),
    /// A port of this host.
    Tcp(SocketAddr),
}

/// Why nothing can be served there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It means nothing.
    #[error("`{0}` is no address, as unix:/run/haechi/haechi.sock or tcp:127.0.0.1:4466")]
    Form(String),
    /// Anybody could come from afar.
    #[error(
        "{0} can be reached from other hosts, and nothing would be encrypted: only ports of 127.0.0.0/8 and ::1 can be served"
    )]
    Afar(SocketAddr),
    /// Somebody serves there.
    #[error("another agent serves at unix:{}; `serve.address` can name another place", .0.display())]
    Taken(PathBuf),
    /// Not ours to replace.
    #[error("{} is there, and is no socket", .0.display())]
    NoSocket(PathBuf),
    /// The system refuses.
    #[error("{address} cannot be served")]
    Refused {
        /// What was tried.
        address: Address,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let form = || Error::Form(text.to_owned());
        match text.split_once(':') {
            Some(("unix", path)) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(("tcp", address)) => {
                let address: SocketAddr = address.parse().map_err(|_source| form())?;
                if address.ip().is_loopback() { Ok(Self::Tcp(address)) } else { Err(Error::Afar(address)) }
            }
            _ => Err(form()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

/// Somebody listens; the socket goes when this does.
#[derive(Debug)]
pub enum Listener {
    /// At a path, with the inode that is ours.
    Unix(UnixListener, PathBuf, u64),
    /// At a port.
    Tcp(TcpListener),
}

impl Address {
    /// Listens there.
    ///
    /// # Errors
    /// When somebody does already, or the system refuses.
    pub fn listen(&self) -> Result<Listener, Error> {
        let refused = |source| Error::Refused { address: self.clone(), source };
        match self {
            Self::Unix(path) => at_path(path, &refused),
            Self::Tcp(address) => {
                let listener = TcpListener::bind(address).map_err(refused)?;
                listener.set_nonblocking(true).map_err(refused)?;
                Ok(Listener::Tcp(listener))
            }
        }
    }
}

/// How long another process may hold the directory of the socket.
const TURN: Duration = Duration::from_secs(5);

/// The socket gets its permissions under another name, and then its own: nobody can come in between.
fn at_path(path: &Path, refused: &dyn Fn(io::Error) -> Error) -> Result<Listener, Error> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(refused)?;
    // Of two that start at once, the second finds the first. Whoever may open the directory can hold it for ever.
    let turn = File::open(dir).map_err(refused)?;
    let begun = Instant::now();
    while let Err(error) = turn.try_lock() {
        if begun.elapsed() > TURN {
            return Err(refused(error.into()));
        }
        thread::sleep(TURN / 100);
    }
    if let Ok(there) = fs::symlink_metadata(path) {
        if !there.file_type().is_socket() {
            return Err(Error::NoSocket(path.to_owned()));
        }
        match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            _ => return Err(Error::Taken(path.to_owned())),
        }
    }
    let made = dir.join(format!(".{}", std::process::id()));
    // Of a process that had our number, and was killed in between.
    let _ = fs::remove_file(&made);
    let listener = UnixListener::bind(&made).map_err(refused)?;
    let ready = fs::set_permissions(&made, Permissions::from_mode(0o600))
        .and_then(|()| listener.set_nonblocking(true))
        .and_then(|()| fs::metadata(&made))
        .and_then(|meta| fs::rename(&made, path).map(|()| meta.ino()));
    match ready {
        Ok(inode) => Ok(Listener::Unix(listener, path.to_owned(), inode)),
        Err(error) => {
            // It would lie about with nobody behind it.
            let _ = fs::remove_file(&made);
            Err(refused(error))
        }
    }
}

/// Takes the socket away, unless somebody else's has its name by now.
pub fn remove(path: &Path, inode: u64) {
    if fs::symlink_metadata(path).is_ok_and(|meta| meta.ino() == inode) {
        // It is stale without us, and the next one replaces it.
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_paths_and_ports_of_this_host() {
        for text in ["unix:/run/haechi/haechi.sock", "tcp:127.0.0.1:4466", "tcp:[::1]:4466"] {
            assert_eq!(text.parse::<Address>().expect(text).to_string(), text);
        }
        for text in ["", "unix:", "unix:relative", "/run/x", "tcp:localhost:1", "http://127.0.0.1:1"] {
            assert!(matches!(text.parse::<Address>(), Err(Error::Form(_))), "{text}");
        }
        for text in ["tcp:0.0.0.0:4466", "tcp:10.0.0.1:4466", "tcp:[::]:4466"] {
            assert!(matches!(text.parse::<Address>(), Err(Error::Afar(_))), "{text}");
        }
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = std::env::temp_dir().join(format!("haechi-address-{}", std::process::id()));
        let path = dir.join("deep/er/agent.sock");
        let address = Address::Unix(path.clone());
        let Ok(Listener::Unix(listener, _, inode)) = address.listen() else { panic!("nobody was there") };
        assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o600);
        assert!(matches!(address.listen(), Err(Error::Taken(p)) if p == path));
        drop(listener);
        let Ok(Listener::Unix(_second, _, second)) = address.listen() else { panic!("it was stale") };
        // Of the first one only its name was left, and that is taken.
        remove(&path, inode);
        assert!(path.exists());
        remove(&path, second);
        assert!(!path.exists());
        fs::write(&path, "a file").expect("a file");
        assert!(matches!(address.listen(), Err(Error::NoSocket(p)) if p == path));
        assert_eq!(fs::read_dir(path.parent().expect("a parent")).expect("a directory").count(), 1);
        fs::remove_dir_all(&dir).expect("ours");
    }
}
