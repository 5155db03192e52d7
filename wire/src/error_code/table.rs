//! The rows.

/// gRPC status numbers, as in <https://grpc.github.io/grpc/core/md_doc_statuscodes.html>.
mod grpc {
    pub(super) const INVALID_ARGUMENT: i32 = 3;
    pub(super) const DEADLINE_EXCEEDED: i32 = 4;
    pub(super) const NOT_FOUND: i32 = 5;
    pub(super) const ALREADY_EXISTS: i32 = 6;
    pub(super) const RESOURCE_EXHAUSTED: i32 = 8;
    pub(super) const FAILED_PRECONDITION: i32 = 9;
    pub(super) const ABORTED: i32 = 10;
    pub(super) const OUT_OF_RANGE: i32 = 11;
    pub(super) const UNIMPLEMENTED: i32 = 12;
    pub(super) const INTERNAL: i32 = 13;
    pub(super) const UNAVAILABLE: i32 = 14;
    pub(super) const DATA_LOSS: i32 = 15;
}

/// One row: variant, code, name, the three foreign numbers, whether a retry may help, whether it certainly had no
/// effect, then title, cause and next step.
macro_rules! errors {
    ($($variant:ident: $code:literal, $name:literal, $grpc:ident, http $http:literal, kafka $kafka:literal,
       retriable $retriable:literal, definite $definite:literal,
       $title:literal, $cause:literal, $next:literal;)+) => {
        /// What went wrong, as every interface names it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $(#[doc = concat!($code, ": ", $title, ".")] $variant,)+
        }

        impl ErrorCode {
            /// All rows, by number.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Stable code, for example `ALT-2107`.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)+ }
            }

            /// Name in snake case, for example `not_leader`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// Number of the gRPC status.
            #[must_use]
            pub const fn grpc_code(self) -> i32 {
                match self { $(Self::$variant => grpc::$grpc,)+ }
            }

            /// HTTP status.
            #[must_use]
            pub const fn http_status(self) -> u16 {
                match self { $(Self::$variant => $http,)+ }
            }

            /// Error number of the Kafka protocol, <https://kafka.apache.org/protocol#protocol_error_codes>.
            #[must_use]
            pub const fn kafka_number(self) -> i16 {
                match self { $(Self::$variant => $kafka,)+ }
            }

            /// True if the same request may succeed later or elsewhere.
            #[must_use]
            pub const fn retriable(self) -> bool {
                match self { $(Self::$variant => $retriable,)+ }
            }

            /// True if the request certainly had no effect; false if it may have had one.
            #[must_use]
            pub const fn definite(self) -> bool {
                match self { $(Self::$variant => $definite,)+ }
            }

            /// What happened, in a few words.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)+ }
            }

            /// Why it happens.
            #[must_use]
            pub const fn cause(self) -> &'static str {
                match self { $(Self::$variant => $cause,)+ }
            }

            /// What to do next, where the error itself has no better hint.
            #[must_use]
            pub const fn next_step(self) -> &'static str {
                match self { $(Self::$variant => $next,)+ }
            }

            /// The long text of `altair-cli error`: cause and next step.
            #[must_use]
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => concat!($cause, "\n\nNext: ", $next, "."),)+ }
            }
        }
    };
}

errors! {
    InvalidRequest: "ALT-1001", "invalid_request", INVALID_ARGUMENT, http 400, kafka 42, retriable false, definite true,
        "the request is not valid",
        "A field is missing, out of its range or contradicts another; the message names it. The broker changed nothing.",
        "correct the field that the message names and send the request again";
    RequestTooLarge: "ALT-1002", "request_too_large", RESOURCE_EXHAUSTED, http 413, kafka 10, retriable false, definite true,
        "the request or response exceeds the message limit",
        "A message on any listener is at most limits.message_bytes (16 MiB). Larger ones are refused before they are read, so that nobody can fill the broker's memory.",
        "send fewer or smaller records in one request, or ask for fewer bytes";
    UnsupportedVersion: "ALT-1003", "unsupported_version", UNIMPLEMENTED, http 501, kafka 35, retriable false, definite true,
        "this broker does not know the call or its version",
        "Client and broker are of different versions, and one asks for what the other does not have yet or any more.",
        "compare `altair-cli version` with `altair-cli broker list -o wide` and upgrade the older one";
    Timeout: "ALT-1004", "timeout", DEADLINE_EXCEEDED, http 504, kafka 7, retriable true, definite true,
        "the time ran out before anything was changed",
        "The request waited for longer than its deadline, for example for a leader or for a place in a queue. It had no effect.",
        "try again, with a longer --timeout if the cluster is healthy (`altair-cli cluster health`)";
    NotSupported: "ALT-1005", "not_supported", UNIMPLEMENTED, http 501, kafka 42, retriable false, definite true,
        "this is not built yet",
        "The option is part of Altair's plan, but this version cannot do it.",
        "leave the option away; CHANGELOG.md says what each version can do";

    UnknownTopic: "ALT-2001", "unknown_topic", NOT_FOUND, http 404, kafka 3, retriable false, definite true,
        "there is no such topic",
        "No topic has this name: it was never created, was deleted, or the name is misspelt. A topic created a moment ago may be unknown to a broker that is catching up.",
        "`altair-cli topic list` shows the names, `altair-cli topic create <name>` creates one";
    UnknownPartition: "ALT-2002", "unknown_partition", NOT_FOUND, http 404, kafka 3, retriable false, definite true,
        "the topic has no such partition",
        "Partitions are numbered from 0 to one less than the topic's number of partitions.",
        "`altair-cli topic describe <name>` shows the partitions";
    UnknownBroker: "ALT-2003", "unknown_broker", NOT_FOUND, http 404, kafka 102, retriable false, definite true,
        "there is no such broker",
        "No broker with this id ever registered with the cluster.",
        "`altair-cli broker list` shows the ids";
    TopicExists: "ALT-2101", "topic_exists", ALREADY_EXISTS, http 409, kafka 36, retriable false, definite true,
        "a topic with this name exists already",
        "Topic names are unique in the cluster. The existing topic was not changed.",
        "choose another name, or change the existing topic with `altair-cli topic update <name>`";
    InvalidTopicName: "ALT-2102", "invalid_topic_name", INVALID_ARGUMENT, http 400, kafka 17, retriable false, definite true,
        "the topic name is not allowed",
        "A name has 1 to 249 characters of a–z, A–Z, 0–9, '.', '_' and '-', is neither '.' nor '..', and does not begin with '__', which is kept for the broker's own topics.",
        "choose a name such as orders.eu-1";
    InvalidPartitionCount: "ALT-2103", "invalid_partition_count", INVALID_ARGUMENT, http 400, kafka 37, retriable false, definite true,
        "the number of partitions is not allowed",
        "A topic has 1 to 10,000 partitions, and their number can grow but never shrink: records would lose their place.",
        "give --partitions a number in that range, not below what the topic has";
    InvalidReplicationFactor: "ALT-2104", "invalid_replication_factor", INVALID_ARGUMENT, http 400, kafka 38, retriable false, definite true,
        "the replication factor is not allowed",
        "A partition has 1 to 9 replicas. Odd numbers are sensible: 3 survives the loss of one broker, 5 of two, and 4 of no more than 3 does.",
        "give --rf a number from 1 to 9; 3 is the usual one";
    InvalidConfig: "ALT-2105", "invalid_config", INVALID_ARGUMENT, http 400, kafka 40, retriable false, definite true,
        "a setting is unknown or has an impossible value",
        "The key is not one of the settings there, or its value is of the wrong kind or outside its range; the message names it. Nothing was changed.",
        "docs/config.md lists every setting with unit, default and range";
    Conflict: "ALT-2106", "conflict", ABORTED, http 409, kafka 42, retriable true, definite true,
        "another change came first",
        "What the request was based on has been changed meanwhile, or a change of the same thing is under way.",
        "look at the present state and repeat the request if it still makes sense";
    NotEnoughBrokers: "ALT-2107", "not_enough_brokers", FAILED_PRECONDITION, http 409, kafka 38, retriable true, definite true,
        "too few brokers for the replication factor",
        "Each replica of a partition stands on a broker of its own, and new replicas go only to brokers that are alive and not draining.",
        "`altair-cli broker list` shows which are eligible; start more brokers or use a smaller --rf";

    CorruptBatch: "ALT-3001", "corrupt_batch", DATA_LOSS, http 422, kafka 2, retriable false, definite true,
        "the record batch is damaged",
        "The batch fails its checksum, is cut short, or its counts and lengths contradict its bytes. It was damaged on the way or encoded wrongly; nothing of it was stored.",
        "send the records again; if it happens again the client library encodes wrongly, and the message says where";
    InvalidRecord: "ALT-3002", "invalid_record", INVALID_ARGUMENT, http 400, kafka 87, retriable false, definite true,
        "a record cannot be stored as it is",
        "A record has a form that this topic or this version does not take, for example neither key nor partition where one is needed, or transactional attributes.",
        "correct the record that the message names";
    RecordTooLarge: "ALT-3003", "record_too_large", INVALID_ARGUMENT, http 413, kafka 10, retriable false, definite true,
        "the record or batch exceeds the topic's limit",
        "A batch is at most max_batch_bytes of its topic (1 MiB unless changed, at most 8 MiB): it must fit in one replicated entry. The size of the compressed batch counts.",
        "send smaller records, compress them, or raise max_batch_bytes: `altair-cli topic update <name> --config max_batch_bytes=4MiB`";
    UnsupportedCompression: "ALT-3004", "unsupported_compression", INVALID_ARGUMENT, http 415, kafka 76, retriable false, definite true,
        "the compression is unknown",
        "Batches are uncompressed or compressed with gzip, snappy, lz4 or zstd.",
        "choose one of these four or none";
    NotEnoughReplicas: "ALT-3005", "not_enough_replicas", UNAVAILABLE, http 503, kafka 19, retriable true, definite true,
        "fewer replicas are in sync than the topic demands",
        "min_insync_replicas of the topic is checked before the append. Too many replicas are down or too far behind, so nothing was appended.",
        "`altair-cli topic describe <name>` shows who is missing; writes go on by themselves when enough are back";
    OutcomeUnknown: "ALT-3006", "outcome_unknown", DEADLINE_EXCEEDED, http 504, kafka 7, retriable true, definite false,
        "it is not known whether the request took effect",
        "The request was accepted, but its deadline passed or the leader was lost before the outcome was known. It may have taken effect and may still do so.",
        "an idempotent producer may simply retry, a duplicate is recognised; otherwise look before you repeat it";
    OutOfOrderSequence: "ALT-3007", "out_of_order_sequence", ABORTED, http 409, kafka 45, retriable false, definite true,
        "an earlier batch of this producer is missing",
        "An idempotent producer numbers its batches in each partition, and this one leaves a gap: an earlier one failed or was lost. Storing it would break the order.",
        "the SDK recovers by itself with a new producer epoch; other clients must take a new producer id";
    ProducerFenced: "ALT-3008", "producer_fenced", ABORTED, http 409, kafka 90, retriable false, definite true,
        "a newer instance of this producer took over",
        "The producer id was used with a higher epoch, which fences this older instance so that two of them cannot write as one.",
        "stop this instance; if it is the one that should run, start it anew";
    UnknownProducer: "ALT-3009", "unknown_producer", FAILED_PRECONDITION, http 409, kafka 59, retriable false, definite true,
        "the producer's state has expired",
        "The partition has not heard of this producer for so long that its sequence numbers were forgotten, so a duplicate could not be recognised.",
        "take a new producer id; the SDK does so by itself";
    DuplicateSequence: "ALT-3010", "duplicate_sequence", ALREADY_EXISTS, http 409, kafka 46, retriable false, definite true,
        "the batch was stored before, too long ago to say where",
        "An idempotent producer sent a batch again that is older than the last five it wrote to the partition. It is stored once; its offset is no longer known.",
        "treat the records as written";

    OffsetOutOfRange: "ALT-4001", "offset_out_of_range", OUT_OF_RANGE, http 416, kafka 1, retriable false, definite true,
        "the offset is outside the partition's log",
        "The offset lies before the log start, because retention or a purge removed the records, or beyond the end of the log.",
        "continue from `earliest` or `latest`; `altair-cli partition list <topic>` shows the range";
    NotReady: "ALT-4002", "not_ready", UNAVAILABLE, http 503, kafka 78, retriable true, definite true,
        "the replica is still catching up",
        "After a start or a change of leader a replica does not yet know how far the log is committed, and serves nothing that it is not sure of.",
        "try again in a moment";

    NotLeader: "ALT-5001", "not_leader", UNAVAILABLE, http 421, kafka 6, retriable true, definite true,
        "another broker leads this partition",
        "Leaders move when brokers stop, fail or return. The request had no effect here; the error names the leader if it is known.",
        "send it to the leader; the SDK does so by itself";
    NoLeader: "ALT-5002", "no_leader", UNAVAILABLE, http 503, kafka 5, retriable true, definite true,
        "the partition has no leader now",
        "An election is under way, or too many replicas of the partition are down for one. A majority of them must be up.",
        "try again in a moment; if it lasts, `altair-cli topic describe <name>` shows which brokers are missing";
    FencedLeaderEpoch: "ALT-5003", "fenced_leader_epoch", FAILED_PRECONDITION, http 409, kafka 74, retriable true, definite true,
        "the client's leader epoch is out of date",
        "The leader has changed since the client last looked.",
        "refresh the metadata and try again; the SDK does so by itself";
    UnknownLeaderEpoch: "ALT-5004", "unknown_leader_epoch", UNAVAILABLE, http 503, kafka 75, retriable true, definite true,
        "the client's leader epoch is newer than the broker's",
        "The client has heard of a leader that this broker does not know yet.",
        "try again in a moment";
    NotReplica: "ALT-5005", "not_replica", UNAVAILABLE, http 421, kafka 6, retriable true, definite true,
        "this broker holds no replica of the partition",
        "The partition stands on other brokers, or its replica was moved away.",
        "refresh the metadata and ask one of the replicas; the SDK does so by itself";
    NotController: "ALT-5006", "not_controller", UNAVAILABLE, http 421, kafka 41, retriable true, definite true,
        "another broker leads the metadata group",
        "Changes of topics and brokers go to the leader of the metadata group, which has just moved.",
        "try again in a moment";
    NoQuorum: "ALT-5007", "no_quorum", UNAVAILABLE, http 503, kafka 8, retriable true, definite true,
        "the metadata group has no quorum",
        "Fewer than half of the brokers that vote on metadata can reach each other. Existing partitions may go on working; topics and brokers cannot be changed.",
        "`altair-cli broker list` shows who is missing; start those brokers or mend the network between them";
    WrongCluster: "ALT-5008", "wrong_cluster", FAILED_PRECONDITION, http 409, kafka 104, retriable false, definite true,
        "this belongs to another cluster",
        "The data directory or the peer carries another cluster id. Joining would mix two clusters' data, so it is refused.",
        "check cluster.seeds and storage.data_dir; a broker that should start afresh needs an empty data directory";
    ShuttingDown: "ALT-5009", "shutting_down", UNAVAILABLE, http 503, kafka 8, retriable true, definite true,
        "the broker is stopping",
        "It hands its leaderships over and takes no new requests.",
        "ask another broker; the SDK does so by itself";
    Draining: "ALT-5010", "draining", FAILED_PRECONDITION, http 409, kafka 8, retriable true, definite true,
        "the broker is being drained",
        "It takes no new replicas or leaderships until it is undrained.",
        "choose another broker";
    Unavailable: "ALT-5011", "unavailable", UNAVAILABLE, http 503, kafka 8, retriable true, definite true,
        "the service cannot answer now",
        "A part that the request needs is starting, stopping or out of reach; the message says which. The request had no effect.",
        "try again in a moment; `altair-cli cluster health` says what is wrong";
    Overloaded: "ALT-5012", "overloaded", RESOURCE_EXHAUSTED, http 429, kafka 89, retriable true, definite true,
        "the broker has more work than it may take",
        "A queue, the memory or the log that is not yet released has reached its bound. Refusing is better than accepting what would be lost or late.",
        "wait for the advised time and try again; if it lasts, add brokers or partitions, or send less";

    StorageFull: "ALT-6001", "storage_full", RESOURCE_EXHAUSTED, http 507, kafka 56, retriable true, definite true,
        "the broker's disk is nearly full",
        "Writes are refused while free space is below the reserve, so that the log itself never meets a full disk. Reads go on, and writes resume by themselves when space returns.",
        "free space, shorten retention (`altair-cli topic update <name> --retention 1d`) or enlarge the disk";
    StorageFault: "ALT-6002", "storage_fault", INTERNAL, http 500, kafka 56, retriable true, definite false,
        "the broker's disk failed",
        "A write, read or fsync failed. After a failed fsync it cannot be known what is on the disk, so the broker stops instead of going on with what may be lost.",
        "look at the broker's last log line and its disk; the other replicas go on";
    DirectoryLocked: "ALT-6003", "directory_locked", FAILED_PRECONDITION, http 409, kafka 56, retriable false, definite true,
        "the data directory is in use",
        "Another process holds the lock of this data directory. Two processes on one directory would destroy it.",
        "stop the broker that uses it, or give another directory";
    InvalidDataDirectory: "ALT-6004", "invalid_data_directory", FAILED_PRECONDITION, http 409, kafka 56, retriable false, definite true,
        "this is not a usable data directory",
        "The directory does not exist, was not written by Altair, or was written by a version that this one cannot read.",
        "check the path; `altair-cli log dump <dir>` shows what is in it";

    ConnectionFailed: "ALT-7001", "connection_failed", UNAVAILABLE, http 503, kafka 13, retriable true, definite true,
        "no connection to the cluster",
        "No broker answered at the given addresses: none runs there, the address is wrong, or a firewall is between. Nothing was sent.",
        "check --addr (or ALTAIR_ADDR) and that a broker runs there: `altair dev` starts a cluster";
    ConnectionLost: "ALT-7002", "connection_lost", UNAVAILABLE, http 503, kafka 13, retriable true, definite false,
        "the connection broke during a request",
        "The request was sent and no answer came. It may have taken effect.",
        "an idempotent producer may simply retry; otherwise look before you repeat it";
    DeliveryExpired: "ALT-7003", "delivery_expired", DEADLINE_EXCEEDED, http 504, kafka 7, retriable false, definite true,
        "the record was not delivered within its deadline",
        "Until the delivery deadline every attempt failed without effect, or the record never left the producer's buffer. It is certainly not stored by this send.",
        "look at the last error in the reason; send it again when the cluster is healthy";
    BufferFull: "ALT-7004", "buffer_full", RESOURCE_EXHAUSTED, http 429, kafka 89, retriable true, definite true,
        "the producer's buffer is full",
        "Records come in faster than the cluster takes them, and the buffer has reached its bound.",
        "send more slowly, wait for deliveries, or raise the producer's buffer";
    ClientClosed: "ALT-7005", "client_closed", FAILED_PRECONDITION, http 409, kafka 42, retriable false, definite true,
        "the client is closed",
        "The producer, consumer or client was closed before the call.",
        "create a new client";
    LocalIo: "ALT-7006", "local_io", FAILED_PRECONDITION, http 500, kafka -1, retriable false, definite true,
        "a local file or stream cannot be read or written",
        "This concerns the machine where the command runs, not the cluster.",
        "check the path and its permissions";
    InvalidHistory: "ALT-7007", "invalid_history", INVALID_ARGUMENT, http 400, kafka 42, retriable false, definite true,
        "a recorded history cannot be judged",
        "The file is not there, has holes, was changed or cut off, or comes from another version. A judge that guessed what is missing would prove nothing.",
        "give the files of one run as they were recorded (`altair-cli verify run --keep <dir>` makes one)";

    InvalidGroupId: "ALT-8001", "invalid_group_id", INVALID_ARGUMENT, http 400, kafka 24, retriable false, definite true,
        "the group id is not allowed",
        "A consumer group's id has 1 to 249 bytes of printable text without control characters and without spaces at its ends.",
        "choose an id such as billing or eu.fraud-check";
    UnknownGroup: "ALT-8002", "unknown_group", NOT_FOUND, http 404, kafka 69, retriable false, definite true,
        "there is no such consumer group",
        "No member ever joined a group with this id and nothing was committed for it, it was deleted, or it was empty for so long that its offsets expired.",
        "`altair-cli group list` shows the groups; a group comes to be when its first member joins or commits";
    UnknownMember: "ALT-8003", "unknown_member", NOT_FOUND, http 404, kafka 25, retriable false, definite true,
        "the group has no such member",
        "The member left, was silent for longer than its session_timeout_ms and was expelled, or another process took its instance id over. What it owned belongs to others by now.",
        "join again; the SDK does so by itself and reports its partitions as lost";
    FencedMemberEpoch: "ALT-8004", "fenced_member_epoch", ABORTED, http 409, kafka 110, retriable false, definite true,
        "the member's epoch is not one that it was given",
        "Requests of a member carry the epoch that the coordinator last told it. This one is newer than any that was given, or older than the member itself.",
        "join again; the SDK does so by itself";
    StaleGeneration: "ALT-8005", "stale_generation", ABORTED, http 409, kafka 113, retriable false, definite true,
        "the partition was assigned anew since the member last looked",
        "The commit belongs to an earlier assignment of the partition: it moved meanwhile, or its offset was reset. Taking it could skip or repeat records of the present owner.",
        "nothing: read on from the committed offset of the present assignment, as the SDK does";
    NotOwner: "ALT-8006", "not_owner", ABORTED, http 409, kafka 22, retriable false, definite true,
        "the member does not own the partition",
        "Only the member that a partition is assigned to may commit for it; without a member, only while the group has none.",
        "commit only what poll returned from partitions that are still assigned";
    UnknownAssignor: "ALT-8007", "unknown_assignor", INVALID_ARGUMENT, http 400, kafka 112, retriable false, definite true,
        "there is no such assignor",
        "Partitions are shared out by the broker with one of the assignors sticky (the default), range and round_robin.",
        "use one of these three, or leave the setting away";
    InvalidTopicPattern: "ALT-8008", "invalid_topic_pattern", INVALID_ARGUMENT, http 400, kafka 128, retriable false, definite true,
        "the topic pattern is not allowed",
        "A pattern is a topic name whose parts between dots may be '*' (any one part), with '>' allowed as its last part (one part or more). No part is empty, and '*' and '>' stand alone in theirs.",
        "write for example orders.* or orders.>, in quotes on a command line";
    InstanceIdInUse: "ALT-8009", "instance_id_in_use", ALREADY_EXISTS, http 409, kafka 111, retriable true, definite true,
        "another live member has this group.instance.id",
        "A static member's instance id belongs to one process at a time. The one that holds it was heard of lately.",
        "stop the other process or give this one an id of its own; after a crash the id is free when the old one has been silent for half of its session timeout";
    CommitGoesBack: "ALT-8010", "commit_goes_back", FAILED_PRECONDITION, http 409, kafka 42, retriable false, definite true,
        "the commit lies before the committed offset",
        "Committed offsets never go back by themselves: a late or repeated commit would make records be processed again that are done.",
        "to read again on purpose: `altair-cli group seek <group> --to <offset>`";
    GroupNotEmpty: "ALT-8011", "group_not_empty", FAILED_PRECONDITION, http 409, kafka 68, retriable true, definite true,
        "the group still has members",
        "A group, or the offsets of a partition that a member owns, can be deleted only when nobody uses them.",
        "stop the consumers that `altair-cli group describe <group>` shows, then try again";
    GroupLimit: "ALT-8012", "group_limit", RESOURCE_EXHAUSTED, http 409, kafka 81, retriable false, definite true,
        "a limit of consumer groups is reached",
        "The group has as many members, its subscription as many topics, or the cluster as many groups as are allowed; the message says which. Without a bound one client could fill every broker's memory.",
        "use fewer and larger groups or members, and delete groups that are not used any more";
    CommitMetadataTooLarge: "ALT-8013", "commit_metadata_too_large", INVALID_ARGUMENT, http 400, kafka 12, retriable false, definite true,
        "the text beside the offset is too long",
        "A commit may carry up to 4,096 bytes of text, which every metadata replica keeps.",
        "shorten the text, or keep it elsewhere and commit a reference to it";
    NotCoordinator: "ALT-8014", "not_coordinator", UNAVAILABLE, http 421, kafka 16, retriable true, definite true,
        "another broker coordinates the groups",
        "Groups are coordinated by the leader of the metadata group, which has just moved, or there is none at this moment.",
        "try again in a moment; the SDK does so by itself";
    NoCommittedOffset: "ALT-8015", "no_committed_offset", OUT_OF_RANGE, http 409, kafka 1, retriable false, definite true,
        "the group has no offset for the partition",
        "Nothing was committed for the partition yet, or what was committed is not in its log any more, and the consumer's offset_reset is none.",
        "set a start with `altair-cli group seek <group> --to earliest`, or use offset_reset earliest or latest";

    Internal: "ALT-9001", "internal", INTERNAL, http 500, kafka -1, retriable false, definite false,
        "a fault inside Altair",
        "Something happened that should be impossible. The request may have had an effect.",
        "please report it with the broker's log around this time";
}
