//! Real brokers, one cluster at a time: what must hold when processes die, disks fill and strangers call.

#[path = "cluster/bad_input.rs"]
mod bad_input;
#[path = "cluster/bench.rs"]
mod bench;
#[path = "cluster/disks.rs"]
mod disks;
#[path = "cluster/group_commands.rs"]
mod group_commands;
#[path = "cluster/groups.rs"]
mod groups;
#[path = "cluster/kills.rs"]
mod kills;
#[path = "cluster/lost_disk.rs"]
mod lost_disk;
#[path = "cluster/packages.rs"]
mod packages;
#[path = "cluster/power.rs"]
mod power;
#[path = "cluster/topics.rs"]
mod topics;
#[path = "cluster/verify.rs"]
mod verify_command;
#[path = "cluster/workload.rs"]
mod workload;
