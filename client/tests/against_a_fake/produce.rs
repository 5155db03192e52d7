//! Each fault by itself: what the producer must do, and what it must tell.

use std::time::Duration;

use client::{
    Acks, Client, DeliveryError, Producer, ProducerConfig, ProducerRecord, RecordMetadata, SendError,
};
use tokio::time::{Instant, timeout};
use wire::error_code::ErrorCode;

use crate::fake::{Cluster, Fault};

const PATIENCE: Duration = Duration::from_secs(20);

async fn producer(cluster: &Cluster, config: ProducerConfig) -> Producer {
    Client::connect(cluster.config()).await.unwrap().producer(config).unwrap()
}

/// One batch per record, so that every record meets faults of its own.
fn single() -> ProducerConfig {
    ProducerConfig { batch_size: 1, linger_ms: 0, ..ProducerConfig::default() }
}

/// Sends `count` records to partition 0 and waits for all outcomes.
async fn send(producer: &Producer, count: usize) -> Vec<Result<RecordMetadata, DeliveryError>> {
    let mut deliveries = Vec::new();
    for number in 0..count {
        let record = ProducerRecord::new("t", number.to_string()).partition(0);
        deliveries.push(producer.send(record).await.unwrap());
    }
    timeout(PATIENCE, futures::future::join_all(deliveries)).await.unwrap()
}

fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

async fn all_written_once_in_order(faults: &[Fault]) {
    let cluster = Cluster::start(3, "t", 1);
    for fault in faults {
        cluster.fault("t", 0, fault.clone());
    }
    let producer = producer(&cluster, single()).await;
    for (number, outcome) in send(&producer, 40).await.into_iter().enumerate() {
        let receipt = outcome.unwrap_or_else(|error| panic!("{faults:?}: record {number}: {error}"));
        assert_eq!(receipt.offset, Some(number as u64), "{faults:?}");
    }
    assert_eq!(cluster.with("t", 0, |partition| partition.values()), numbers(40), "{faults:?}");
}

#[tokio::test]
async fn a_batch_carries_many_records_and_each_gets_its_own_offset() {
    let cluster = Cluster::start(1, "t", 1);
    let producer = producer(&cluster, ProducerConfig { linger_ms: 20, ..ProducerConfig::default() }).await;
    let outcomes = send(&producer, 100).await;
    for (number, outcome) in outcomes.into_iter().enumerate() {
        assert_eq!(outcome.unwrap().offset, Some(number as u64));
    }
    assert!(cluster.with("t", 0, |partition| partition.batches.len()) < 10);
    producer.close().await.unwrap();
    assert!(matches!(producer.send(ProducerRecord::new("t", "x")).await, Err(SendError::Closed)));
}

#[tokio::test]
async fn retries_neither_duplicate_nor_reorder_nor_lose() {
    let cases = [
        vec![Fault::Move { hint: true }],
        vec![Fault::Move { hint: false }, Fault::Move { hint: false }],
        vec![Fault::DropAfterAppend],
        vec![Fault::DropBeforeAppend, Fault::DropAfterAppend, Fault::DropAfterAppend],
        vec![Fault::AppendMoveDrop],
        vec![Fault::AppendThenUnknown, Fault::LoseThenUnknown],
        vec![Fault::Refuse(ErrorCode::Overloaded), Fault::Refuse(ErrorCode::NotEnoughReplicas)],
        vec![Fault::Refuse(ErrorCode::NoLeader), Fault::AppendMoveDrop, Fault::Move { hint: true }],
        vec![Fault::Refuse(ErrorCode::UnknownTopic)],
        vec![Fault::Delay(Duration::from_millis(100)), Fault::DropAfterAppend],
    ];
    for faults in &cases {
        all_written_once_in_order(faults).await;
    }
}

#[tokio::test]
async fn a_leader_that_goes_silent_is_left_for_its_successor() {
    let cluster = Cluster::start(3, "t", 1);
    let producer = producer(&cluster, single()).await;
    send(&producer, 1).await.remove(0).unwrap();
    cluster.fault("t", 0, Fault::Swallow);
    let began = Instant::now();
    let sending = send(&producer, 5);
    let moving = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        cluster.move_leaders_off(1);
    };
    let (outcomes, ()) = tokio::join!(sending, moving);
    outcomes.into_iter().for_each(|outcome| drop(outcome.unwrap()));
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert_eq!(cluster.with("t", 0, |partition| partition.values()), ["0", "0", "1", "2", "3", "4"]);
}

#[tokio::test]
async fn a_killed_broker_costs_no_record() {
    let cluster = Cluster::start(3, "t", 3);
    let producer = producer(&cluster, single()).await;
    send(&producer, 3).await.into_iter().for_each(|outcome| drop(outcome.unwrap()));
    cluster.kill(1);
    let later = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        cluster.move_leaders_off(1);
    };
    let (outcomes, ()) = tokio::join!(send(&producer, 20), later);
    outcomes.into_iter().for_each(|outcome| drop(outcome.unwrap()));
    assert_eq!(cluster.with("t", 0, |partition| partition.next), 23);
    cluster.revive(1);
}

#[tokio::test]
async fn a_batch_that_is_refused_for_good_fails_alone() {
    let cluster = Cluster::start(1, "t", 1);
    let producer = producer(&cluster, single()).await;
    send(&producer, 1).await.remove(0).unwrap();
    cluster.fault("t", 0, Fault::Refuse(ErrorCode::RecordTooLarge));
    let outcomes = send(&producer, 10).await;
    assert!(
        matches!(&outcomes[0], Err(DeliveryError::Failed(error)) if error.code == ErrorCode::RecordTooLarge)
    );
    outcomes.iter().skip(1).for_each(|outcome| assert!(outcome.is_ok(), "{outcome:?}"));
    let expected: Vec<String> =
        std::iter::once("0".to_owned()).chain(numbers(10).into_iter().skip(1)).collect();
    assert_eq!(cluster.with("t", 0, |partition| partition.values()), expected);
}

#[tokio::test]
async fn a_producer_that_brokers_forgot_goes_on_under_a_new_id() {
    let cluster = Cluster::start(1, "t", 1);
    let producer = producer(&cluster, single()).await;
    send(&producer, 3).await.into_iter().for_each(|outcome| drop(outcome.unwrap()));
    cluster.fault("t", 0, Fault::Forget);
    send(&producer, 10).await.into_iter().for_each(|outcome| drop(outcome.unwrap()));
    assert_eq!(cluster.with("t", 0, |partition| partition.values()), [numbers(3), numbers(10)].concat());
}

#[tokio::test]
async fn the_deadline_ends_in_failed_or_unknown_as_it_was() {
    for (fault, unknown) in
        [(Fault::Refuse(ErrorCode::NotEnoughReplicas), false), (Fault::LoseThenUnknown, true)]
    {
        let cluster = Cluster::start(1, "t", 1);
        for _ in 0..1_000 {
            cluster.fault("t", 0, fault.clone());
        }
        let producer = producer(&cluster, ProducerConfig { delivery_timeout_ms: 400, ..single() }).await;
        let began = Instant::now();
        let outcome = send(&producer, 1).await.remove(0).unwrap_err();
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(395) && took < Duration::from_secs(10), "{took:?}");
        assert_eq!(matches!(outcome, DeliveryError::Unknown(_)), unknown, "{outcome}");
        assert_eq!(outcome.definite(), outcome.api().code.definite(), "{outcome}");
        cluster.with("t", 0, |partition| partition.faults.clear());
        send(&producer, 3).await.into_iter().for_each(|outcome| drop(outcome.unwrap()));
    }
}

#[tokio::test]
async fn a_silent_broker_ends_in_unknown_at_the_deadline() {
    let cluster = Cluster::start(1, "t", 1);
    cluster.fault("t", 0, Fault::Swallow);
    let producer = producer(&cluster, ProducerConfig { delivery_timeout_ms: 300, ..single() }).await;
    let outcome = send(&producer, 1).await.remove(0);
    assert!(matches!(outcome, Err(DeliveryError::Unknown(_))), "{outcome:?}");
}

#[tokio::test]
async fn without_idempotence_a_lost_answer_is_unknown_and_not_repeated() {
    let cluster = Cluster::start(1, "t", 1);
    let config = ProducerConfig { idempotent: Some(false), ..single() };
    let producer = producer(&cluster, config).await;
    cluster.fault("t", 0, Fault::DropAfterAppend);
    let outcomes = send(&producer, 5).await;
    assert!(matches!(outcomes[0], Err(DeliveryError::Unknown(_))), "{:?}", outcomes[0]);
    outcomes.iter().skip(1).for_each(|outcome| assert!(outcome.is_ok(), "{outcome:?}"));
    assert_eq!(cluster.with("t", 0, |partition| partition.values()), numbers(5));
}

#[tokio::test]
async fn weaker_acks_give_provisional_receipts_without_offsets_and_keep_order() {
    for acks in [Acks::None, Acks::Leader] {
        let cluster = Cluster::start(3, "t", 1);
        cluster.fault("t", 0, Fault::Refuse(ErrorCode::Overloaded));
        cluster.fault("t", 0, Fault::Move { hint: true });
        let producer = producer(&cluster, ProducerConfig { acks, ..single() }).await;
        for outcome in send(&producer, 10).await {
            let receipt = outcome.unwrap();
            assert_eq!((receipt.offset, receipt.provisional, receipt.level), (None, true, acks));
        }
        assert_eq!(cluster.with("t", 0, |partition| partition.values()), numbers(10));
    }
}

#[tokio::test]
async fn a_full_buffer_fails_fast_or_waits_as_configured() {
    let cluster = Cluster::start(1, "t", 1);
    cluster.fault("t", 0, Fault::Delay(Duration::from_millis(400)));
    let config = ProducerConfig { buffer_bytes: 1_024, max_block_ms: 0, ..ProducerConfig::default() };
    let fast = producer(&cluster, config.clone()).await;
    let record = || ProducerRecord::new("t", vec![b'x'; 400]).partition(0);
    let mut taken = Vec::new();
    let refused = loop {
        match fast.send(record()).await {
            Ok(delivery) => taken.push(delivery),
            Err(error) => break error,
        }
        assert!(taken.len() < 4 && fast.buffered_bytes() <= 1_024);
    };
    assert!(matches!(refused, SendError::BufferFull { .. }), "{refused}");
    assert_eq!(taken.len(), 2);
    let too_large = fast.send(ProducerRecord::new("t", vec![0; 2_000])).await;
    assert!(matches!(too_large, Err(SendError::RecordTooLarge { .. })));
    futures::future::try_join_all(taken).await.unwrap();
    assert_eq!(fast.buffered_bytes(), 0);

    let patient = producer(&cluster, ProducerConfig { max_block_ms: 5_000, ..config }).await;
    for _ in 0..20 {
        drop(timeout(PATIENCE, patient.send(record())).await.unwrap().unwrap());
        assert!(patient.buffered_bytes() <= 1_024);
    }
    patient.flush().await.unwrap();
    assert_eq!(patient.buffered_bytes(), 0);
}

#[tokio::test]
async fn flush_does_not_linger_and_waits_for_receipts() {
    let cluster = Cluster::start(1, "t", 4);
    let producer =
        producer(&cluster, ProducerConfig { linger_ms: 30_000, ..ProducerConfig::default() }).await;
    for number in 0..40_u32 {
        drop(producer.send(ProducerRecord::new("t", "v").partition(number % 4)).await.unwrap());
    }
    timeout(PATIENCE, producer.flush()).await.unwrap().unwrap();
    let written: u64 = (0..4).map(|partition| cluster.with("t", partition, |partition| partition.next)).sum();
    assert_eq!(written, 40);
    // Batches of all partitions of a leader travel together.
    assert!(cluster.world.lock().unwrap().produce_requests <= 8);
}

#[tokio::test]
async fn unknown_topics_and_partitions_are_refused_by_send() {
    let cluster = Cluster::start(1, "t", 1);
    let producer =
        producer(&cluster, ProducerConfig { max_block_ms: 5_000, ..ProducerConfig::default() }).await;
    let unknown = producer.send(ProducerRecord::new("nope", "x")).await.unwrap_err().into_api();
    assert_eq!(unknown.code, ErrorCode::UnknownTopic);
    let outside = producer.send(ProducerRecord::new("t", "x").partition(1)).await.unwrap_err().into_api();
    assert_eq!(outside.code, ErrorCode::UnknownPartition);
}

#[tokio::test]
async fn the_rate_limit_spaces_records() {
    let cluster = Cluster::start(1, "t", 1);
    let producer =
        producer(&cluster, ProducerConfig { rate_limit_per_s: 100, ..ProducerConfig::default() }).await;
    let began = Instant::now();
    for _ in 0..30 {
        drop(producer.send(ProducerRecord::new("t", "x")).await.unwrap());
    }
    assert!(began.elapsed() >= Duration::from_millis(180), "{:?}", began.elapsed());
}
