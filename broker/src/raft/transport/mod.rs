//! The links between brokers: one directed pair has a link each way, and all groups share it.

pub(crate) mod carrier;
pub(crate) mod channel;
mod chunk;
pub(crate) mod frame;
pub(crate) mod inbound;
pub(crate) mod link;
pub(crate) mod message;
pub(crate) mod network;
