//! The one socket option that no safe crate offers, and so the only unsafe code of the relay.
#![allow(unsafe_code, reason = "SO_RCVLOWAT is in neither socket2 nor rustix")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Sets `SO_RCVLOWAT`: the kernel calls the socket readable once `bytes` are there, or it has ended (socket(7)). Raising an edge where the
/// mark is already reached is the kernel's doing, so a mark below what is there loses nothing. A mark above half of the
/// receive buffer would grow that buffer for good: the caller stays below.
///
/// # Errors
/// What setsockopt(2) says; on a TCP socket that is ours, nothing is known to.
pub(super) fn set_receive_low_water(socket: BorrowedFd<'_>, bytes: u32) -> io::Result<()> {
    let value = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    // SAFETY: the descriptor is open while it is borrowed; the option takes a c_int, whose address and size are given, and the
    // kernel only reads it during the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVLOWAT,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
