//! What is sent, when, and what became of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use client::{Acks, Delivery, DeliveryError, Producer, ProducerConfig, ProducerRecord};
use futures::future::join_all;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::args::{Scenario, Writing};
use super::measure::{Meter, Tally, Window};
use crate::context::millis;
use crate::exit::Failure;

/// Receipts that one lane waits for at once; beyond them sending waits. Above what the SDK's buffer holds of small records.
const LANE_DEPTH: usize = 64 << 10;
/// Lateness of the timer that says when a record is due, which is not the cluster's.
const TIMER_SLACK: Duration = Duration::from_millis(2);
/// Keys of records that have keys.
const KEYS: usize = 64;
/// Sizes of the realistic scenario: mostly small, some large.
const MIXED_SIZES: [usize; 8] = [120, 250, 250, 400, 700, 1_024, 2_048, 16_384];
/// Bytes at the begin of a value that the reader of an end-to-end run gives meaning to.
const STAMP_BYTES: usize = 16;

/// What one producer sends.
#[derive(Debug, Clone)]
pub(super) struct Load {
    topic: Arc<str>,
    /// Partitions are filled batch by batch in turn; `None`: chosen by key.
    partitions: Option<u32>,
    sizes: Vec<usize>,
    /// Bytes for one partition before the next one's turn.
    batch_bytes: usize,
    /// Time between two records; `None`: as fast as it goes.
    pace: Option<Duration>,
    /// Random bytes that values are cut from: compression finds nothing in them.
    noise: Bytes,
    stamp: Option<Stamp>,
}

/// What an end-to-end run writes at the begin of each value: when the record was due, and of which run it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stamp {
    begun: Instant,
    nonce: u64,
}

impl Stamp {
    /// A stamp for a run that begins now.
    pub(super) fn now() -> Self {
        Self { begun: Instant::now(), nonce: u64::from(std::process::id()) }
    }

    /// Nanoseconds since the run began, then the nonce; both little-endian.
    fn at(self, due: Instant) -> [u8; STAMP_BYTES] {
        let nanos = u64::try_from((due - self.begun).as_nanos()).unwrap_or(u64::MAX);
        let mut stamp = [0; STAMP_BYTES];
        stamp[..8].copy_from_slice(&nanos.to_le_bytes());
        stamp[8..].copy_from_slice(&self.nonce.to_le_bytes());
        stamp
    }

    /// When a record was due; `None` if it is not of this run.
    pub(super) fn due(self, value: &[u8]) -> Option<Instant> {
        let (nanos, rest) = value.split_first_chunk::<8>()?;
        let (nonce, _) = rest.split_first_chunk::<8>()?;
        (u64::from_le_bytes(*nonce) == self.nonce)
            .then(|| self.begun + Duration::from_nanos(u64::from_le_bytes(*nanos)))
    }
}

impl Load {
    /// The load of one of `writing.producers` producers.
    pub(super) fn new(topic: &str, partitions: u32, writing: &Writing, rate: u32) -> Result<Self, Failure> {
        let size = usize::try_from(writing.record_size).unwrap_or(usize::MAX);
        if size > wire::limits::MESSAGE_BYTES_MAX {
            return Err(Failure::usage(
                format!("a record of {size} bytes does not fit into a request"),
                format!("--record-size takes at most {} bytes", wire::limits::MESSAGE_BYTES_MAX),
            ));
        }
        let pace =
            (rate > 0).then(|| Duration::from_secs_f64(f64::from(writing.producers) / f64::from(rate)));
        Ok(Self {
            topic: Arc::from(topic),
            partitions: Some(partitions),
            sizes: vec![size],
            batch_bytes: usize::try_from(writing.batch_size).unwrap_or(usize::MAX),
            pace,
            noise: noise(size.max(1 << 16) * 2),
            stamp: None,
        })
    }

    /// A load with a name.
    pub(super) fn scenario(mut self, scenario: Scenario, producers: u32) -> Self {
        let every = |rate: f64| Some(Duration::from_secs_f64(f64::from(producers) / rate));
        match scenario {
            Scenario::Size => {}
            Scenario::Time => {
                self.sizes = vec![256];
                self.pace = every(10.0);
            }
            Scenario::Realistic => {
                self.partitions = None;
                self.sizes = MIXED_SIZES.to_vec();
                self.pace = every(2_000.0);
            }
        }
        self
    }

    /// Values begin with `stamp`.
    pub(super) fn stamped(self, stamp: Stamp) -> Self {
        Self { stamp: Some(stamp), ..self }
    }

    /// Sends at a pace or not.
    pub(super) fn is_paced(&self) -> bool {
        self.pace.is_some()
    }

    /// Ways on which receipts come in the order in which records were sent.
    fn lanes(&self) -> usize {
        self.partitions.map_or(KEYS, |partitions| partitions as usize)
    }

    fn record(&self, lane: usize, number: u64, due: Instant) -> ProducerRecord {
        let at = usize::try_from(number % (1 << 15)).unwrap_or(0);
        let size = self.sizes[at % self.sizes.len()];
        let value = match self.stamp {
            None => self.noise.slice(at..at + size),
            Some(stamp) => {
                let mut value = BytesMut::with_capacity(size.max(STAMP_BYTES));
                value.extend_from_slice(&stamp.at(due));
                value.extend_from_slice(&self.noise[..size.saturating_sub(STAMP_BYTES)]);
                value.freeze()
            }
        };
        let record = ProducerRecord::new(Arc::clone(&self.topic), value);
        match self.partitions {
            Some(_) => record.partition(u32::try_from(lane).unwrap_or(0)),
            None => record.key(format!("key-{lane}")),
        }
    }
}

/// Bytes that do not compress, the same in every run (xorshift64).
fn noise(len: usize) -> Bytes {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut bytes = BytesMut::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.freeze()
}

/// The SDK's settings for `writing`.
pub(super) fn producer_config(writing: &Writing) -> ProducerConfig {
    let bytes = |size: u64| u32::try_from(size).unwrap_or(u32::MAX);
    let defaults = ProducerConfig::default();
    ProducerConfig {
        acks: acks(writing),
        batch_size: bytes(writing.batch_size),
        linger_ms: millis(writing.linger),
        max_in_flight: writing.in_flight,
        compression: writing.compression,
        // The SDK insists on room for a batch in a request.
        max_request_bytes: defaults.max_request_bytes.max(bytes(writing.batch_size)),
        ..defaults
    }
}

fn acks(writing: &Writing) -> Acks {
    match writing.acks.as_str() {
        "none" | "0" => Acks::None,
        "leader" | "1" => Acks::Leader,
        _ => Acks::All,
    }
}

/// When to stop sending.
#[derive(Debug, Clone, Copy)]
pub(super) enum Until {
    /// The window closes.
    WindowEnds,
    /// This many bytes were sent.
    Bytes(u64),
}

/// How a load is run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Course<'a> {
    pub(super) window: Window,
    pub(super) until: Until,
    pub(super) meter: &'a Meter,
}

/// One record on its way: when it was due, its size, its receipt to come.
type Sent = (Instant, usize, Delivery);

/// Sends `load` and waits for every receipt.
///
/// # Errors
/// A record that the SDK did not take.
pub(super) async fn send(producer: &Producer, load: &Load, course: Course<'_>) -> Result<Tally, Failure> {
    let (inlets, outlets): (Vec<_>, Vec<_>) = (0..load.lanes()).map(|_| mpsc::channel(LANE_DEPTH)).unzip();
    let receipts = join_all(outlets.into_iter().map(|outlet| receive(outlet, course)));
    let sending = async {
        let sent = send_all(producer, load, course, inlets).await;
        let flushed = producer.flush().await;
        sent?;
        Ok::<(), Failure>(flushed?)
    };
    let (sent, tallies) = tokio::join!(sending, receipts);
    sent?;
    Ok(tallies.iter().fold(Tally::default(), Tally::merge))
}

async fn send_all(
    producer: &Producer,
    load: &Load,
    course: Course<'_>,
    inlets: Vec<mpsc::Sender<Sent>>,
) -> Result<(), Failure> {
    let begun = Instant::now();
    let (mut number, mut lane, mut in_lane, mut total) = (0_u64, 0, 0, 0);
    loop {
        let due = match load.pace {
            None => Instant::now(),
            Some(pace) => wait_until(begun + pace.mul_f64(number as f64)).await,
        };
        let over = match course.until {
            Until::WindowEnds => due >= course.window.to,
            Until::Bytes(bytes) => total >= bytes,
        };
        if over {
            return Ok(());
        }
        let record = load.record(lane, number, due);
        let bytes = record.value.as_ref().map_or(0, Bytes::len);
        let delivery = producer.send(record).await.map_err(|error| Failure::Api(error.into_api()))?;
        // Only a lane that panicked is closed, and then there is nobody to tell.
        let _ = inlets[lane].send((due, bytes, delivery)).await;
        number += 1;
        total += bytes as u64;
        in_lane += bytes;
        if in_lane >= load.batch_bytes || load.is_paced() {
            lane = (lane + 1) % inlets.len();
            in_lane = 0;
        }
    }
}

/// Waits until a record is due; says from when on its time counts. What the timer adds is not the cluster's; what the
/// sender is late beyond that is, because the cluster held it up.
async fn wait_until(due: Instant) -> Instant {
    tokio::time::sleep_until(due).await;
    let now = Instant::now();
    if now - due <= TIMER_SLACK { now } else { due }
}

/// Takes in the receipts of one lane.
async fn receive(mut lane: mpsc::Receiver<Sent>, course: Course<'_>) -> Tally {
    let Course { window, meter, .. } = course;
    let mut tally = Tally::default();
    while let Some((due, bytes, delivery)) = lane.recv().await {
        match delivery.await {
            Ok(_) => {
                let now = Instant::now();
                meter.count(1, bytes as u64);
                if window.holds(now) {
                    tally.records += 1;
                    tally.bytes += bytes as u64;
                }
                if window.holds(due) {
                    tally.times.add(now - due);
                }
            }
            Err(DeliveryError::Failed(_)) => tally.failed += 1,
            Err(DeliveryError::Unknown(_)) => tally.unknown += 1,
        }
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(size: u64, scenario: Option<Scenario>) -> Load {
        let writing = Writing {
            record_size: size,
            batch_size: 4_096,
            linger: Duration::from_millis(5),
            in_flight: 5,
            acks: "all".to_owned(),
            compression: wire::record::Compression::None,
            producers: 2,
        };
        let load = Load::new("t", 3, &writing, 1_000).unwrap_or_else(|_| panic!("a plain load"));
        scenario.map_or(load.clone(), |scenario| load.scenario(scenario, 2))
    }

    #[test]
    fn two_producers_share_the_rate() {
        assert_eq!(load(10, None).pace, Some(Duration::from_millis(2)));
        assert_eq!(load(10, Some(Scenario::Time)).pace, Some(Duration::from_millis(200)));
    }

    #[test]
    fn values_have_their_size_and_their_stamp() {
        let load = load(100_000, None);
        for number in [0, 1, 32_767, 32_768, u64::MAX] {
            assert_eq!(load.record(1, number, Instant::now()).value.map(|value| value.len()), Some(100_000));
        }
        let (stamp, due) = (Stamp::now(), Instant::now());
        let stamped = load.stamped(stamp).record(2, 7, due);
        let value = stamped.value.unwrap_or_default();
        assert_eq!((value.len(), stamp.due(&value)), (100_000, Some(due)));
        assert_eq!(Stamp { nonce: 0, ..stamp }.due(&value), None);
        assert_eq!(stamp.due(&value[..15]), None);
        assert_eq!(stamped.partition, Some(2));
    }

    #[test]
    fn realistic_records_have_keys_and_mixed_sizes() {
        let load = load(10, Some(Scenario::Realistic));
        let sizes: std::collections::BTreeSet<_> = (0..64)
            .map(|number| load.record(5, number, Instant::now()).value.map(|value| value.len()))
            .collect();
        assert!(sizes.len() > 4);
        assert_eq!(load.record(5, 0, Instant::now()).key.as_deref(), Some(&b"key-5"[..]));
    }
}
