//! The sockets of this host, as the kernel lists them for the caller's network namespace.
//!
//! | file | concept |
//! |---|---|
//! | `owner` | the user that holds one TCP socket |
//! | `holder` | the process that listens on a port, for a message |
//! | `listing` | all unix sockets and all TCP sockets on loopback, with what each is connected to |
//! | `unix` | pure: unix sockets in the kernel's answers |
//! | `tcp` | pure: TCP sockets in the kernel's answers |

#![forbid(unsafe_code)]

mod holder;
mod listing;
mod owner;
mod tcp;
mod unix;

pub use holder::{PortHolder, holder_of};
pub use listing::{Listing, fuzz, loopback, unix};
pub use owner::{
    OVERFLOW_UID, SocketOrigin, SocketOwner, is_ambiguous, of_connection, of_listener, of_server, origin_of_connection,
};
pub use tcp::TcpSocket;
pub use unix::UnixSocket;
