//! Reads a topic from its beginning and prints its records, until interrupted.
//!
//! ```text
//! cargo run -p client --example consume -- 127.0.0.1:7400 orders
//! ```

use std::time::Duration;

use client::{Client, ClientConfig, ConsumerConfig, Position};

#[tokio::main]
#[expect(clippy::print_stdout, reason = "an example that talks to its user")]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:7400".to_owned());
    let topic = arguments.next().unwrap_or_else(|| "orders".to_owned());

    let client = Client::connect(ClientConfig::new([address])).await?;
    let mut consumer = client.consumer(ConsumerConfig::default())?;
    consumer.assign_topic(&topic).await?;
    consumer.seek_all(Position::Earliest);
    loop {
        for record in consumer.poll(Duration::from_secs(1)).await? {
            let text = |bytes: Option<&[u8]>| {
                bytes.map_or_else(|| "null".to_owned(), |bytes| String::from_utf8_lossy(bytes).into_owned())
            };
            let (key, value) = (text(record.key.as_deref()), text(record.value.as_deref()));
            println!("{}/{} {}: {key} = {value}", record.topic, record.partition, record.offset);
        }
    }
}
