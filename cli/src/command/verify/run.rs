//! `verify run`: the run from the first check to the verdict.

use std::sync::Arc;
use std::time::Duration;

use client::{Acks, Client, ProducerConfig};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;
use verify::history::{Expectations, Recorder};
use verify::report::Report;
use verify::workload::{
    FinalReadSpec, FinalReads, Placement, ReaderSpec, TopicTarget, Trouble, Workload, WorkloadSpec,
    WriterSpec, final_read,
};
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;

use super::args::{VerifyFault, VerifyRun};
use super::kept::Kept;
use super::topic::{self, removal};
use super::{judge, live, show, transfers, unbelievable, verdict};
use crate::context::Context;
use crate::convert::duration_text;
use crate::exit::{ERROR, Failure};
use crate::terminal;

/// How long the workload runs where nobody said it.
const DURATION: Duration = Duration::from_secs(60);
/// Records that one writer sends before it drops its client and begins anew, as applications do.
const RESTART_AFTER: u32 = 2_000;
/// Keys of the writers that choose partitions by key.
const KEYS: u32 = 100;

pub(super) async fn run(context: &Context, args: &VerifyRun) -> Result<(), Failure> {
    let name = topic::unique_name(&args.topic_prefix)?;
    if !args.with.is_empty() {
        let question = format!("move leaders of {name} on the cluster at {}", context.addresses());
        terminal::confirm(&question, args.yes, "without --with nothing is disturbed")?;
    }
    let (kept, recorder) = Kept::create(args.keep.as_deref(), &name)?;
    let prepared = prepare(context, args, &name).await;
    let (client, rf) = prepared.inspect_err(|_| kept.remove())?;
    let run = Run { context, args, client, name, rf, recorder, kept, stop: CancellationToken::new() };
    let interrupted = async {
        interrupt().await;
        terminal::note(
            "interrupted: what is under way is waited for, read and judged; Ctrl-C once more ends at once",
        );
        run.stop.cancel();
        interrupt().await;
    };
    tokio::select! {
        biased;
        outcome = run.to_the_verdict() => outcome,
        () = interrupted => run.abandon(),
    }
}

/// Waits for Ctrl-C; for ever where it cannot be heard.
async fn interrupt() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Creates the topic; its client and replication factor.
async fn prepare(context: &Context, args: &VerifyRun, name: &str) -> Result<(Client, u32), Failure> {
    let client = context.client()?;
    let rf = topic::replicas(context, &client, args.rf).await?;
    topic::create(context, &client, args, (name, rf)).await?;
    Ok((client, rf))
}

struct Run<'a> {
    context: &'a Context,
    args: &'a VerifyRun,
    client: Client,
    name: String,
    rf: u32,
    recorder: Recorder,
    kept: Kept,
    /// Cancelled at the end of the time, or by Ctrl-C.
    stop: CancellationToken,
}

impl Run<'_> {
    async fn to_the_verdict(&self) -> Result<(), Failure> {
        let duration = self.duration();
        self.say(&format!(
            "topic {}: {} partitions, {} replicas; {} writers and {} readers for {}",
            self.name,
            self.args.partitions,
            self.rf,
            self.args.writers,
            self.args.readers,
            duration_text(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
        ));
        let interrupted = self.work(duration).await?;
        self.say("reading every replica to its end");
        let read = final_read(&self.final_spec(), &self.recorder).await;
        let read = read.unwrap_or_else(|error| unread(&self.name, error.into_api()));
        self.recorder.expect(self.expectations(&read));
        self.recorder.finish().map_err(|error| unbelievable(&error))?;
        let report = self.judge().await?;
        self.kept.keep_report(&report)?;
        self.conclude(&report, (&read, interrupted)).await?;
        verdict(&report)?;
        self.is_proof(&report, &read)
    }

    fn duration(&self) -> Duration {
        let minutes = self.args.minutes.map(|minutes| Duration::from_secs(60) * minutes);
        minutes.or(self.args.duration).unwrap_or(DURATION)
    }

    /// Runs the workload; true if it was ended early.
    async fn work(&self, duration: Duration) -> Result<bool, Failure> {
        let workload = Workload::new(self.workload(), self.recorder.clone())
            .map_err(|error| Failure::usage(error.to_string(), "check --addr, --writers and --readers"))?;
        let progress = workload.progress();
        let timer = async {
            tokio::select! {
                () = self.stop.cancelled() => true,
                () = tokio::time::sleep(duration) => {
                    self.stop.cancel();
                    false
                }
            }
        };
        let faults = async {
            if self.args.with.contains(&VerifyFault::Transfers) {
                tokio::select! {
                    () = self.stop.cancelled() => {}
                    () = transfers::transfer(self.context, &self.client, &self.name, &self.recorder) => {}
                }
            }
        };
        let shown = live::show(self.context, &progress, duration, &self.stop);
        let (_, interrupted, (), ()) = tokio::join!(workload.run(self.stop.clone()), timer, faults, shown);
        Ok(interrupted)
    }

    fn workload(&self) -> WorkloadSpec {
        let config = self.context.config();
        let clients = Arc::new(move |_worker| config.clone());
        // What is chosen need not repeat itself: the history is the record.
        let seed = u64::from(std::process::id());
        let mut spec = WorkloadSpec::new(seed, clients, self.topics());
        spec.writers = (0..self.args.writers).map(writer).collect();
        spec.readers = (0..self.args.readers).map(reader).collect();
        spec
    }

    fn topics(&self) -> Vec<TopicTarget> {
        vec![TopicTarget::new(&*self.name, self.args.partitions)]
    }

    fn final_spec(&self) -> FinalReadSpec {
        FinalReadSpec::new(self.context.config(), self.topics())
    }

    /// Replicas that the cluster itself knew to be away cannot be asked for; those that it called in sync can.
    fn expectations(&self, read: &FinalReads) -> Expectations {
        let unproven = unproven(read).is_some();
        let replicas = if unproven { 0 } else { self.rf.saturating_sub(away(&read.troubles)) };
        Expectations { replicas, ..Expectations::default() }
    }

    async fn judge(&self) -> Result<Report, Failure> {
        let path = self.kept.history.clone();
        // On a thread of its own: a long history takes seconds, and Ctrl-C must be heard meanwhile.
        let judged = tokio::task::spawn_blocking(move || judge(&[path])).await;
        judged.map_err(|error| Failure::new(ErrorCode::Internal, format!("the judge failed: {error}")))?
    }

    /// Shows the report; removes what is not needed as evidence.
    async fn conclude(&self, report: &Report, end: (&FinalReads, bool)) -> Result<(), Failure> {
        let (read, interrupted) = end;
        let removed = report.is_clean()
            && !self.args.keep_topic
            && topic::remove(self.context, &self.client, &self.name).await;
        let keeps_history = self.kept.is_wanted() || !report.is_clean();
        if !keeps_history {
            self.kept.remove();
        }
        for trouble in &read.troubles {
            self.say(&format!("not read to its end: {trouble}"));
        }
        let history = self.kept.history.display().to_string();
        let unread: Vec<String> = read.troubles.iter().map(ToString::to_string).collect();
        let more = Map::from_iter([
            ("topic".to_owned(), json!(self.name)),
            ("topic_kept".to_owned(), json!(!removed)),
            ("history".to_owned(), if keeps_history { json!(history) } else { Value::Null }),
            ("unread".to_owned(), json!(unread)),
            ("interrupted".to_owned(), json!(interrupted)),
        ]);
        let next = match (report.is_clean(), keeps_history) {
            (true, false) => None,
            (true, true) => Some(format!("next: altair-cli verify report {history}")),
            (false, _) => Some(format!(
                "the history is {history}, and the topic is still there\n\
                next: altair-cli verify report {history}   |   {}",
                removal(&self.name)
            )),
        };
        show(self.context, report, more, next)
    }

    /// A clean verdict over nothing is no proof.
    fn is_proof(&self, report: &Report, read: &FinalReads) -> Result<(), Failure> {
        let lacks = match unproven(read) {
            Some(trouble) => format!("not all could be read at the end: {trouble}"),
            None if report.acked == 0 => "the cluster acknowledged nothing".to_owned(),
            None => return Ok(()),
        };
        Err(Failure::Api(
            ApiError::new(ErrorCode::Unavailable, format!("this run proves little: {lacks}"))
                .hint("altair-cli cluster status says what is wrong; run it again when it is healthy"),
        ))
    }

    /// The second Ctrl-C: everything stays as it is.
    fn abandon(&self) -> Result<(), Failure> {
        // The recording ends here in order, so that it can be judged.
        let _ = self.recorder.finish();
        terminal::note(&format!(
            "ended without a verdict; the history so far is {}\nnext: {}",
            self.kept.history.display(),
            removal(&self.name)
        ));
        Err(Failure::Told(ERROR))
    }

    fn say(&self, line: &str) {
        if self.context.out.is_for_people() {
            terminal::note(line);
        }
    }
}

/// Most writers promise all that can be promised, in several ways; each fourth takes what acks=leader gives.
fn writer(number: u32) -> WriterSpec {
    let plain = WriterSpec::default();
    match number % 4 {
        0 => plain,
        1 => WriterSpec { placement: Placement::Keyed(KEYS), restart_after: Some(RESTART_AFTER), ..plain },
        2 => WriterSpec { placement: Placement::Random, ..plain },
        _ => {
            let producer = ProducerConfig { acks: Acks::Leader, ..plain.producer };
            WriterSpec { producer, placement: Placement::Random, ..plain }
        }
    }
}

fn reader(number: u32) -> ReaderSpec {
    let seek_every = if number.is_multiple_of(2) { Duration::ZERO } else { Duration::from_secs(2) };
    ReaderSpec { seek_every, ..ReaderSpec::default() }
}

/// A final read that did not even begin.
fn unread(topic: &str, error: ApiError) -> FinalReads {
    let trouble = Trouble {
        topic: topic.to_owned(),
        partition: 0,
        broker: None,
        in_sync: true,
        what: format!("no broker says who holds it: {error}"),
    };
    FinalReads { troubles: vec![trouble], ..FinalReads::default() }
}

/// A partition of which nobody proves the end: what its replicas have is not final.
fn unproven(read: &FinalReads) -> Option<&Trouble> {
    read.troubles.iter().find(|trouble| trouble.broker.is_none())
}

/// The most replicas of one partition that the cluster itself knew to be away; none if a replica in sync is in trouble,
/// for that is the cluster's fault.
fn away(troubles: &[Trouble]) -> u32 {
    if troubles.iter().any(|trouble| trouble.in_sync) {
        return 0;
    }
    let of = |partition: u32| troubles.iter().filter(|trouble| trouble.partition == partition).count();
    let most = troubles.iter().map(|trouble| of(trouble.partition)).max().unwrap_or(0);
    u32::try_from(most).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_that_the_cluster_knows_to_be_away_are_not_asked_for() {
        let trouble = |partition, broker, in_sync| Trouble {
            topic: "t".into(),
            partition,
            broker: Some(broker),
            in_sync,
            what: "x".into(),
        };
        assert_eq!(away(&[]), 0);
        assert_eq!(away(&[trouble(0, 1, false), trouble(1, 1, false)]), 1);
        assert_eq!(away(&[trouble(0, 1, false), trouble(0, 2, false), trouble(1, 1, false)]), 2);
        assert_eq!(away(&[trouble(0, 1, false), trouble(1, 2, true)]), 0);
    }

    #[test]
    fn a_few_writers_are_of_every_kind() {
        let writers: Vec<WriterSpec> = (0..4).map(writer).collect();
        assert!(writers.iter().filter(|writer| writer.producer.acks == Acks::All).count() == 3);
        assert!(writers.iter().any(|writer| writer.restart_after.is_some()));
        assert!(reader(0).seek_every.is_zero() && !reader(1).seek_every.is_zero());
    }
}
