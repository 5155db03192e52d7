//! Every task has an owner, a name, and an end.

use std::any::Any;
use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinHandle};
use tokio_util::sync::CancellationToken;

use super::Fatal;

tokio::task_local! {
    /// The owner of the running task: tasks that openraft spawns inherit it.
    static OWNER: Tasks;
}

/// A scope of tasks; scopes form a tree. Cheap to clone, a clone is the same scope.
///
/// A panic in any task pulls [`Fatal`]: a stopped replica is repaired, a wrong one spreads.
#[derive(Clone)]
pub struct Tasks(Arc<Scope>);

struct Scope {
    name: &'static str,
    token: CancellationToken,
    fatal: Fatal,
    live: Mutex<Live>,
    /// Woken when the last live task of this scope has ended.
    idle: Notify,
    children: Mutex<Vec<Weak<Scope>>>,
}

#[derive(Default)]
struct Live {
    next: u64,
    killed: bool,
    /// `None` while a task is being spawned.
    tasks: BTreeMap<u64, Option<AbortHandle>>,
}

/// Takes its task off the list when the task ends, is aborted, or unwinds.
struct Leaving {
    scope: Arc<Scope>,
    id: u64,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let mut live = self.scope.live();
        live.tasks.remove(&self.id);
        if live.tasks.is_empty() {
            self.scope.idle.notify_waiters();
        }
    }
}

impl Scope {
    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enlist(&self) -> u64 {
        let mut live = self.live();
        let id = live.next;
        live.next += 1;
        live.tasks.insert(id, None);
        id
    }

    fn new(name: &'static str, token: CancellationToken, fatal: Fatal) -> Arc<Self> {
        Arc::new(Self {
            name,
            token,
            fatal,
            live: Mutex::default(),
            idle: Notify::new(),
            children: Mutex::default(),
        })
    }
}

impl Tasks {
    /// The root scope of a broker.
    #[must_use]
    pub fn root(fatal: Fatal) -> Self {
        Self(Scope::new("root", CancellationToken::new(), fatal))
    }

    /// A scope below this one: cancelled with it, or alone.
    #[must_use]
    pub fn child(&self, name: &'static str) -> Self {
        let scope = Scope::new(name, self.0.token.child_token(), self.0.fatal.clone());
        let mut children = self.0.children.lock().unwrap_or_else(PoisonError::into_inner);
        children.retain(|child| child.strong_count() > 0);
        children.push(Arc::downgrade(&scope));
        Self(scope)
    }

    /// Cancelled when this scope shuts down; long-running tasks end on it.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.0.token.clone()
    }

    /// Name of the scope.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.0.name
    }

    /// Number of tasks alive in this scope, without its children.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.live().tasks.len()
    }

    /// True if no task of this scope is alive.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Runs a task in this scope. `shard` keeps tasks of one key on one thread once a broker runs a runtime a core;
    /// today all shards share one runtime.
    pub fn spawn(&self, name: &'static str, shard: u64, task: impl Future<Output = ()> + Send + 'static) {
        let _ = shard;
        drop(self.spawn_owned(name, task));
    }

    /// As [`Tasks::spawn`], for a task with a result; `Err` holds the panic's message.
    pub(super) fn spawn_owned<T: Send + 'static>(
        &self,
        name: &'static str,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<Result<T, String>> {
        // On the list before it is spawned, so that a task that ends at once finds itself there. The lock is not held
        // over the spawn: a runtime that shuts down drops the task in place, and its guard takes the lock.
        let id = self.0.enlist();
        let leaving = Leaving { scope: self.0.clone(), id };
        let fatal = self.0.fatal.clone();
        let guarded = async move {
            let _leaving = leaving;
            AssertUnwindSafe(task).catch_unwind().await.map_err(|panic| {
                let message = panic_message(panic.as_ref());
                fatal.stop(format!("task {name} panicked: {message}"));
                message
            })
        };
        let handle = spawn_on_runtime(OWNER.scope(self.clone(), guarded));
        let mut live = self.0.live();
        if let Some(slot) = live.tasks.get_mut(&id) {
            *slot = Some(handle.abort_handle());
        }
        let killed = live.killed;
        drop(live);
        if killed {
            handle.abort();
        }
        handle
    }

    /// Runs a future so that everything openraft spawns below it belongs to this scope.
    pub(crate) async fn owning<F: Future>(&self, future: F) -> F::Output {
        OWNER.scope(self.clone(), future).await
    }

    /// The scope of the running task.
    pub(super) fn current() -> Option<Self> {
        OWNER.try_with(Self::clone).ok()
    }

    /// Cancels this scope and its children, waits for their tasks, and aborts what is left after the deadline. True if
    /// all ended by themselves.
    pub async fn shutdown(&self, deadline: Duration) -> bool {
        self.0.token.cancel();
        let scopes = self.descendants();
        let all_idle = async {
            for scope in &scopes {
                wait_idle(scope).await;
            }
        };
        let clean = tokio::time::timeout(deadline, all_idle).await.is_ok();
        self.kill();
        clean
    }

    /// Aborts every task of this scope and its children at once, and every task that would be spawned later: what a
    /// crash does.
    pub fn kill(&self) {
        self.0.token.cancel();
        for scope in self.descendants() {
            let mut live = scope.live();
            live.killed = true;
            let handles: Vec<AbortHandle> = live.tasks.values().flatten().cloned().collect();
            // An abort may drop the task in place, whose guard takes the lock.
            drop(live);
            handles.iter().for_each(AbortHandle::abort);
        }
    }

    fn descendants(&self) -> Vec<Arc<Scope>> {
        let mut all = vec![self.0.clone()];
        let mut next = 0;
        while let Some(scope) = all.get(next).cloned() {
            let children = scope.children.lock().unwrap_or_else(PoisonError::into_inner);
            all.extend(children.iter().filter_map(Weak::upgrade));
            drop(children);
            next += 1;
        }
        all
    }
}

impl std::fmt::Debug for Tasks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tasks({}, {} alive)", self.0.name, self.len())
    }
}

async fn wait_idle(scope: &Scope) {
    loop {
        let notified = scope.idle.notified();
        if scope.live().tasks.is_empty() {
            return;
        }
        notified.await;
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the task seam itself")]
fn spawn_on_runtime<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(task)
}

/// What a panic said, if it said a text.
pub(super) fn panic_message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Fatal, Tasks};

    #[tokio::test]
    async fn shutdown_waits_for_tasks_that_heed_the_token() {
        let tasks = Tasks::root(Fatal::new());
        let child = tasks.child("child");
        let token = child.token();
        child.spawn("loop", 0, async move { token.cancelled().await });
        assert_eq!(child.len(), 1);
        assert!(tasks.shutdown(Duration::from_secs(5)).await);
        assert!(child.is_empty());
    }

    #[tokio::test]
    async fn shutdown_aborts_a_task_that_ignores_the_token() {
        let tasks = Tasks::root(Fatal::new());
        tasks.spawn("deaf", 0, std::future::pending());
        assert!(!tasks.shutdown(Duration::from_millis(10)).await);
        super::wait_idle(&tasks.0).await;
        assert!(tasks.is_empty());
    }

    #[tokio::test]
    async fn a_panic_stops_the_broker_with_the_task_s_name() {
        let fatal = Fatal::new();
        let tasks = Tasks::root(fatal.clone());
        tasks.spawn("bad", 0, async { panic!("boom") });
        assert_eq!(fatal.stopped().await, "task bad panicked: boom");
    }

    #[test]
    fn a_task_that_spawns_while_its_runtime_goes_down_does_not_block_it() {
        // A guard spawns in its drop, which happens inside the shutdown of the runtime.
        struct SpawnsInDrop(Tasks);
        impl Drop for SpawnsInDrop {
            fn drop(&mut self) {
                self.0.spawn("late", 0, std::future::pending());
            }
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let tasks = Tasks::root(Fatal::new());
        let guard = SpawnsInDrop(tasks.clone());
        let inside = runtime.enter();
        tasks.spawn("early", 0, async move {
            let _guard = guard;
            std::future::pending::<()>().await;
        });
        drop(inside);
        drop(runtime);
        assert!(tasks.is_empty());
    }

    #[tokio::test]
    async fn a_task_spawned_after_a_kill_never_runs() {
        let tasks = Tasks::root(Fatal::new());
        tasks.kill();
        let (ran, mut seen) = tokio::sync::oneshot::channel::<()>();
        tasks.spawn("late", 0, async move {
            let _ = ran.send(());
        });
        super::wait_idle(&tasks.0).await;
        assert!(seen.try_recv().is_err());
    }
}
