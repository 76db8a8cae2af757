//! Lets clients in, so many at a time: descriptors are something that the agent needs for itself. Whoever comes when all
//! places are taken waits outside until somebody goes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::sleep;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;
use tracing::warn;

/// Time until the next try, after the system refused.
const AGAIN: Duration = Duration::from_secs(1);

/// Where they come.
pub(super) enum Door {
    Unix(UnixListener),
    Tcp(TcpListener),
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A client that is in. Its place is free again when it goes.
pub(super) struct Client {
    io: Box<dyn Io>,
    _place: OwnedSemaphorePermit,
}

impl Door {
    async fn come(&self) -> io::Result<Box<dyn Io>> {
        Ok(match self {
            Self::Unix(listener) => Box::new(listener.accept().await?.0),
            Self::Tcp(listener) => Box::new(listener.accept().await?.0),
        })
    }

    /// Clients as they come, at most `places` at a time.
    pub(super) fn open(self, places: usize) -> ReceiverStream<io::Result<Client>> {
        let (sender, clients) = mpsc::channel(1);
        let places = Arc::new(Semaphore::new(places));
        tokio::spawn(async move {
            while let Ok(place) = places.clone().acquire_owned().await {
                let came = tokio::select! {
                    came = self.come() => came,
                    () = sender.closed() => return,
                };
                match came {
                    Ok(io) => {
                        if sender.send(Ok(Client { io, _place: place })).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        warn!(%error, "a client cannot be let in");
                        sleep(AGAIN).await;
                    }
                }
            }
        });
        ReceiverStream::new(clients)
    }
}

impl Connected for Client {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Client {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Client {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tonic::codegen::tokio_stream::StreamExt;

    use super::*;

    #[test]
    fn who_comes_when_all_places_are_taken_waits_until_somebody_goes() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("an address");
            let mut clients = Door::Tcp(listener).open(1);
            let mut one = TcpStream::connect(address).await.expect("a connection");
            let mut first = clients.next().await.expect("somebody").expect("let in");
            let _two = TcpStream::connect(address).await.expect("a connection");
            one.write_all(b"x").await.expect("written");
            assert_eq!(first.read_u8().await.expect("a byte"), b'x');
            // Whatever could be let in has been by now: the task ran when the byte was waited for.
            assert!(now(&mut clients).await.is_none());
            drop(first);
            clients.next().await.expect("the second").expect("let in");
        });
    }

    /// The next client, if it is there already.
    async fn now(clients: &mut ReceiverStream<io::Result<Client>>) -> Option<io::Result<Client>> {
        tokio::select! {
            biased;
            client = clients.next() => client,
            () = tokio::task::yield_now() => None,
        }
    }
}
