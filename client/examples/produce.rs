//! Sends records and prints their receipts.
//!
//! ```text
//! cargo run -p client --example produce -- 127.0.0.1:7400 orders 1000
//! ```

use anyhow::Context;
use client::{Client, ClientConfig, DeliveryError, ProducerConfig, ProducerRecord};

#[tokio::main]
#[expect(clippy::print_stdout, reason = "an example that talks to its user")]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:7400".to_owned());
    let topic = arguments.next().unwrap_or_else(|| "orders".to_owned());
    let count: usize =
        arguments.next().map_or(Ok(10), |text| text.parse()).context("the count is not a number")?;

    let client = Client::connect(ClientConfig::new([address])).await?;
    let producer = client.producer(ProducerConfig::default())?;
    let topic: std::sync::Arc<str> = topic.into();

    // `send` returns when the record is in the buffer; the deliveries tell what became of them.
    let mut deliveries = Vec::new();
    for number in 0..count {
        let record = ProducerRecord::new(topic.clone(), format!("record {number}"))
            .key(format!("key-{}", number % 10));
        deliveries.push(producer.send(record).await?);
    }
    for delivery in deliveries {
        match delivery.await {
            Ok(receipt) => println!("{}/{} offset {:?}", receipt.topic, receipt.partition, receipt.offset),
            Err(DeliveryError::Failed(error)) => println!("not written: {error:#}"),
            Err(DeliveryError::Unknown(error)) => println!("perhaps written: {error:#}"),
        }
    }
    producer.close().await?;
    Ok(())
}
