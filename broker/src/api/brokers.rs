//! Brokers and the metadata that clients need to find them.

use wire::api_error::ApiError;
use wire::error_code::ErrorCode;
use wire::ids::BrokerId;
use wire::pb;

use super::{Api, view};

impl Api {
    /// Topics, partitions, leaders and brokers; all topics if none is named.
    pub fn metadata(&self, topics: &[String]) -> pb::GetMetadataResponse {
        let image = self.parts().metadata.image();
        pb::GetMetadataResponse {
            cluster_id: image.cluster_id.to_string(),
            cluster_name: image.cluster_name.clone(),
            version: image.version,
            brokers: view::brokers(&image),
            topics: self.describe_topics(topics),
            controller_id: self.controller(),
        }
    }

    /// The broker that leads the metadata group, as far as this one knows.
    pub(super) fn controller(&self) -> Option<u32> {
        self.parts().metadata.controller().map(|broker| broker.0)
    }

    /// All brokers.
    pub fn list_brokers(&self) -> Vec<pb::BrokerInfo> {
        view::brokers(&self.parts().metadata.image())
    }

    /// One broker and the partitions it leads and follows.
    ///
    /// # Errors
    /// `UnknownBroker`.
    pub fn describe_broker(&self, id: BrokerId) -> Result<pb::DescribeBrokerResponse, ApiError> {
        let image = self.parts().metadata.image();
        let Some(entry) = image.broker(id) else {
            return Err(unknown_broker(id));
        };
        let loads = view::Loads::of(&image);
        let (mut leads, mut follows) = (Vec::new(), Vec::new());
        for topic in image.live_topics() {
            for partition in &topic.partitions {
                if partition.leader_broker() == Some(id) {
                    leads.push(view::reference(topic, partition));
                } else if partition.replica_on(id).is_some() {
                    follows.push(view::reference(topic, partition));
                }
            }
        }
        Ok(pb::DescribeBrokerResponse { broker: Some(view::broker(&image, &loads, entry)), leads, follows })
    }
}

/// No broker has this id.
pub(super) fn unknown_broker(id: BrokerId) -> ApiError {
    ApiError::new(ErrorCode::UnknownBroker, format!("there is no broker {id}"))
}
