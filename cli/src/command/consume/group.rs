//! `consume --group`: as a member of a consumer group. What was printed counts as done.

use std::collections::BTreeMap;

use client::{
    Client, ClientError, ConsumedRecord, ConsumerConfig, GroupConfig, GroupConsumer, OffsetReset,
    TopicPartition,
};
use tokio::time::Instant;
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;

use super::{POLL, Printer};
use crate::args::Consume;
use crate::context::Context;
use crate::exit::Failure;
use crate::offset::{Place, Range};

pub(super) async fn run(context: &Context, args: &Consume, group: &str) -> Result<(), Failure> {
    let client = context.patient_client()?;
    let consumer = ConsumerConfig { offset_reset: reset(args.from)?, ..ConsumerConfig::default() };
    let mut member = client.group_consumer(GroupConfig { consumer, ..GroupConfig::new(group) })?;
    member.subscribe([&args.topic])?;
    let mut printer = Printer::new(context, args);
    let outcome = tokio::select! {
        outcome = read(context, args, &client, &mut member, &mut printer) => outcome,
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    // Records that could not be printed are not done: then the session just ends.
    let is_printed = match &outcome {
        Err(Failure::BrokenPipe) => false,
        Err(Failure::Api(error)) => error.code != ErrorCode::LocalIo,
        Ok(()) | Err(Failure::Told(_)) => true,
    };
    if is_printed {
        member.close().await?;
    }
    printer.finish(context)?;
    outcome
}

/// Where a partition begins that has no committed offset.
fn reset(from: Option<Range>) -> Result<OffsetReset, Failure> {
    match from {
        None => Ok(OffsetReset::Earliest),
        Some(Range { from: Some(Place::Earliest), to: None }) => Ok(OffsetReset::Earliest),
        Some(Range { from: Some(Place::Latest), to: None }) => Ok(OffsetReset::Latest),
        Some(_) => Err(Failure::usage(
            "a member of a group begins at the group's committed offset; --from says only where it begins without one",
            "--from earliest or latest; altair-cli group seek moves the committed offsets",
        )),
    }
}

async fn read(
    context: &Context,
    args: &Consume,
    client: &Client,
    member: &mut GroupConsumer,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let mut ends = Ends::default();
    let mut last_progress = Instant::now();
    while args.count != Some(printer.printed) {
        let records = records(args, member).await?;
        if !records.is_empty() {
            last_progress = Instant::now();
        }
        for record in &records {
            printer.print(record)?;
        }
        printer.flush()?;
        if args.follow {
            continue;
        }
        ends.learn(client, member).await?;
        if ends.are_reached(member) {
            return Ok(());
        }
        if last_progress.elapsed() > context.timeout() {
            return Err(stuck(context, member));
        }
    }
    Ok(())
}

/// One by one if they are counted: what is beyond the count is left to the group.
async fn records(args: &Consume, member: &mut GroupConsumer) -> Result<Vec<ConsumedRecord>, ClientError> {
    match args.count {
        None => member.poll(POLL).await,
        Some(_) => Ok(member.next(POLL).await?.into_iter().collect()),
    }
}

/// Where partitions ended when they were assigned.
#[derive(Default)]
struct Ends(BTreeMap<TopicPartition, u64>);

impl Ends {
    async fn learn(&mut self, client: &Client, member: &GroupConsumer) -> Result<(), Failure> {
        let unknown: Vec<TopicPartition> =
            member.assignment().into_iter().filter(|at| !self.0.contains_key(at)).collect();
        if !unknown.is_empty() {
            let asking = client.consumer(ConsumerConfig::default())?;
            self.0.extend(asking.end_offsets(&unknown).await?);
        }
        Ok(())
    }

    /// True if the member has partitions and has read each of them up to here.
    fn are_reached(&self, member: &GroupConsumer) -> bool {
        let mine = member.assignment();
        let is_read = |at: &TopicPartition| {
            let position = member.position(&at.topic, at.partition.0);
            self.0.get(at).is_some_and(|end| position.is_some_and(|position| position >= *end))
        };
        !mine.is_empty() && mine.iter().all(is_read)
    }
}

fn stuck(context: &Context, member: &GroupConsumer) -> Failure {
    let message = format!("no record came for {}", humantime::format_duration(context.timeout()));
    let reason = match (member.member(), member.assignment().len()) {
        (None, _) => "this consumer is not a member of the group yet".to_owned(),
        (_, 0) => "the group has assigned no partition to this consumer".to_owned(),
        (_, count) => format!("{count} partitions are assigned and not read to their ends"),
    };
    Failure::Api(
        ApiError::new(ErrorCode::Timeout, message)
            .reason(reason)
            .hint("altair-cli group describe shows who has the partitions; --follow waits for ever"),
    )
}
