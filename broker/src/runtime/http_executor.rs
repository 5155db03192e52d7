//! Lets hyper run its tasks in a scope of ours.

use std::future::Future;

use super::Tasks;

/// Runs what an HTTP connection wants to have run as tasks of a scope.
#[derive(Debug, Clone)]
pub struct HttpExecutor {
    tasks: Tasks,
    name: &'static str,
}

impl HttpExecutor {
    /// Tasks called `name` in the scope `tasks`.
    #[must_use]
    pub fn new(tasks: Tasks, name: &'static str) -> Self {
        Self { tasks, name }
    }
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for HttpExecutor {
    fn execute(&self, task: F) {
        self.tasks.spawn(self.name, 0, task);
    }
}
