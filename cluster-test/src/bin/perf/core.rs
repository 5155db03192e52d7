//! The suite `core`: what is asked of the product's speed, one contest for each piece of work.

use super::contest::{Bound, Contest, Figures, Plan, Row, Side};
use super::nats::{self, Sync};
use super::nats_load::{Records, consume, end_to_end, produce};
use super::{altair, failover, raw, slow_links};

const ALTAIR: &str = "Altair";
const ALTAIR_ALL: &str = "Altair, acks=all";
const NATS: &str = "NATS";
const NATS_SYNC: &str = "NATS, sync always";
const MACHINE: &str = "this machine";

const FSYNC_ALL: &str = "fsync on a majority before the ack";
const FSYNC_ONE: &str = "fsync before the ack";
const NO_FSYNC: &str = "no fsync before the ack";

/// Records of 1 KiB and how fast they come where a rate is asked for.
const KIB: usize = 1 << 10;
const RATE: u32 = 1_000;

/// All contests.
pub(super) fn contests(plan: Plan) -> Vec<Contest> {
    let mut all = vec![
        machine(plan),
        one_broker(plan),
        produce_1k(plan),
        produce_100(plan),
        batches_of_1m(plan),
        consume_1k(),
        e2e_1k(plan),
        acks_leader(plan),
        failover(),
    ];
    if nats::program().is_none() {
        for contest in &mut all {
            contest.sides.retain(|side| side.name != NATS && side.name != NATS_SYNC);
        }
    }
    all
}

fn row(figure: &'static str, unit: &'static str, what: &'static str) -> Row {
    Row::plain(ALTAIR, figure, what, unit)
}

fn against(row: Row, side: &'static str, asked: Bound) -> Row {
    Row { against: Some(side), asked: Some(asked), ..row }
}

fn ours(durability: &'static str, bench: altair::Bench) -> Side {
    Side::new(ALTAIR, durability, move || altair::bench(bench))
}

fn theirs<F>(sync: Sync, work: impl Fn(Sync) -> F + 'static) -> Side
where
    F: Future<Output = anyhow::Result<Figures>> + Send + 'static,
{
    match sync {
        Sync::Default => Side::new(NATS, NO_FSYNC, move || work(sync)),
        Sync::Always => Side::new(NATS_SYNC, FSYNC_ALL, move || work(sync)),
    }
}

fn machine(plan: Plan) -> Contest {
    let side = Side::new(MACHINE, "fdatasync", move || async move {
        let mut figures = raw::syncs(plan.span).await?;
        figures.extend(raw::loopback(plan.span).await?);
        Ok(figures)
    });
    let of = |row: Row| Row { of: MACHINE, ..row };
    Contest {
        name: "machine",
        what: "syncs of 4 KiB and bytes over the loopback interface, without a broker",
        sides: vec![side],
        rows: vec![
            of(row("records", "/s", "write of 4 KiB and fdatasync")),
            of(row("mib", "MiB/s", "one connection over loopback")),
        ],
        runs: None,
    }
}

fn one_broker(plan: Plan) -> Contest {
    let bench = altair::Bench {
        brokers: 1,
        args: &["produce", "--partitions", "1", "--rf", "1"],
        span: Some(plan.span.as_secs()),
    };
    let bare = Side::new(MACHINE, "five batches of 64 KiB a sync, checksum, segment", move || {
        raw::pipeline(plan.span)
    });
    Contest {
        name: "one-broker",
        what: "one broker, one partition, batches of 64 KiB, against the bare way to the disk",
        sides: vec![ours(FSYNC_ONE, bench), bare],
        rows: vec![against(
            row("mib", "MiB/s", "produce, one broker RF 1, 1 partition, 64 KiB batches"),
            MACHINE,
            Bound::AtLeast(0.5),
        )],
        runs: None,
    }
}

fn produce_1k(plan: Plan) -> Contest {
    let bench = altair::Bench {
        brokers: 3,
        args: &["produce", "--partitions", "12", "--rf", "3", "--record-size", "1KiB"],
        span: Some(plan.span.as_secs()),
    };
    let nats = move |sync| produce(Records { sync, size: KIB }, plan.span);
    let rate = row("mib", "MiB/s", "produce, 12 partitions, 1 KiB records, one producer");
    Contest {
        name: "produce-1k",
        what: "three brokers, RF 3, acks=all, 12 partitions, records of 1 KiB, batches of 64 KiB",
        sides: vec![ours(FSYNC_ALL, bench), theirs(Sync::Default, nats), theirs(Sync::Always, nats)],
        rows: vec![
            row("records", "records/s", "… in records"),
            against(rate, NATS, Bound::AtLeast(2.0)),
            against(rate, NATS_SYNC, Bound::AtLeast(4.0)),
            Row {
                asked: Some(Bound::AtMost(12.0)),
                ..row("cpu", "CPU-s/GB", "client and cluster, 1 KiB records, 64 KiB batches")
            },
        ],
        runs: None,
    }
}

fn produce_100(plan: Plan) -> Contest {
    let bench = altair::Bench {
        brokers: 3,
        args: &["produce", "--partitions", "12", "--rf", "3", "--record-size", "100"],
        span: Some(plan.span.as_secs()),
    };
    let nats = move |sync| produce(Records { sync, size: 100 }, plan.span);
    Contest {
        name: "produce-100",
        what: "the same with records of 100 bytes",
        sides: vec![ours(FSYNC_ALL, bench), theirs(Sync::Default, nats)],
        rows: vec![against(
            row("records", "records/s", "produce, 12 partitions, 100 B records, one producer"),
            NATS,
            Bound::AtLeast(6.0),
        )],
        runs: None,
    }
}

fn batches_of_1m(plan: Plan) -> Contest {
    let bench = altair::Bench {
        brokers: 3,
        args: &[
            "produce",
            "--partitions",
            "12",
            "--rf",
            "3",
            "--record-size",
            "1KiB",
            "--batch-size",
            "1MiB",
        ],
        span: Some(plan.span.as_secs()),
    };
    Contest {
        name: "produce-1m",
        what: "records of 1 KiB in batches of 1 MiB",
        sides: vec![ours(FSYNC_ALL, bench)],
        rows: vec![
            row("mib", "MiB/s", "produce, 12 partitions, 1 KiB records, 1 MiB batches"),
            Row {
                asked: Some(Bound::AtMost(8.0)),
                ..row("cpu", "CPU-s/GB", "client and cluster, 1 KiB records, 1 MiB batches")
            },
        ],
        runs: None,
    }
}

fn consume_1k() -> Contest {
    let bench = altair::Bench {
        brokers: 3,
        args: &["consume", "--partitions", "12", "--rf", "3", "--record-size", "1KiB", "--preload", "256MiB"],
        span: None,
    };
    Contest {
        name: "consume-1k",
        what: "256 MiB of 1 KiB records, just written, read by one consumer from the begin to the end",
        sides: vec![
            ours("page cache", bench),
            Side::new(NATS, "page cache", || consume(Records { sync: Sync::Default, size: KIB })),
        ],
        rows: vec![
            against(
                row("mib", "MiB/s", "consume from page cache, 1 KiB records, one consumer"),
                NATS,
                Bound::AtLeast(2.0),
            ),
            row("cpu", "CPU-s/GB", "… client and cluster"),
        ],
        runs: None,
    }
}

fn e2e_1k(plan: Plan) -> Contest {
    let bench = altair::Bench {
        brokers: 3,
        args: &[
            "e2e",
            "--partitions",
            "12",
            "--rf",
            "3",
            "--record-size",
            "1KiB",
            "--rate",
            "1000",
            "--linger",
            "0ms",
        ],
        span: Some(plan.span.as_secs()),
    };
    let nats = move |sync| end_to_end(Records { sync, size: KIB }, RATE, plan.span);
    let time = |figure, what| against(row(figure, "ms", what), NATS_SYNC, Bound::AtMost(1.0));
    Contest {
        name: "e2e-1k",
        what: "1,000 records of 1 KiB a second, from the send to the arrival at a consumer",
        sides: vec![ours(FSYNC_ALL, bench), theirs(Sync::Always, nats)],
        rows: vec![
            time("p50", "end to end at 1,000 records/s, 1 KiB, p50"),
            time("p99", "end to end at 1,000 records/s, 1 KiB, p99"),
        ],
        runs: None,
    }
}

fn acks_leader(plan: Plan) -> Contest {
    let seconds = plan.span.as_secs();
    let leader =
        Side::new(ALTAIR, "fsync on the leader before the ack", move || slow_links::acks("leader", seconds));
    let all = Side::new(ALTAIR_ALL, FSYNC_ALL, move || slow_links::acks("all", seconds));
    Contest {
        name: "acks-leader",
        what: "single records of 1 KiB with 5 ms of delay on the links between brokers",
        sides: vec![leader, all],
        rows: vec![
            against(
                row("p50", "ms", "acks=leader, links with 5 ms of delay, p50"),
                ALTAIR_ALL,
                Bound::AtMost(0.6),
            ),
            row("p99", "ms", "… p99"),
        ],
        runs: None,
    }
}

fn failover() -> Contest {
    let gap = |what| row("gap", "ms", what);
    Contest {
        name: "failover",
        what: "a leader killed under load",
        sides: vec![Side::new(ALTAIR, FSYNC_ALL, failover::demo)],
        rows: vec![
            Row {
                asked: Some(Bound::AtMost(1_200.0)),
                ..gap("leader killed: longest gap between acks, median")
            },
            Row { asked: Some(Bound::AtMost(2_000.0)), worst: true, ..gap("… worst of ten") },
        ],
        runs: Some(10),
    }
}
