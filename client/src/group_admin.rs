//! Administration of consumer groups: who is in them, how far they are, where they go on.

use std::sync::Arc;
use std::time::Duration;

use wire::pb;

use crate::ClientCore;
use crate::error::ClientError;
use crate::retry::Repeat;

/// Calls of the `Groups` service that need no membership. Any broker answers; a call that could do harm when it is done
/// twice is repeated only if the failed attempt certainly had no effect.
#[derive(Debug, Clone)]
pub struct GroupAdmin {
    core: Arc<ClientCore>,
}

impl GroupAdmin {
    pub(crate) fn new(core: Arc<ClientCore>) -> Self {
        Self { core }
    }
}

macro_rules! group_calls {
    ($($(#[$doc:meta])* $name:ident($request:ident) -> $response:ident, $repeat:ident;)+) => {
        impl GroupAdmin {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// [`ClientError::Failed`] when it certainly had no effect, [`ClientError::Unknown`] when it may have had.
                pub async fn $name(&self, request: pb::$request) -> Result<pb::$response, ClientError> {
                    self.core.any_broker(Repeat::$repeat, Duration::ZERO, |connection, request| async move {
                        connection.groups().$name(request).await
                    }, request).await
                }
            )+
        }
    };
}

group_calls! {
    /// All groups, or those whose id contains a text.
    list_groups(ListGroupsRequest) -> ListGroupsResponse, Always;
    /// Members, assignment and offsets of groups; with `lag` how far they are behind.
    describe_groups(DescribeGroupsRequest) -> DescribeGroupsResponse, Always;
    /// Committed offsets; with `linearizable` every commit that was acknowledged before the call is in it.
    fetch_offsets(FetchOffsetsRequest) -> FetchOffsetsResponse, Always;
    /// Commits offsets for a group that has no members.
    commit_offsets(CommitOffsetsRequest) -> CommitOffsetsResponse, Always;
    /// Moves committed offsets, backwards too; with `dry_run` only says where they would go.
    reset_offsets(ResetOffsetsRequest) -> ResetOffsetsResponse, IfDefinite;
    /// Forgets committed offsets of partitions that no member owns.
    delete_offsets(DeleteOffsetsRequest) -> DeleteOffsetsResponse, IfDefinite;
    /// Removes a group without members.
    delete_group(DeleteGroupRequest) -> DeleteGroupResponse, IfDefinite;
    /// Tells all members to stop reading, or to go on.
    pause_group(PauseGroupRequest) -> PauseGroupResponse, IfDefinite;
}
