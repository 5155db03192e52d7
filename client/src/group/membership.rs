//! What a consumer and the task that keeps its session share: what it wants, what it is told, what it gives back. Locked for
//! a few lines at a time.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;
use wire::ids::TopicPartition;
use wire::pb;

/// Topics by name and by pattern.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Subscription {
    pub(super) topics: BTreeSet<String>,
    pub(super) patterns: BTreeSet<String>,
}

/// The member that the coordinator knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) id: String,
    /// The epoch that it was told last.
    pub(super) told: u64,
    pub(super) generation: u64,
    /// Until then it is certainly a member.
    pub(super) valid_until: Instant,
    pub(super) session: Duration,
    pub(super) heartbeat: Duration,
}

/// Something that `poll` must take note of.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum News {
    /// Another assignment, as of this epoch of this member.
    Assignment { member: String, epoch: u64, assignment: pb::Assignment },
    /// It is no member any more; everything belongs to others.
    Lost(ApiError),
}

/// What the session task has to do next.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    /// Nothing before somebody wishes something.
    Wait,
    Join {
        id: Option<String>,
        number: u64,
        subscription: Subscription,
    },
    Beat {
        member: Member,
        released: Vec<TopicPartition>,
    },
    /// The application does not poll any more.
    GiveUp {
        member: Member,
    },
    Leave {
        id: Option<String>,
        for_good: bool,
    },
}

#[derive(Debug, Default)]
struct State {
    wanted: Option<Subscription>,
    /// Counts subscriptions; and the one that the coordinator knows.
    wanted_number: u64,
    joined_number: u64,
    member: Option<Member>,
    news: Option<News>,
    /// Why it does not become a member; told once.
    trouble: Option<ApiError>,
    released: BTreeSet<TopicPartition>,
    /// Since when the application works on what it was given; `None` = it waits in `poll`.
    busy_since: Option<Instant>,
    /// The consumer closes, for good or to come back.
    leaving: Option<bool>,
    left: Option<Result<(), ApiError>>,
}

/// The shared state with its two bells.
#[derive(Debug)]
pub(super) struct Membership {
    state: Mutex<State>,
    busy_max: Duration,
    /// Rung for `poll`.
    news: Notify,
    /// Rung for the session task.
    wishes: Notify,
}

impl Membership {
    pub(super) fn new(busy_max: Duration) -> Self {
        Self { state: Mutex::default(), busy_max, news: Notify::new(), wishes: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // --- for the consumer

    pub(super) fn subscribe(&self, subscription: Subscription) {
        let mut state = self.lock();
        if state.wanted.as_ref() != Some(&subscription) {
            state.wanted = Some(subscription);
            state.wanted_number += 1;
            self.wishes.notify_one();
        }
    }

    pub(super) fn subscription(&self) -> Subscription {
        self.lock().wanted.clone().unwrap_or_default()
    }

    pub(super) fn member(&self) -> Option<Member> {
        self.lock().member.clone()
    }

    /// What there is to take note of; it stays until [`done_with`](Self::done_with).
    pub(super) fn news(&self) -> Option<News> {
        self.lock().news.clone()
    }

    /// The consumer has done what the news asks for. Newer news stays.
    pub(super) fn done_with(&self, news: &News) {
        let mut state = self.lock();
        if state.news.as_ref() == Some(news) {
            state.news = None;
            self.wishes.notify_one();
        }
    }

    /// Why it does not become a member. Looking allows another attempt.
    pub(super) fn take_trouble(&self) -> Option<ApiError> {
        let trouble = self.lock().trouble.take();
        if trouble.is_some() {
            self.wishes.notify_one();
        }
        trouble
    }

    /// The consumer reads these no more.
    pub(super) fn release(&self, partitions: impl IntoIterator<Item = TopicPartition>) {
        self.lock().released.extend(partitions);
        self.wishes.notify_one();
    }

    /// The consumer reads this one again: an earlier release, if it was not told yet, must not count.
    pub(super) fn keep(&self, at: &TopicPartition) {
        self.lock().released.remove(at);
    }

    /// Until when it is certainly a member; `None` = it is none.
    pub(super) fn valid_until(&self) -> Option<Instant> {
        self.lock().member.as_ref().map(|member| member.valid_until)
    }

    /// The application works from now on, or waits in `poll` again. Looked at between two heartbeats.
    pub(super) fn set_busy(&self, busy: bool) {
        self.lock().busy_since = busy.then(Instant::now);
    }

    /// Waits until there may be news.
    pub(super) async fn changed(&self) {
        self.news.notified().await;
    }

    /// Asks the session task to leave, and to end.
    pub(super) fn leave(&self, for_good: bool) {
        self.lock().leaving = Some(for_good);
        self.wishes.notify_one();
    }

    /// How leaving went.
    pub(super) fn left(&self) -> Option<Result<(), ApiError>> {
        self.lock().left.clone()
    }

    // --- for the session task

    pub(super) async fn wished(&self) {
        self.wishes.notified().await;
    }

    pub(super) fn step(&self, now: Instant) -> Step {
        let state = self.lock();
        let id = state.member.as_ref().map(|member| member.id.clone());
        if let Some(for_good) = state.leaving {
            return Step::Leave { id, for_good };
        }
        let is_lost = matches!(state.news, Some(News::Lost(_)));
        let Some(subscription) = state.wanted.as_ref().filter(|_| !is_lost && state.trouble.is_none()) else {
            return Step::Wait;
        };
        if let Some(member) = &state.member
            && state.busy_since.is_some_and(|since| now.saturating_duration_since(since) >= self.busy_max)
        {
            return Step::GiveUp { member: member.clone() };
        }
        match &state.member {
            Some(member) if state.joined_number == state.wanted_number => {
                Step::Beat { member: member.clone(), released: state.released.iter().cloned().collect() }
            }
            _ => Step::Join { id, number: state.wanted_number, subscription: subscription.clone() },
        }
    }

    /// True if a heartbeat that waits should be sent anew.
    pub(super) fn is_urgent(&self, under_way: &[TopicPartition]) -> bool {
        let state = self.lock();
        state.leaving.is_some()
            || state.joined_number != state.wanted_number
            || state.released.iter().any(|at| !under_way.contains(at))
    }

    pub(super) fn joined(&self, number: u64, member: Member, assignment: pb::Assignment) {
        let mut state = self.lock();
        state.joined_number = number;
        state.news = Some(News::Assignment { member: member.id.clone(), epoch: member.told, assignment });
        state.member = Some(member);
        self.news.notify_one();
    }

    /// A heartbeat that was sent at `sent` was answered.
    pub(super) fn heard(&self, sent: Instant, released: &[TopicPartition], answer: pb::HeartbeatResponse) {
        let mut state = self.lock();
        for at in released {
            state.released.remove(at);
        }
        let Some(member) = &mut state.member else { return };
        let was_valid = member.valid_until > Instant::now();
        let valid = sent + Duration::from_millis(u64::from(answer.valid_ms));
        member.valid_until = member.valid_until.max(valid);
        member.told = answer.member_epoch;
        member.generation = answer.generation;
        let member = member.id.clone();
        if let Some(assignment) = answer.assignment {
            state.news = Some(News::Assignment { member, epoch: answer.member_epoch, assignment });
            self.news.notify_one();
        } else if !was_valid {
            self.news.notify_one();
        }
    }

    /// It is no member any more. The next attempt to join waits until the consumer has taken note.
    pub(super) fn lost(&self, error: ApiError) {
        let mut state = self.lock();
        state.member = None;
        state.released.clear();
        state.joined_number = 0;
        state.news = Some(News::Lost(error));
        self.news.notify_one();
    }

    /// It cannot become a member.
    pub(super) fn troubled(&self, error: ApiError) {
        self.lock().trouble = Some(error);
        self.news.notify_one();
    }

    /// It is gone.
    pub(super) fn gone(&self, how: Result<(), ApiError>) {
        self.lock().left = Some(how);
        self.news.notify_one();
    }
}

/// The application did not come back for more.
pub(super) fn stuck(max: Duration) -> ApiError {
    let message = format!("poll was not called for {} ms, so the consumer left its group", max.as_millis());
    ApiError::new(ErrorCode::Timeout, message)
        .hint("process less at a time (max_poll_records) or allow more time (max_poll_interval_ms)")
}
