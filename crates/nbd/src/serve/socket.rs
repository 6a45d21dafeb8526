//! A socket between a client and its server. It blocks; another thread may end it at any time.

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::retry_on_intr;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, recv, sendmsg, shutdown};

/// A client that has been silent for so long is asked whether it is there. The kernel then takes some
/// minutes to give up one that vanished.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Socket(OwnedFd);

impl Socket {
    pub(crate) const fn new(socket: OwnedFd) -> Self {
        Self(socket)
    }

    pub(crate) fn over_tcp(socket: OwnedFd) -> Self {
        // Each costs some speed at most.
        let _ = sockopt::set_tcp_nodelay(&socket, true);
        let _ = sockopt::set_socket_keepalive(&socket, true);
        let _ = sockopt::set_tcp_keepidle(&socket, KEEPALIVE_IDLE);
        Self(socket)
    }

    /// Waits for some bytes; 0 when none will come any more.
    pub(crate) fn receive(&self, into: &mut [u8]) -> io::Result<usize> {
        let received = retry_on_intr(|| recv(&self.0, &mut *into, RecvFlags::empty()));
        Ok(received?.0)
    }

    /// Sends all of both.
    pub(crate) fn send(&self, mut first: &[u8], mut second: &[u8]) -> io::Result<()> {
        while !(first.is_empty() && second.is_empty()) {
            let parts = [IoSlice::new(first), IoSlice::new(second)];
            let mut nothing = SendAncillaryBuffer::default();
            let sent =
                retry_on_intr(|| sendmsg(&self.0, &parts, &mut nothing, SendFlags::NOSIGNAL))?;
            let of_first = sent.min(first.len());
            first = &first[of_first..];
            second = &second[sent - of_first..];
        }
        Ok(())
    }

    /// How long a receive or a send may wait; without end by default.
    pub(crate) fn limit_waits(&self, limit: Option<Duration>) -> io::Result<()> {
        sockopt::set_socket_timeout(&self.0, Timeout::Recv, limit)?;
        Ok(sockopt::set_socket_timeout(&self.0, Timeout::Send, limit)?)
    }

    /// Whoever receives is told the end; what is to be sent still can be.
    pub(super) fn end_receiving(&self) {
        let _ = shutdown(&self.0, Shutdown::Read);
    }

    /// Tells the client the end, once all that was sent has reached it.
    pub(super) fn end_sending(&self) {
        let _ = shutdown(&self.0, Shutdown::Write);
    }

    /// Ends it at once: whoever waits on it is woken.
    pub(crate) fn end(&self) {
        // It fails only where the client ended it before.
        let _ = shutdown(&self.0, Shutdown::Both);
    }
}
