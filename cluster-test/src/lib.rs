//! Everything that needs more than one broker or a hostile world: real processes, real sockets, real kills.
//!
//! The tests stand in `tests/`: `tidy` checks the tree, `cluster` starts brokers. `src/bin/figures` measures what the
//! README and `docs/performance.md` claim.

pub mod chaos;
pub mod harness;
pub mod sim;
