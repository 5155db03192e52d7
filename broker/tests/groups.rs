//! Consumer groups through the gRPC door of one broker: members, assignments, commits, resets, lag, and bad input.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    unreachable_pub,
    reason = "helpers of tests fail the test that uses them"
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use support::{PATIENCE, TestBroker, config, record, start, start_on, start_with};
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Response, Status};
use wire::api_error::ApiError;
use wire::pb;
use wire::pb::groups_client::GroupsClient;

/// A member as a careful client would be one.
struct Member {
    groups: GroupsClient<Channel>,
    group: String,
    id: String,
    epoch: u64,
    assignment: pb::Assignment,
    valid: Duration,
}

fn join(group: &str, topics: &[&str]) -> pb::JoinGroupRequest {
    let (patterns, topics): (Vec<_>, Vec<_>) = topics.iter().partition(|text| text.contains(['*', '>']));
    let owned = |texts: Vec<&&str>| texts.into_iter().map(|text| (*text).to_owned()).collect();
    pb::JoinGroupRequest {
        group_id: group.into(),
        client_id: "test".into(),
        topics: owned(topics),
        patterns: owned(patterns),
        session_timeout_ms: 60_000,
        ..Default::default()
    }
}

impl Member {
    async fn join(broker: &TestBroker, request: pb::JoinGroupRequest) -> Self {
        let mut groups = GroupsClient::new(broker.channel().await);
        let group = request.group_id.clone();
        let joined = groups.join_group(request).await.expect("joins").into_inner();
        let valid = Duration::from_millis(u64::from(joined.valid_ms));
        let assignment = joined.assignment.expect("an assignment");
        Self { groups, group, id: joined.member_id, epoch: joined.member_epoch, assignment, valid }
    }

    fn heartbeat(&self, wait_ms: u32) -> pb::HeartbeatRequest {
        pb::HeartbeatRequest {
            group_id: self.group.clone(),
            member_id: self.id.clone(),
            member_epoch: self.epoch,
            wait_ms,
            released: Vec::new(),
        }
    }

    /// One heartbeat; true if there was news.
    async fn beat(&mut self, wait_ms: u32, released: Vec<pb::PartitionRef>) -> bool {
        let request = pb::HeartbeatRequest { released, ..self.heartbeat(wait_ms) };
        let answer = self.groups.heartbeat(request).await.expect("a heartbeat").into_inner();
        self.epoch = answer.member_epoch;
        let news = answer.assignment.is_some();
        self.assignment = answer.assignment.unwrap_or(std::mem::take(&mut self.assignment));
        news
    }

    /// Lets go of what it is asked to until nothing changes any more.
    async fn settle(&mut self) {
        loop {
            let revoked = std::mem::take(&mut self.assignment.revoked);
            if !self.beat(0, revoked.clone()).await && revoked.is_empty() {
                return;
            }
        }
    }

    fn reads(&self) -> Vec<(String, u32)> {
        self.assignment.partitions.iter().map(|at| (at.topic.clone(), at.partition)).collect()
    }

    fn commit_of(&self, offsets: &[(&str, u32, u64)]) -> pb::CommitOffsetsRequest {
        let one = |(topic, partition, offset): &(&str, u32, u64)| pb::PartitionCommit {
            topic: (*topic).into(),
            partition: *partition,
            offset: *offset,
            ..Default::default()
        };
        pb::CommitOffsetsRequest {
            group_id: self.group.clone(),
            member_id: self.id.clone(),
            member_epoch: self.epoch,
            partitions: offsets.iter().map(one).collect(),
        }
    }

    /// Names of the errors of the partitions that were refused.
    async fn commit(&mut self, offsets: &[(&str, u32, u64)]) -> Vec<String> {
        let request = self.commit_of(offsets);
        refusals(self.groups.commit_offsets(request).await.expect("a commit"))
    }

    async fn leave(&mut self) {
        let request = pb::LeaveGroupRequest {
            group_id: self.group.clone(),
            member_id: self.id.clone(),
            keep_place: false,
        };
        self.groups.leave_group(request).await.expect("leaves");
    }
}

fn refusals(response: Response<pb::CommitOffsetsResponse>) -> Vec<String> {
    let refused = response.into_inner().refused.into_iter();
    refused.map(|refused| refused.error.expect("a reason").name).collect()
}

async fn committed(broker: &TestBroker, group: &str) -> Vec<(String, u32, Option<u64>)> {
    let request =
        pb::FetchOffsetsRequest { group_id: group.into(), linearizable: true, ..Default::default() };
    let found = GroupsClient::new(broker.channel().await).fetch_offsets(request).await.expect("offsets");
    let offset = |at: pb::CommittedOffset| (at.topic, at.partition, at.offset);
    found.into_inner().partitions.into_iter().map(offset).collect()
}

async fn describe(broker: &TestBroker, group: &str) -> pb::GroupDescription {
    let request = pb::DescribeGroupsRequest { group_ids: vec![group.into()], lag: true };
    let answer = GroupsClient::new(broker.channel().await).describe_groups(request).await.expect("described");
    answer.into_inner().groups.remove(0)
}

/// Name of the error that a call ended with.
fn name_of<T: std::fmt::Debug>(result: Result<Response<T>, Status>) -> String {
    ApiError::from_status(&result.expect_err("an error")).code.name().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_members_share_and_a_waiting_heartbeat_hears_of_it_at_once() {
    let broker = start().await;
    broker.topic("orders", 4).await;
    let mut one = Member::join(&broker, join("billing", &["orders"])).await;
    assert_eq!(one.reads().len(), 4);
    assert!(one.valid > Duration::from_secs(30) && one.valid < Duration::from_secs(60), "{:?}", one.valid);
    let waiting = one.heartbeat(60_000);
    let mut groups = one.groups.clone();
    let asked = Instant::now();
    let (news, mut two) =
        tokio::join!(groups.heartbeat(waiting), Member::join(&broker, join("billing", &["orders"])));
    assert_eq!(two.reads(), [], "nothing before the first one lets go");
    let news = news.expect("news").into_inner();
    // It may wait for a third of the session.
    assert!(asked.elapsed() < Duration::from_secs(15), "the wait ends with the news: {:?}", asked.elapsed());
    let assignment = news.assignment.expect("an assignment");
    assert_eq!((assignment.partitions.len(), assignment.revoked.len()), (2, 2));
    one.settle().await;
    two.settle().await;
    assert_eq!((one.reads().len(), two.reads().len()), (2, 2));
    let group = describe(&broker, "billing").await;
    let summary = group.summary.unwrap();
    assert_eq!((summary.state.as_str(), summary.members, summary.partitions), ("stable", 2, 4));
    assert_eq!(group.members[0].host, "127.0.0.1");
    assert!(group.last_rebalance.unwrap().reason.contains("joined"));
    let left = Instant::now();
    two.leave().await;
    while one.reads().len() < 4 {
        one.beat(10_000, Vec::new()).await;
    }
    assert!(left.elapsed() < Duration::from_secs(9), "{:?}", left.elapsed());
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_are_fenced_and_survive_a_restart_with_their_group() {
    let disk: Arc<dyn disk::Disk> = Arc::new(disk::faulty::FaultyDisk::quiet());
    let broker = start_on(config(), disk.clone()).await.expect("starts");
    broker.topic("orders", 2).await;
    let mut one = Member::join(&broker, join("billing", &["orders"])).await;
    assert_eq!(one.commit(&[("orders", 0, 5), ("orders", 1, 7)]).await, [""; 0]);
    assert_eq!(one.commit(&[("orders", 0, 4), ("orders", 1, 8)]).await, ["commit_goes_back"]);
    assert_eq!(
        one.commit(&[("orders", 9, 1), ("nowhere", 0, 1)]).await,
        ["unknown_partition", "unknown_topic"]
    );
    let tool = pb::CommitOffsetsRequest { member_id: String::new(), ..one.commit_of(&[("orders", 0, 9)]) };
    assert_eq!(name_of(one.groups.commit_offsets(tool).await), "not_owner");
    let early =
        pb::CommitOffsetsRequest { member_epoch: one.epoch + 1, ..one.commit_of(&[("orders", 0, 9)]) };
    assert_eq!(name_of(one.groups.commit_offsets(early).await), "fenced_member_epoch");
    broker.stop().await;

    let broker = start_on(config(), disk).await.expect("starts again");
    let kept = [("orders".to_owned(), 0, Some(5)), ("orders".to_owned(), 1, Some(8))];
    assert_eq!(committed(&broker, "billing").await, kept);
    // The member is still one: its session began anew with the coordinator.
    let mut groups = GroupsClient::new(broker.channel().await);
    let answer = groups.heartbeat(one.heartbeat(0)).await.expect("still a member").into_inner();
    assert_eq!((answer.member_epoch, answer.assignment), (one.epoch, None));
    one.groups = groups;
    assert_eq!(one.commit(&[("orders", 0, 6)]).await, [""; 0]);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_member_is_expelled_and_its_late_messages_change_nothing() {
    let broker = start().await;
    broker.topic("orders", 2).await;
    let began = Instant::now();
    let short = pb::JoinGroupRequest { session_timeout_ms: 1_000, ..join("billing", &["orders"]) };
    let mut silent = Member::join(&broker, short).await;
    let mut other = Member::join(&broker, join("billing", &["orders"])).await;
    while other.reads().len() < 2 {
        assert!(began.elapsed() < PATIENCE, "the silent one keeps its partitions");
        other.beat(3_000, Vec::new()).await;
    }
    assert!(began.elapsed() > Duration::from_millis(800), "it had its session: {:?}", began.elapsed());
    assert_eq!(name_of(silent.groups.heartbeat(silent.heartbeat(0)).await), "unknown_member");
    let late = silent.commit_of(&[("orders", 0, 1)]);
    assert_eq!(name_of(silent.groups.commit_offsets(late).await), "unknown_member");
    assert_eq!(committed(&broker, "billing").await, []);
    assert!(describe(&broker, "billing").await.last_rebalance.unwrap().reason.contains("silent"));
    silent.leave().await;
    assert_eq!(other.reads().len(), 2, "leaving twice is fine");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_static_member_keeps_its_place_and_its_id_is_guarded() {
    let broker = start().await;
    broker.topic("orders", 2).await;
    let named = || pb::JoinGroupRequest {
        instance_id: "pod-1".into(),
        session_timeout_ms: 2_000,
        ..join("billing", &["orders"])
    };
    let mut first = Member::join(&broker, named()).await;
    let refused = first.groups.join_group(named()).await;
    assert_eq!(name_of(refused), "instance_id_in_use");
    let keep =
        pb::LeaveGroupRequest { group_id: "billing".into(), member_id: first.id.clone(), keep_place: true };
    first.groups.leave_group(keep).await.expect("goes away");
    assert!(describe(&broker, "billing").await.members[0].away);
    let second = Member::join(&broker, named()).await;
    assert_eq!(second.reads().len(), 2);
    // It crashes: once it was silent for half of its session, another process may take its place.
    let began = Instant::now();
    let third = loop {
        match first.groups.join_group(named()).await {
            Ok(joined) => break joined.into_inner(),
            Err(status) => assert_eq!(ApiError::from_status(&status).code.name(), "instance_id_in_use"),
        }
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(began.elapsed() > Duration::from_millis(500), "{:?}", began.elapsed());
    assert_eq!(third.assignment.unwrap().partitions.len(), 2);
    assert_eq!(name_of(first.groups.heartbeat(second.heartbeat(0)).await), "unknown_member");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_that_appear_and_grow_are_shared_out() {
    let broker = start().await;
    broker.topic("pay.eu", 1).await;
    let mut one = Member::join(&broker, join("billing", &["pay.>", "later"])).await;
    assert_eq!(one.reads(), [("pay.eu".to_owned(), 0)]);
    broker.topic("pay.us", 2).await;
    broker.topic("later", 1).await;
    let grow = pb::UpdateTopicRequest { name: "pay.eu".into(), partitions: 3, ..Default::default() };
    broker.admin().await.update_topic(grow).await.expect("grows");
    let began = Instant::now();
    while one.reads().len() < 6 {
        assert!(began.elapsed() < PATIENCE, "{:?}", one.reads());
        one.beat(1_000, Vec::new()).await;
    }
    broker
        .admin()
        .await
        .delete_topic(pb::DeleteTopicRequest { name: "later".into(), dry_run: false })
        .await
        .unwrap();
    while one.reads().len() > 5 {
        assert!(began.elapsed() < PATIENCE, "{:?}", one.reads());
        one.beat(1_000, Vec::new()).await;
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resets_show_where_they_go_and_owners_begin_again_there() {
    let broker = start().await;
    broker.topic("orders", 1).await;
    // An hour old: retention leaves them alone.
    let then = broker::runtime::Clock::system().now_ms() - 3_600_000;
    for n in 0..10 {
        let item = pb::PartitionProduce {
            topic: "orders".into(),
            partition: Some(0),
            records: vec![pb::Record { timestamp_ms: then + n, ..record("k", "v") }],
            ..Default::default()
        };
        let request = pb::ProduceRequest { partitions: vec![item], ..Default::default() };
        broker.broker().await.produce(request).await.expect("produced");
    }
    let mut one = Member::join(&broker, join("billing", &["orders"])).await;
    assert_eq!(one.commit(&[("orders", 0, 8)]).await, [""; 0]);
    let lag = describe(&broker, "billing").await;
    assert_eq!(lag.lag_records, Some(2));
    assert!(lag.lag_ms.unwrap() > 1_000_000, "the records are an hour old");
    let metrics = broker.get("/metrics").await.1;
    assert!(metrics.contains("altair_group_lag_messages{group=\"billing\",topic=\"orders\"} 2"), "{metrics}");

    let reset = |to, dry_run| pb::ResetOffsetsRequest {
        group_id: "billing".into(),
        scope: Vec::new(),
        to: Some(to),
        dry_run,
    };
    use pb::reset_offsets_request::To;
    let mut groups = one.groups.clone();
    for (to, after) in [
        (To::Earliest(true), 0),
        (To::Latest(true), 10),
        (To::Offset(3), 3),
        (To::Offset(99), 10),
        (To::TimestampMs(then + 4), 4),
        (To::ShiftBy(-2), 6),
    ] {
        let preview = groups.reset_offsets(reset(to, true)).await.expect("a preview").into_inner();
        let one = &preview.partitions[0];
        assert_eq!((one.before, one.after, one.high_watermark), (Some(8), after, 10), "{to:?}");
    }
    assert_eq!(committed(&broker, "billing").await[0].2, Some(8), "previews change nothing");
    groups.reset_offsets(reset(To::Offset(3), false)).await.expect("reset");
    assert_eq!(
        one.commit(&[("orders", 0, 9)]).await,
        ["stale_generation"],
        "it did not hear of the reset yet"
    );
    assert!(one.beat(0, Vec::new()).await);
    assert_eq!(one.assignment.partitions[0].committed_offset, Some(3));
    assert_eq!(one.commit(&[("orders", 0, 4)]).await, [""; 0]);

    // Without members: deletion of offsets and of the group.
    let offsets = pb::DeleteOffsetsRequest {
        group_id: "billing".into(),
        partitions: vec![pb::PartitionRef { topic: "orders".into(), partition: 0 }],
    };
    assert_eq!(name_of(groups.delete_offsets(offsets.clone()).await), "group_not_empty");
    one.leave().await;
    groups.delete_offsets(offsets).await.expect("deleted");
    assert_eq!(committed(&broker, "billing").await, []);
    let delete = |dry_run| pb::DeleteGroupRequest { group_id: "billing".into(), dry_run };
    groups.delete_group(delete(true)).await.expect("could be");
    groups.delete_group(delete(false)).await.expect("deleted");
    assert_eq!(name_of(groups.delete_group(delete(true)).await), "unknown_group");
    assert!(
        groups.list_groups(pb::ListGroupsRequest::default()).await.unwrap().into_inner().groups.is_empty()
    );
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_group_is_told_and_offsets_of_forgotten_groups_expire() {
    let mut settings = config();
    settings.groups.offset_retention_ms = 1;
    let broker = start_with(settings).await;
    broker.topic("orders", 1).await;
    let mut one = Member::join(&broker, join("billing", &["orders"])).await;
    let pause = |paused| pb::PauseGroupRequest { group_id: "billing".into(), paused };
    one.groups.pause_group(pause(true)).await.expect("paused");
    assert!(one.beat(1_000, Vec::new()).await && one.assignment.paused);
    assert_eq!(one.commit(&[("orders", 0, 0)]).await, [""; 0], "what is done may be committed");
    one.groups.pause_group(pause(false)).await.expect("resumed");
    assert!(one.beat(1_000, Vec::new()).await && !one.assignment.paused);
    one.leave().await;
    let began = Instant::now();
    loop {
        let groups =
            one.groups.list_groups(pb::ListGroupsRequest::default()).await.unwrap().into_inner().groups;
        if groups.is_empty() {
            break;
        }
        assert!(began.elapsed() < 2 * PATIENCE, "{groups:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_wishes_are_named_and_nothing_comes_to_be() {
    let broker = start().await;
    broker.topic("orders", 2).await;
    let mut groups = GroupsClient::new(broker.channel().await);
    let joins = [
        (pb::JoinGroupRequest { group_id: String::new(), ..join("g", &["orders"]) }, "invalid_group_id"),
        (pb::JoinGroupRequest { group_id: "a\u{0}b".into(), ..join("g", &["orders"]) }, "invalid_group_id"),
        (pb::JoinGroupRequest { group_id: "x".repeat(250), ..join("g", &["orders"]) }, "invalid_group_id"),
        (
            pb::JoinGroupRequest { member_id: "not-a-uuid".into(), ..join("g", &["orders"]) },
            "invalid_request",
        ),
        (pb::JoinGroupRequest { instance_id: "x".repeat(250), ..join("g", &["orders"]) }, "invalid_request"),
        (pb::JoinGroupRequest { client_id: "\n".into(), ..join("g", &["orders"]) }, "invalid_request"),
        (pb::JoinGroupRequest { assignor: "fair".into(), ..join("g", &["orders"]) }, "unknown_assignor"),
        (pb::JoinGroupRequest { session_timeout_ms: 5, ..join("g", &["orders"]) }, "invalid_request"),
        (join("g", &[]), "invalid_request"),
        (join("g", &["orders.a*"]), "invalid_topic_pattern"),
        (join("g", &[">.x"]), "invalid_topic_pattern"),
        (join("g", &["no spaces"]), "invalid_topic_name"),
        (join("g", &["orders"; 1_001]), "group_limit"),
    ];
    for (request, expected) in joins {
        assert_eq!(name_of(groups.join_group(request.clone()).await), expected, "{request:?}");
    }
    assert!(
        groups.list_groups(pb::ListGroupsRequest::default()).await.unwrap().into_inner().groups.is_empty()
    );
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_there_is_named_and_nothing_comes_to_be() {
    let broker = start().await;
    broker.topic("orders", 2).await;
    let mut groups = GroupsClient::new(broker.channel().await);
    let id = "00000000-0000-4000-8000-000000000001".to_owned();
    let beat = pb::HeartbeatRequest { group_id: "g".into(), member_id: id.clone(), ..Default::default() };
    assert_eq!(name_of(groups.heartbeat(beat.clone()).await), "unknown_group");
    let commit =
        pb::CommitOffsetsRequest { group_id: "g".into(), member_id: id.clone(), ..Default::default() };
    assert_eq!(name_of(groups.commit_offsets(commit.clone()).await), "invalid_request");
    let partitions = vec![pb::PartitionCommit { topic: "orders".into(), ..Default::default() }];
    let commit = pb::CommitOffsetsRequest { partitions, ..commit };
    assert_eq!(name_of(groups.commit_offsets(commit).await), "unknown_group");
    let leave = pb::LeaveGroupRequest { group_id: "g".into(), member_id: id, keep_place: false };
    assert_eq!(name_of(groups.leave_group(leave).await), "unknown_group");
    let reset = pb::ResetOffsetsRequest { group_id: "g".into(), ..Default::default() };
    assert_eq!(name_of(groups.reset_offsets(reset.clone()).await), "invalid_request");
    let to = Some(pb::reset_offsets_request::To::Earliest(true));
    let reset = pb::ResetOffsetsRequest { to, ..reset };
    assert_eq!(name_of(groups.reset_offsets(reset.clone()).await), "unknown_group");
    let scope = vec![pb::ResetScope { topic: "orders".into(), partitions: vec![7] }];
    assert_eq!(
        name_of(groups.reset_offsets(pb::ResetOffsetsRequest { scope, ..reset }).await),
        "unknown_partition"
    );
    let pause = pb::PauseGroupRequest { group_id: "g".into(), paused: true };
    assert_eq!(name_of(groups.pause_group(pause).await), "unknown_group");
    let fetch = pb::FetchOffsetsRequest { group_id: "g".into(), ..Default::default() };
    assert_eq!(name_of(groups.fetch_offsets(fetch).await), "unknown_group");
    let described = pb::DescribeGroupsRequest { group_ids: vec!["g".into()], lag: true };
    let described = groups.describe_groups(described).await.expect("described").into_inner().groups;
    assert_eq!(described[0].error.as_ref().expect("an error").name, "unknown_group");
    assert_eq!(
        name_of(groups.describe_groups(pb::DescribeGroupsRequest::default()).await),
        "invalid_request"
    );
    assert!(
        groups.list_groups(pb::ListGroupsRequest::default()).await.unwrap().into_inner().groups.is_empty()
    );

    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_member_may_not_say_is_named_and_changes_nothing() {
    let broker = start().await;
    broker.topic("orders", 2).await;
    let mut groups = GroupsClient::new(broker.channel().await);
    let mut member = Member::join(&broker, join("g", &["orders"])).await;
    let stranger = pb::HeartbeatRequest { member_epoch: 999, ..member.heartbeat(0) };
    assert_eq!(name_of(groups.heartbeat(stranger).await), "fenced_member_epoch");
    let many = pb::PartitionCommit { topic: "orders".into(), ..Default::default() };
    let many = pb::CommitOffsetsRequest { partitions: vec![many; 10_001], ..member.commit_of(&[]) };
    assert_eq!(name_of(groups.commit_offsets(many).await), "invalid_request");
    let mut long = member.commit_of(&[("orders", 0, 1)]);
    long.partitions[0].metadata = "x".repeat(4_097);
    assert_eq!(refusals(groups.commit_offsets(long).await.unwrap()), ["commit_metadata_too_large"]);
    assert_eq!(committed(&broker, "g").await, []);
    assert_eq!(member.commit(&[("orders", 0, 1)]).await, [""; 0]);
    broker.stop().await;
}
