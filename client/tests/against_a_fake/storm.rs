//! All faults at random, many seeds: whatever happens, receipts tell the truth.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use client::{Client, DeliveryError, ProducerConfig, ProducerRecord};
use tokio::time::timeout;
use wire::error_code::ErrorCode;

use crate::fake::{Cluster, Fault};

const RECORDS: usize = 300;
const PARTITIONS: usize = 3;

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    fn fault(&mut self) -> Fault {
        match self.roll(12) {
            0 => Fault::Move { hint: true },
            1 => Fault::Move { hint: false },
            2 => Fault::DropAfterAppend,
            3 => Fault::DropBeforeAppend,
            4 => Fault::AppendMoveDrop,
            5 => Fault::AppendThenUnknown,
            6 => Fault::LoseThenUnknown,
            7 => Fault::Refuse(ErrorCode::Overloaded),
            8 => Fault::Refuse(ErrorCode::NotEnoughReplicas),
            9 => Fault::Refuse(ErrorCode::RecordTooLarge),
            10 => Fault::Forget,
            _ => Fault::Delay(Duration::from_millis(self.roll(20))),
        }
    }
}

/// Returns how many records had which fate.
async fn storm(seed: u64) -> BTreeMap<&'static str, usize> {
    let cluster = Cluster::start(3, "t", u32::try_from(PARTITIONS).unwrap());
    let mut dice = Dice(seed * 2 + 1);
    for partition in 0..PARTITIONS {
        for _ in 0..40 {
            // Gaps between the faults let the window fill up.
            for _ in 0..dice.roll(4) {
                cluster.fault("t", partition, Fault::Delay(Duration::ZERO));
            }
            let fault = dice.fault();
            cluster.fault("t", partition, fault);
        }
    }
    let client = Client::connect(cluster.config()).await.unwrap();
    let config =
        ProducerConfig { batch_size: 120, linger_ms: 1, delivery_timeout_ms: 20_000, ..Default::default() };
    let producer = client.producer(config).unwrap();
    let mut deliveries = Vec::new();
    for number in 0..RECORDS {
        let partition = u32::try_from(number % PARTITIONS).unwrap();
        let record = ProducerRecord::new("t", format!("{number:04}")).partition(partition);
        deliveries.push(producer.send(record).await.unwrap());
    }
    let outcomes = timeout(Duration::from_secs(60), futures::future::join_all(deliveries)).await.unwrap();

    let mut logs: Vec<Vec<String>> = Vec::new();
    for partition in 0..PARTITIONS {
        logs.push(cluster.with("t", partition, |partition| partition.values()));
    }
    let mut fates: BTreeMap<&'static str, usize> = BTreeMap::new();
    for (number, outcome) in outcomes.iter().enumerate() {
        let (log, value) = (&logs[number % PARTITIONS], format!("{number:04}"));
        let written = log.iter().filter(|found| **found == value).count();
        match outcome {
            Ok(receipt) => {
                assert_eq!(written, 1, "seed {seed}: {value} acknowledged");
                let offset = usize::try_from(receipt.offset.unwrap()).unwrap();
                assert_eq!(log[offset], value, "seed {seed}: the receipt names another record");
                *fates.entry("written").or_default() += 1;
            }
            Err(DeliveryError::Failed(error)) => {
                assert_eq!(written, 0, "seed {seed}: {value} failed for certain: {error}");
                *fates.entry("failed").or_default() += 1;
            }
            Err(DeliveryError::Unknown(_)) => {
                assert!(written <= 1, "seed {seed}: {value} duplicated");
                *fates.entry("unknown").or_default() += 1;
            }
        }
    }
    for log in &logs {
        assert_eq!(log.iter().collect::<BTreeSet<_>>().len(), log.len(), "seed {seed}: duplicates");
        assert!(log.is_sorted(), "seed {seed}: reordered {log:?}");
    }
    // How many get through before their deadline depends on the machine; that some do does not.
    assert!(fates.contains_key("written"), "seed {seed}: {fates:?}");
    fates
}

#[tokio::test]
async fn receipts_tell_the_truth_in_any_weather() {
    let fates = futures::future::join_all((1..=24).map(storm)).await;
    let total = |fate: &str| fates.iter().filter_map(|seed| seed.get(fate)).sum::<usize>();
    // A storm in which nothing ever fails would prove nothing.
    assert!(total("failed") > 0 && total("unknown") > 0, "{fates:?}");
}
