//! Everything that needs more than one broker or a hostile world: real processes, real sockets, real kills.
//!
//! The tests stand in `tests/`: `tidy` checks the tree, `cluster` starts brokers. `src/bin/figures` measures what the
//! README and `docs/performance.md` claim. `sim` is the simulator, `invariant` what it checks while it runs.

pub mod chaos;
pub mod harness;
pub mod invariant;
pub mod sim;
