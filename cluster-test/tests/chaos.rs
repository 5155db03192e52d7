//! The chaos harness itself, as people run it: short rounds, a planted violation, a violent end, bad input.

#[path = "chaos/bad_input.rs"]
mod bad_input;
#[path = "chaos/killed.rs"]
mod killed;
#[path = "chaos/rounds.rs"]
mod rounds;
#[path = "chaos/run.rs"]
mod run;
