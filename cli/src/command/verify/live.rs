//! What a person sees while a run goes on.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use verify::workload::{Progress, ProgressWatch};

use crate::context::Context;
use crate::convert::{count_text, duration_text};
use crate::terminal;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Between two lines where there is no terminal to draw on.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// A partition without a new ack for this long is named.
const SILENT_AFTER: Duration = Duration::from_secs(3);

/// Shows how far the workload is, until `stop`: a bar on a terminal, a line now and then elsewhere, nothing with `-q`.
pub(super) async fn show(
    context: &Context,
    progress: &ProgressWatch,
    total: Duration,
    stop: &CancellationToken,
) {
    if !context.out.is_for_people() {
        return stop.cancelled().await;
    }
    let bar = bar(total);
    let begun = Instant::now();
    let mut silent = Silent::default();
    let mut line_at = begun + LINE_EVERY;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        let now = progress.snapshot();
        let text = told(&now, &silent.look(&now, Instant::now()));
        match &bar {
            Some(bar) => {
                bar.set_position(begun.elapsed().as_secs().min(total.as_secs()));
                bar.set_message(text);
            }
            None if Instant::now() >= line_at => {
                line_at += LINE_EVERY;
                let (at, of) = (begun.elapsed().as_secs(), duration_text(millis(total)));
                terminal::note(&format!("{} of {of}: {text}", duration_text(at * 1_000)));
            }
            None => {}
        }
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
}

fn bar(total: Duration) -> Option<ProgressBar> {
    if !std::io::stderr().is_terminal() {
        return None;
    }
    let style = ProgressStyle::with_template("{bar:20} {elapsed} of {len} s  {msg}").ok()?;
    Some(ProgressBar::new(total.as_secs()).with_style(style))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// When each partition was last seen to take a write.
#[derive(Default)]
struct Silent(BTreeMap<(String, u32), (u64, Option<Instant>)>);

impl Silent {
    /// Partitions that have taken nothing for too long.
    fn look(&mut self, now: &Progress, at: Instant) -> Vec<String> {
        let mut silent = Vec::new();
        for (place, partition) in &now.partitions {
            let (acked, since) = self.0.entry(place.clone()).or_default();
            let since = since.get_or_insert(at);
            if partition.acked > *acked {
                (*acked, *since) = (partition.acked, at);
            } else if at.duration_since(*since) >= SILENT_AFTER {
                silent.push(place.1.to_string());
            }
        }
        silent
    }
}

fn told(now: &Progress, silent: &[String]) -> String {
    let total = |counter: fn(&verify::workload::WorkerProgress) -> u64| count_text(now.total(counter));
    let mut text = format!(
        "{} acked, {} failed, {} unknown, {} read",
        total(|worker| worker.acked),
        total(|worker| worker.failed),
        total(|worker| worker.unknown),
        total(|worker| worker.read)
    );
    match silent.len() {
        0 => {}
        few @ 1..=5 => text.push_str(&format!("; {few} partitions silent: {}", silent.join(", "))),
        many => text.push_str(&format!("; {many} of {} partitions silent", now.partitions.len())),
    }
    text
}

#[cfg(test)]
mod tests {
    use verify::workload::PartitionProgress;

    use super::*;

    #[test]
    fn partitions_that_take_nothing_for_a_while_are_named() {
        let mut now = Progress::default();
        for part in [0, 1] {
            now.partitions.insert(("t".into(), part), PartitionProgress::default());
        }
        let mut silent = Silent::default();
        let begun = Instant::now();
        assert!(silent.look(&now, begun).is_empty());
        now.partitions.get_mut(&("t".into(), 0)).unwrap().acked = 1;
        assert_eq!(silent.look(&now, begun + SILENT_AFTER), ["1"]);
        let both = silent.look(&now, begun + 2 * SILENT_AFTER);
        assert!(told(&now, &both).ends_with("0 read; 2 partitions silent: 0, 1"), "{both:?}");
    }
}
