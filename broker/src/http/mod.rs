//! The HTTP door: health, metrics, and one shape of error. HTTP/1.1, hyper, over the network seam.
//!
//! It decides nothing: every answer comes from `api`.

mod problem;
mod router;
mod server;

pub use server::HttpServer;
