//! Reads topics as a member of a consumer group and prints what comes, until Ctrl-C. Start it several times: the members
//! share the partitions.
//!
//! ```text
//! cargo run -p client --example group -- 127.0.0.1:7400 billing orders 'payments.>'
//! ```

use std::convert::Infallible;
use std::time::Duration;

use client::{AfterError, Client, ClientConfig, ConsumedRecord, GroupConfig, Problem};

#[tokio::main]
#[expect(clippy::print_stdout, reason = "an example that talks to its user")]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:7400".to_owned());
    let group = arguments.next().unwrap_or_else(|| "billing".to_owned());
    let mut topics: Vec<String> = arguments.collect();
    if topics.is_empty() {
        topics.push("orders".to_owned());
    }

    let client = Client::connect(ClientConfig::new([address])).await?;
    let mut consumer = client.group_consumer(GroupConfig::new(group))?;
    consumer.on_rebalance(|change| async move { println!("{change:?}") });
    consumer.subscribe(&topics)?;

    let handler = |record: ConsumedRecord| async move {
        let value = String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned();
        println!("{}/{} {}: {value}", record.topic, record.partition, record.offset);
        // A record counts as done when this returns Ok; a real handler would fail here now and then.
        Ok::<(), Infallible>(())
    };
    let until = async {
        let _ = tokio::signal::ctrl_c().await;
    };
    let on_error = |problem: Problem<'_, Infallible>| {
        println!("{problem:?}");
        AfterError::Retry(Duration::from_secs(1))
    };
    consumer.on_message(handler, on_error, until).await?;
    consumer.close().await?;
    Ok(())
}
