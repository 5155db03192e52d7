//! Topics: create, delete, change, describe.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;
use wire::ids::TopicId;
use wire::{limits, pb, topic_name};

use super::{Api, route, view};
use crate::metadata::command::{Command, CommandReply, CreateTopic};
use crate::metadata::image::{MetadataImage, Topic};
use crate::metadata::topic_config::{SettingError, TopicConfig, canonical_key, parse_setting};

/// Partitions of one broker above which a warning is given: each costs memory and a share of the heartbeats.
const MANY_PARTITIONS: usize = 4_000;

/// A topic to create.
#[derive(Debug, Clone, Default)]
pub struct CreateTopicArgs {
    /// Its name.
    pub name: String,
    /// 0 = `topics.default_partitions`.
    pub partitions: u32,
    /// 0 = `topics.default_rf`, or the number of brokers that can take replicas if that is smaller.
    pub replication_factor: u32,
    /// Settings as text.
    pub config: BTreeMap<String, String>,
    /// Check everything, change nothing.
    pub dry_run: bool,
    /// Wait at most this long until every partition has a leader.
    pub wait: Option<Duration>,
}

/// A topic that was created.
#[derive(Debug, Clone)]
pub struct CreatedTopic {
    /// The topic as the cluster has it.
    pub topic: pb::TopicInfo,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// How long until every partition had a leader; `None` if nobody waited or the wait ended first.
    pub ready: Option<Duration>,
}

/// A topic to change.
#[derive(Debug, Clone, Default)]
pub struct UpdateTopicArgs {
    /// Its name.
    pub name: String,
    /// New number of partitions; 0 = leave.
    pub partitions: u32,
    /// Settings to put in place, as text.
    pub set: BTreeMap<String, String>,
    /// Settings that go back to their default.
    pub reset: Vec<String>,
    /// Check everything, change nothing.
    pub dry_run: bool,
}

impl Api {
    /// Creates a topic.
    ///
    /// # Errors
    /// `TopicExists`, `InvalidTopicName`, `InvalidPartitionCount`, `InvalidReplicationFactor`, `NotEnoughBrokers`,
    /// `InvalidConfig`, or as a change of the metadata fails.
    ///
    /// # Cancel safety
    /// A proposal that was sent may still take effect.
    pub async fn create_topic(
        &self,
        args: CreateTopicArgs,
        deadline: Instant,
    ) -> Result<CreatedTopic, ApiError> {
        let started = Instant::now();
        let image = self.parts().metadata.image();
        let create = self.plan_topic(&image, &args)?;
        let id = create.id;
        if args.dry_run {
            return Ok(dry_run_of(&image, &create));
        }
        let (rf, min_isr) = (create.replication_factor, create.config.min_insync_replicas);
        let reply = self.change(Command::CreateTopic(create), deadline).await?;
        let mut warnings = match reply {
            CommandReply::TopicCreated { warnings, .. } => warnings,
            _ => Vec::new(),
        };
        for warning in warnings_of(rf, min_isr) {
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
        let seen = self.wait_image(deadline, |image| image.topic_by_id(id).cloned()).await;
        let Some(mut topic) = seen else { return Err(lagging(&args.name)) };
        let mut ready = None;
        if let Some(wait) = args.wait {
            let until = deadline.min(started + wait);
            let led =
                self.wait_image(until, |image| image.topic_by_id(id).filter(|topic| is_led(topic)).cloned());
            match led.await {
                Some(led) => (topic, ready) = (led, Some(started.elapsed())),
                None => warnings.push("not every partition has a leader yet".to_owned()),
            }
        }
        Ok(CreatedTopic { topic: view::topic(&topic), warnings, ready })
    }

    /// Checks what can be checked before the metadata group decides.
    fn plan_topic(&self, image: &MetadataImage, args: &CreateTopicArgs) -> Result<CreateTopic, ApiError> {
        topic_name::validate(&args.name)?;
        let defaults = &self.parts().config.topics;
        let partitions = if args.partitions == 0 { defaults.default_partitions } else { args.partitions };
        if partitions > limits::PARTITIONS_MAX {
            let message =
                format!("a topic has at most {} partitions, not {partitions}", limits::PARTITIONS_MAX);
            return Err(ApiError::new(ErrorCode::InvalidPartitionCount, message));
        }
        // Only a dry run takes this broker's word for it: its image may be behind a deletion.
        if args.dry_run && image.topic(&args.name).is_some() {
            return Err(ApiError::new(
                ErrorCode::TopicExists,
                format!("topic {:?} exists already", args.name),
            ));
        }
        let eligible = image.brokers.values().filter(|broker| broker.is_eligible()).count();
        let eligible = u32::try_from(eligible).unwrap_or(u32::MAX);
        let rf = if args.replication_factor == 0 {
            defaults.default_rf.min(eligible).max(1)
        } else {
            args.replication_factor
        };
        if args.dry_run && rf > eligible {
            let message = format!(
                "topic {:?} needs {rf} brokers for --rf {rf}, but {eligible} are eligible",
                args.name
            );
            return Err(ApiError::new(ErrorCode::NotEnoughBrokers, message));
        }
        let given = args.config.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let (config, overridden) = self.topic_defaults().overlaid(given).map_err(bad_setting)?;
        if config.min_insync_replicas > rf {
            return Err(ApiError::new(
                ErrorCode::InvalidConfig,
                format!(
                    "min_insync_replicas = {} cannot be met by {rf} replicas",
                    config.min_insync_replicas
                ),
            ));
        }
        Ok(CreateTopic {
            id: TopicId(self.parts().seams.random.uuid()),
            name: args.name.clone(),
            partitions,
            replication_factor: rf,
            config,
            overridden,
            time_ms: self.parts().seams.clock.now_ms(),
        })
    }

    fn topic_defaults(&self) -> TopicConfig {
        let config = &self.parts().config;
        TopicConfig {
            retention_ms: config.topics.retention_ms,
            retention_bytes: config.topics.retention_bytes,
            segment_bytes: config.storage.segment_bytes,
            max_batch_bytes: u32::try_from(config.topics.max_batch_bytes).unwrap_or(u32::MAX),
            min_insync_replicas: config.topics.min_insync_replicas,
            description: String::new(),
        }
    }

    /// Deletes a topic; its data stays for `topics.delete_retention_ms`.
    ///
    /// # Errors
    /// `UnknownTopic`, or as a change of the metadata fails.
    pub async fn delete_topic(
        &self,
        name: &str,
        dry_run: bool,
        deadline: Instant,
    ) -> Result<TopicId, ApiError> {
        let id = route::topic(&self.parts().metadata.image(), name)?.id;
        if dry_run {
            return Ok(id);
        }
        let time_ms = self.parts().seams.clock.now_ms();
        self.change(Command::DeleteTopic { id, time_ms }, deadline).await?;
        // The caller's next look at this broker should not show it any more.
        let gone = |image: &MetadataImage| match image.topic(name) {
            Some(topic) if topic.id == id => None,
            _ => Some(()),
        };
        self.wait_image(deadline, gone).await;
        Ok(id)
    }

    /// Changes settings of a topic and lets it grow.
    ///
    /// # Errors
    /// `UnknownTopic`, `InvalidConfig`, `InvalidPartitionCount`, or as a change of the metadata fails.
    pub async fn update_topic(
        &self,
        args: UpdateTopicArgs,
        deadline: Instant,
    ) -> Result<CreatedTopic, ApiError> {
        let before = route::topic(&self.parts().metadata.image(), &args.name)?.clone();
        let id = before.id;
        let mut set = Vec::new();
        for (key, value) in &args.set {
            set.push(parse_setting(key, value).map_err(bad_setting)?);
        }
        let defaults = self.topic_defaults();
        let mut reset = Vec::new();
        for key in &args.reset {
            reset.extend(defaults.get(canonical_key(key).map_err(bad_setting)?));
        }
        let count = u32::try_from(before.partitions.len()).unwrap_or(u32::MAX);
        if args.partitions != 0 && (args.partitions < count || args.partitions > limits::PARTITIONS_MAX) {
            let message =
                format!("topic {:?} has {count} partitions and cannot have {}", args.name, args.partitions);
            return Err(ApiError::new(ErrorCode::InvalidPartitionCount, message)
                .reason("partitions are only added: removing one would lose its records"));
        }
        let mut warnings = Vec::new();
        if args.partitions > count {
            warnings.push(
                "keys go to other partitions from now on: order by key holds within each era only".to_owned(),
            );
        }
        if !args.dry_run {
            if !set.is_empty() || !reset.is_empty() {
                self.change(Command::AlterTopic { id, set, reset }, deadline).await?;
            }
            if args.partitions > count {
                self.change(Command::AddPartitions { id, total: args.partitions }, deadline).await?;
            }
            let wanted = usize::try_from(args.partitions).unwrap_or(usize::MAX);
            self.wait_image(deadline, |image| {
                image.topic_by_id(id).filter(|t| t.partitions.len() >= wanted).cloned()
            })
            .await;
        }
        let image = self.parts().metadata.image();
        let topic = image.topic_by_id(id).unwrap_or(&before);
        Ok(CreatedTopic { topic: view::topic(topic), warnings, ready: None })
    }

    /// Describes topics, all of them if none is named; one that is not there has its error.
    pub fn describe_topics(&self, names: &[String]) -> Vec<pb::TopicInfo> {
        let image = self.parts().metadata.image();
        if names.is_empty() {
            return image.live_topics().map(|topic| view::topic(topic)).collect();
        }
        let describe = |name: &String| match image.topic(name) {
            Some(topic) => view::topic(topic),
            None => {
                let error = Some(route::unknown_topic(name).into());
                pb::TopicInfo { name: name.clone(), error, ..Default::default() }
            }
        };
        names.iter().map(describe).collect()
    }

    /// Waits until the image shows something; `None` at the deadline.
    pub(super) async fn wait_image<T>(
        &self,
        deadline: Instant,
        look: impl Fn(&MetadataImage) -> Option<T>,
    ) -> Option<T> {
        let mut images = self.parts().metadata.watch_topology();
        loop {
            let found = look(&images.borrow_and_update());
            if found.is_some() {
                return found;
            }
            match tokio::time::timeout_at(deadline, images.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return None,
            }
        }
    }
}

fn is_led(topic: &Arc<Topic>) -> bool {
    topic.partitions.iter().all(|partition| partition.leader.is_some())
}

fn lagging(name: &str) -> ApiError {
    ApiError::new(
        ErrorCode::OutcomeUnknown,
        format!("topic {name:?} is accepted, but this broker does not see it yet"),
    )
}

fn dry_run_of(image: &MetadataImage, create: &CreateTopic) -> CreatedTopic {
    let topic = pb::TopicInfo {
        name: create.name.clone(),
        replication_factor: create.replication_factor,
        partitions: (0..create.partitions)
            .map(|partition| pb::PartitionInfo { partition, ..Default::default() })
            .collect(),
        config: create.config.entries().into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        overridden: create.overridden.iter().cloned().collect(),
        ..Default::default()
    };
    let mut warnings: Vec<String> =
        warnings_of(create.replication_factor, create.config.min_insync_replicas).collect();
    let all = image.partition_count() + topic.partitions.len();
    if all > MANY_PARTITIONS {
        warnings.push(format!("the cluster would have {all} partitions"));
    }
    CreatedTopic { topic, warnings, ready: None }
}

fn warnings_of(rf: u32, min_isr: u32) -> impl Iterator<Item = String> {
    let one = (rf == 1).then(|| "one replica: losing its disk loses the records".to_owned());
    let even = (rf > 1 && rf.is_multiple_of(2)).then(|| {
        let (survives, better) = (rf / 2 - 1, rf - 1);
        format!("{rf} replicas survive {survives} failures, no more than {better} do; take 1, 3 or 5")
    });
    let strict = (rf > 1 && min_isr == rf).then(|| {
        "min_insync_replicas equals the replication factor: one broker down stops writes".to_owned()
    });
    [one, even, strict].into_iter().flatten()
}

fn bad_setting(error: SettingError) -> ApiError {
    ApiError::new(ErrorCode::InvalidConfig, error.to_string()).hint(error.hint())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replication_factors_that_surprise_are_warned_of() {
        let warned = |rf, min| warnings_of(rf, min).count();
        assert_eq!((warned(1, 1), warned(2, 1), warned(3, 1), warned(3, 3), warned(4, 4)), (1, 1, 0, 1, 2));
    }
}
